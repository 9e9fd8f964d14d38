"""Pictures: what is in them, and what they refuse."""

import io

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
from PIL import Image

import jflow
from jflow import data, flows, viz
from jflow.train import History

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="module")
def density():
    y = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    flow = flows.nsf(2, layers=2, hidden=(8,))
    return jflow.Density(flow, jflow.init(flow, 0, y * [1.0, 0.5]))


def offsets(axes):
    return np.asarray(axes.collections[0].get_offsets())


def test_layers_show_points_after_each(density):
    y = np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32)
    picture = viz.layers(density, y, columns=3)
    steps = density.trajectory(y)
    shown = [axes for axes in picture.axes if axes.collections]
    assert len(shown) == len(steps) == 7
    assert len(picture.axes) == 9
    for axes, step in zip(shown, steps, strict=True):
        np.testing.assert_allclose(offsets(axes), step.values, rtol=1e-6)
        assert axes.get_title() == (step.name or "data")
    first = shown[0].collections[0].get_facecolors()
    np.testing.assert_array_equal(shown[-1].collections[0].get_facecolors(), first)
    with pytest.raises(ValueError, match=r"y must be points \(N, 2\); got \(3, 3\)"):
        viz.layers(density, np.zeros((3, 3)))


def test_a_moving_picture(density, tmp_path):
    y = np.random.default_rng(2).normal(size=(20, 2)).astype(np.float32)
    file = viz.animate(density, y, tmp_path / "a.gif", frames=2)
    with Image.open(file) as image:
        assert image.format == "GIF"
        assert image.n_frames > 6
    with pytest.raises(ValueError, match=r"path must be a \.gif file"):
        viz.animate(density, y, tmp_path / "a.mp4")


def test_a_density_of_two_features_has_a_mass_of_one(density):
    for log in (False, True):
        picture = viz.density2d(density, resolution=150, log=log)
        mesh = picture.axes[0].collections[0]
        corners = mesh.get_coordinates()
        area = np.prod(corners[-1, -1] - corners[0, 0]) / 150**2
        shown = np.asarray(mesh.get_array())
        mass = (np.exp(shown) if log else shown).sum() * area
        assert mass == pytest.approx(0.98, abs=0.03)
    y = np.asarray([[0.0, 0.0], [1.0, 2.0]])
    picture = viz.density2d(density, y, resolution=20)
    np.testing.assert_allclose(offsets_of_dots(picture), y)
    low, high = picture.axes[0].get_ylim()
    assert low < -0.15
    assert high > 2.15
    where = picture.axes[0].collections[0].get_array()[5, 7]
    x = np.linspace(-0.1, 1.1, 20)[7], np.linspace(-0.2, 2.2, 20)[5]
    assert where == pytest.approx(float(np.exp(density.log_prob(np.float32(x)))), rel=1e-3)
    clusters = np.repeat([[0.0, 0.0], [9.0, 9.0]], 3000, axis=0)  # in order
    shown = offsets_of_dots(viz.density2d(density, clusters, resolution=9))
    assert len(shown) == 2000
    assert np.mean(shown[:, 0] > 5) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(TypeError, match="must be a Density; got a ndarray"):
        viz.density2d(np.zeros(2))
    with pytest.raises(ValueError, match="points: 1 of 2 points are NaN or infinite"):
        viz.density2d(density, np.asarray([[0.0, np.nan], [1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"density must be of 2 features; its events are \(3,\)"):
        viz.density2d(jflow.Density(flows.nsf(3), {}))


def test_a_density_given_a_context():
    flow = flows.nsf(2, layers=1, hidden=(8,)).clone(context_shape={"a": (2,)}, encoder=Encoder())
    context = {"a": np.ones(2, np.float32)}
    many = {"a": np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)}
    y = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    density = jflow.Density(flow, jflow.init(flow, 0, y, many))
    assert "context_shape={'a': (2,)}" in repr(density)
    assert "\n" not in repr(density)
    picture = viz.density2d(density, y, context, resolution=5)
    found = picture.axes[0].collections[0].get_array()
    assert np.isfinite(found).all()
    assert len(viz.layers(density, y, many).axes) == 4
    with pytest.raises(
        ValueError, match=r"must be one, for all points, of shape \(2,\); got \(9, 2\)"
    ):
        viz.density2d(density, y, many)


class Encoder(nn.Module):
    """The context as it is."""

    def __call__(self, context):
        return context["a"]


def offsets_of_dots(picture):
    return np.asarray(picture.axes[0].collections[-1].get_offsets())


def test_grids_have_the_pixels():
    images = RNG.integers(0, 17, (5, 4, 3, 1))
    shown = viz.grid(images, columns=2, levels=17).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, data.tile(images / 16, 2, gap=1)[..., 0])
    assert viz.grid(RNG.random((4, 2, 2, 3))).axes[0].images[0].get_array().shape == (5, 5, 3)
    with pytest.raises(ValueError, match=r"numbers from 0 to 16; got 0 to 255.* levels= says"):
        viz.grid(np.asarray([0, 255]).reshape(2, 1, 1, 1), levels=17)
    found = viz.grid(np.ones((1, 2, 2, 1), bool)).axes[0].images[0].get_array()
    np.testing.assert_array_equal(found, np.ones((2, 2)))
    half = viz.grid(jnp.full((1, 2, 2, 1), 0.5, jnp.bfloat16)).axes[0].images[0].get_array()
    np.testing.assert_array_equal(half, np.full((2, 2), 0.5))
    for wrong, options, match in (
        (np.full((1, 2, 2, 1), np.nan), {}, "from 0 to 1; got nan"),
        (images, {"levels": 1}, "levels must be 2 or more"),
        (images, {"columns": -1}, "columns must be"),
    ):
        with pytest.raises(ValueError, match=match):
            viz.grid(wrong, **options)
    with pytest.raises(ValueError, match=r"\(N, height, width, 1 or 3\); got \(4, 4\)"):
        viz.grid(np.zeros((4, 4)))


def test_pairs_of_features():
    points, samples = RNG.normal(size=(60, 3)), RNG.normal(size=(40, 3))
    picture = viz.pairs(points, samples, ["a", "b", "c"])
    axes = np.asarray(picture.axes).reshape(3, 3)
    samples_shown, points_shown = axes[2, 1].collections
    np.testing.assert_allclose(points_shown.get_offsets(), points[:, 1:])
    np.testing.assert_allclose(samples_shown.get_offsets(), samples[:, 1:])
    for patches in (axes[1, 1].patches[:30], axes[1, 1].patches[30:]):
        mass = sum(p.get_height() * p.get_width() for p in patches)
        assert mass == pytest.approx(1)
    assert [axes[2, i].get_xlabel() for i in range(3)] == ["a", "b", "c"]
    assert len(viz.pairs(np.zeros((5, 12))).axes) == 64
    points[3, 1] = np.nan
    holed = np.asarray(viz.pairs(points).axes).reshape(3, 3)
    assert sum(p.get_height() * p.get_width() for p in holed[1, 1].patches) == pytest.approx(1)
    order = np.repeat([[0.0, 0.0], [9.0, 9.0]], 3000, axis=0)
    shown = np.asarray(viz.pairs(order).axes[2].collections[0].get_offsets())
    assert np.mean(shown[:, 0] > 5) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="names must be 3, one for each feature; got 2"):
        viz.pairs(points, names=["a", "b"])
    with pytest.raises(ValueError, match=r"samples must be points \(N, 3\); got \(5, 2\)"):
        viz.pairs(points, np.zeros((5, 2)))


def test_courses_of_training():
    rows = [{"step": s, "train_nll": 3.0 - s, "validation_nll": 4.0 - s} for s in (1.0, 2.0)]
    history = History("nll", rows, 2)
    axes = viz.curves(history).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [3, 2])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [2, 1])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["validation", "train"]
    both = viz.curves({"a": history, "b": history}).axes[0]
    assert len(both.lines) == 6
    alone = History("nll", [{"step": 1.0, "train_nll": 3.0}])
    texts = viz.curves(alone).axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["train"]
    with pytest.raises(TypeError, match="must be a History, or a dict of them by name; got list"):
        viz.curves([history])
    with pytest.raises(ValueError, match=r"one unit of losses; got \['bits_per_dim', 'nll'\]"):
        viz.curves({"a": history, "b": History("bits_per_dim")})


def test_calibration_tells_what_is_uniform():
    for numbers, within in ((RNG.random(500), True), (RNG.random(500) ** 1.5, False)):
        left, right = viz.calibration(numbers).axes
        heights = [patch.get_height() for patch in left.patches[1:]]
        assert sum(heights) == 500
        (line,) = right.lines
        off = np.abs(line.get_ydata() - line.get_xdata()).max()
        band = np.asarray(right.collections[0].get_paths()[0].vertices)[:, 1].max() - 1
        assert (off < band) == within
        assert band == pytest.approx(1.628 / np.sqrt(500), rel=0.02)  # of tables, at 1 %
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got 2, from -1 to 0.5"):
        viz.calibration([0.5, -1.0])
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got 0"):
        viz.calibration([])


def test_notebooks_show_pictures():
    with Image.open(io.BytesIO(viz.calibration(RNG.random(50))._repr_png_())) as image:
        assert image.format == "PNG"
