"""Densities of images: scores, what they are corrected by, p-values, edits, files."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats

pytest.importorskip("PIL")

import jflow
from jflow import data
from jflow.data import ImageDensity
from jflow.data.image_scores import slerp

SHAPE = (4, 4, 1)
DIMENSIONS = math.prod(SHAPE)


def textures(count, seed):
    """Noise of 8 bits, darker at the top."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.4, 1.0, 4)[:, None, None]
    return (256 * scale * rng.random((count, *SHAPE))).astype(np.uint8)


def splits(seed=0, train=400, test=300):
    parts = [
        data.Labelled(textures(count, seed + i), np.zeros(count, int))
        for i, count in enumerate((train, 60, test))
    ]
    return data.Splits(*parts, values=256)


def flow(shape=SHAPE, values=256):
    return jflow.flows.glow(shape, 1, 1, 8, values=values, checkerboards=0)


@pytest.fixture(scope="module")
def density():
    found, _ = jflow.fit(flow(), splits(), key=0, steps=100, batch_size=64, progress=False)
    return found


def test_a_score_is_of_the_image_alone(density):
    y = textures(70, 5)
    found = density.log_prob(y)
    assert found.dtype == np.float64
    np.testing.assert_allclose(density.log_prob(y[::-1])[::-1], found, rtol=1e-6)
    np.testing.assert_allclose(density.log_prob(y[3:4]), found[3:4], rtol=1e-6)
    np.testing.assert_allclose(density.log_prob(y, batch_size=8), found, rtol=1e-6)
    np.testing.assert_array_equal(density.log_prob(y[..., 0]), found)
    assert np.all(density.log_prob(y, key=1) != found)


def test_log_prob_is_the_bound_in_nats(density):
    y = textures(20, 5)
    bits = density.density.bits_per_dim(y, 0, samples=200)
    each = np.stack([density.log_prob(y, key=key) for key in range(50)])
    found, spread = each.mean(axis=0), each.std(axis=0)
    off = found + np.asarray(bits) * math.log(2) * DIMENSIONS
    assert np.all(np.abs(off) < 5 * spread / np.sqrt(50) + 5 * spread / np.sqrt(200))
    averaged = np.logaddexp.reduce(each) - math.log(50)
    assert np.abs(density.log_prob(y, draws=50) - averaged).max() < 2 < math.log(50) - 1
    assert np.mean(density.log_prob(y, draws=50)) > found.mean()
    # Each image has noise of its own, even if it is nearly the same as another.
    alike = np.repeat(y[:1], 2, axis=0)
    alike[1, 0, 0, 0] ^= 1
    first, second = np.stack([density.log_prob(alike, key=key) for key in range(50)], axis=1)
    assert np.corrcoef(first, second)[0, 1] < 0.6


def test_what_evaluates_is_the_density_within(density):
    images = np.zeros((2, *density.shape), int)
    with pytest.raises(TypeError, match=r"give density\.density, .*; got ImageDensity"):
        jflow.evaluate(density, images, key=0)
    assert np.isfinite(jflow.evaluate(density.density, images, key=0).mean)


def test_scores_are_corrected(density):
    y = textures(20, 5)
    log_p = density.log_prob(y)
    assert density.correction == "complexity"
    np.testing.assert_allclose(density.score(y), log_p + data.complexity(y))
    np.testing.assert_array_equal(replace(density, correction=None).score(y), log_p)
    key = jax.random.key(0)
    variables = jflow.init(flow(), key, textures(64, 9))
    other = jflow.Density(flow(), variables)
    found = replace(density, correction="background", background=other).score(y)
    wanted = log_p - np.asarray(other.bits_per_dim(y, 0, samples=50)) * -math.log(2) * DIMENSIONS
    assert np.abs(found - wanted).max() < 5
    assert np.corrcoef(found, log_p - density.score(y))[0, 1] < 0.999


def test_simple_images_are_strange_by_their_complexity(density):
    plain = np.broadcast_to(np.arange(40, 80, dtype=np.uint8)[:, None, None, None], (40, *SHAPE))
    held_out = textures(300, 7)
    alone = density.calibrate(held_out, correction=None)
    assert np.mean(alone.outlier(plain, 0.05, tails=1)) < 0.1  # they are as likely as others
    assert np.mean(density.calibrate(held_out).outlier(plain, 0.05)) == 1.0


def test_p_values_are_uniform_on_fresh_images(density):
    for seed in (20, 30, 40):
        p = density.p_value(textures(300, seed))
        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert np.mean(density.outlier(textures(300, seed), 0.1)) < 0.17


def test_calibration_is_by_other_images(density):
    assert len(density.calibration) == 300
    with pytest.raises(ValueError, match=r"images that the density was not fitted on; .* 100%"):
        density.calibrate(textures(400, 0))
    with pytest.raises(ValueError, match="held_out must have 20 images or more; got 5"):
        density.calibrate(textures(5, 9))
    with pytest.raises(ValueError, match="needs held-out data"):
        ImageDensity(density.density).p_value(textures(5, 9))
    with pytest.raises(ValueError, match=r"alpha must be 0\.0066 or more"):
        density.outlier(textures(5, 9), 0.001)


def test_samples(density):
    y = density.sample(70, key=3)
    assert (y.shape, y.dtype) == ((70, *SHAPE), np.uint8)
    np.testing.assert_array_equal(density.sample(70, key=3), y)
    assert len(np.unique(y.reshape(70, -1), axis=0)) == 70
    cooler = density.sample(200, temperature=0.3)
    assert cooler.std(axis=0).mean() < 0.6 * y.std(axis=0).mean()


def test_between_two_images(density):
    first, last = textures(2, 5)
    found = density.interpolate(first, last, 5)
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[-1], last)
    assert found.shape == (5, *SHAPE)
    np.testing.assert_array_equal(density.interpolate(first, first, 3), [first] * 3)


def test_the_way_between_two_images_is_that_of_their_latents(density):
    ends = density.latents(textures(2, 5))
    wanted = density.from_latents(slerp(*ends, np.asarray([0.5])))
    np.testing.assert_array_equal(density.interpolate(*textures(2, 5), 3)[1:2], wanted)
    straight = density.from_latents(ends.mean(axis=0, keepdims=True))
    assert np.any(straight != wanted)
    y = textures(70, 6)
    np.testing.assert_allclose(density.latents(y)[66:67], density.latents(y[66:67]), atol=1e-5)


def test_the_way_is_along_a_sphere():
    a, b = np.asarray([2.0, 0.0], np.float32), np.asarray([0.0, 2.0], np.float32)
    found = slerp(a, b, np.asarray([0, 1 / 3, 1]))
    wanted = [[2, 0], [math.sqrt(3), 1], [0, 2]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_attributes(density):
    dark, light = textures(100, 5) // 2, textures(100, 6) // 2 + 127
    towards = density.attribute(light, dark)
    y = textures(50, 8)
    np.testing.assert_array_equal(density.edit(y, towards, 0.0), y)
    levels = [density.edit(y, towards, s).mean() for s in (-0.5, 0.0, 0.5)]
    assert levels[0] < levels[1] - 10 < levels[2] - 20
    with pytest.raises(ValueError, match=r"attribute must have the shape of latents, \(16,\)"):
        density.edit(y, towards[:3])


def test_files(density, tmp_path):
    y = textures(30, 5)
    density.save(tmp_path / "a")
    density.save(tmp_path / "a")
    again = ImageDensity.load(tmp_path / "a")
    np.testing.assert_array_equal(again.p_value(y), density.p_value(y))
    np.testing.assert_array_equal(again.trained, density.trained)
    other = density.calibrate(
        textures(50, 7), correction="background", background=ImageDensity(density.density)
    )
    other.save(tmp_path / "b")
    again = ImageDensity.load(tmp_path / "b")
    assert again.correction == "background"
    np.testing.assert_array_equal(again.score(y), other.score(y))
    (tmp_path / "b" / "background" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"damaged: background/config\.json is not the one"):
        ImageDensity.load(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "precious.txt").write_text("x")
    with pytest.raises(FileExistsError, match="something other than a saved density of images"):
        density.save(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match=r"there is no images.json"):
        ImageDensity.load(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="no saved density of a table"):
        data.TableDensity.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (textures(3, 0)[0], ValueError, r"\(N, 4, 4, 1\); got \(4, 4, 1\); for a single one"),
        (np.zeros((2, 5, 4, 1), np.uint8), ValueError, r"\(N, 4, 4, 1\); got \(2, 5, 4, 1\)"),
        (np.zeros((0, 4, 4, 1), np.uint8), ValueError, r"got \(0, 4, 4, 1\)"),
        (np.zeros((2, 4, 4, 1)), TypeError, "must be integers"),
        (np.full((2, 4, 4, 1), 256), ValueError, "got numbers from 256 to 256"),
    ],
)
def test_other_images(density, images, error, match):
    with pytest.raises(error, match=match):
        density.log_prob(images)


def test_what_is_fitted(density):
    images = splits()
    with pytest.raises(ValueError, match=r"images \(4, 4, 1\) of 256 levels.* of 16"):
        jflow.fit(flow(values=16), images, key=0, steps=1)
    with pytest.raises(ValueError, match="must be one of images"):
        jflow.fit(jflow.flows.nsf(16), images, key=0, steps=1)
    conditional = jflow.flows.glow(SHAPE, 1, 1, 8, context_shape=3)
    with pytest.raises(ValueError, match="must be unconditional"):
        jflow.fit(conditional, images, key=0, steps=1)
    with pytest.raises(ValueError, match="have their own validation images"):
        jflow.fit(flow(), images, key=0, steps=1, validation=textures(3, 0))
    with pytest.raises(ValueError, match="need each other"):
        ImageDensity(density.density, correction="background")
    with pytest.raises(ValueError, match='must be "complexity", "background" or None'):
        ImageDensity(density.density, correction="size")
    other = jflow.Density(flow((2, 2, 1)), {})
    with pytest.raises(ValueError, match=r"background must be a density of images \(4, 4, 1\)"):
        ImageDensity(density.density, correction="background", background=other)


def test_parts_of_other_kinds_are_refused_before_training():
    images = splits()
    other = np.zeros((30, 4, 2, 1), np.uint8), np.zeros((30, *SHAPE)), np.full((30, *SHAPE), 300)
    for y, match in zip(other, ("shape", "integers", "from 300 to 300"), strict=True):
        with pytest.raises((ValueError, TypeError), match=f"test images must .*{match}"):
            jflow.fit(flow(), replace(images, test=data.Labelled(y, np.zeros(30, int))), key=0)


def test_streams_and_colours(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for place, pixels in enumerate(textures(120, 0).repeat(3, axis=-1)):
        image.fromarray(pixels + np.arange(3, dtype=np.uint8)).save(tmp_path / f"{place}.png")
    images = data.images(tmp_path, validation=30, stream=True)
    found, _ = jflow.fit(flow((4, 4, 3)), images, key=0, steps=4, batch_size=16, progress=False)
    assert found.trained is None
    assert len(found.calibration) == 30
    assert found.sample(3).shape == (3, 4, 4, 3)
    assert np.isfinite(found.p_value(images.validation.y)).all()


def test_what_is_not_a_number(density):
    variables = dict(density.density.variables)
    lost = variables | {"params": jax.tree.map(lambda a: a * np.nan, variables["params"])}
    broken = replace(density, density=jflow.Density(density.density.flow, lost))
    assert np.isnan(broken.p_value(textures(3, 0))).all()
    assert broken.outlier(textures(3, 0), 0.05).all()
    with pytest.raises(ValueError, match="held_out has 30 of 30 whose log_prob is NaN"):
        broken.calibrate(textures(30, 9))
    with pytest.raises(FloatingPointError, match="not numbers"):
        density.from_latents(np.full((1, 16), np.nan, np.float32))


def test_few_test_images_do_not_calibrate():
    found, _ = jflow.fit(flow(), splits(test=5), key=0, steps=2, batch_size=64, progress=False)
    assert found.calibration is None


def test_complexity():
    plain, noise = np.zeros((2, 16, 16, 3), np.uint8), textures(2, 0).repeat(4, 1).repeat(4, 2)
    assert np.all(data.complexity(plain)[:1] < data.complexity(noise))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1, 32, 32, 1)).astype(np.uint8)
    assert data.complexity(noise)[0] / math.log(2) == pytest.approx(8 * 32 * 32, rel=0.15)
    with pytest.raises(ValueError, match=r"uint8 \(N, height, width, 1 or 3\); got float64"):
        data.complexity(plain / 255)


def test_mutations():
    y = np.zeros((50, *SHAPE), np.uint8)
    found = np.asarray(data.mutate(jax.random.key(0), y, rate=0.3, values=200))
    assert found.dtype == np.uint8
    assert np.mean(found > 0) == pytest.approx(0.3, abs=0.05)
    assert 180 < found.max() < 200
    some, _ = jflow.fit(
        flow(), textures(64, 0), key=0, steps=2, batch_size=16, augment=data.mutate, progress=False
    )
    assert np.isfinite(some.log_prob(textures(2, 0), key=0)).all()


def test_tiles():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 2, 3, 1), np.uint8)
    found = data.tile(images, 3, gap=9)
    assert found.shape == (5, 11, 1)
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 0, 9, 1, 1, 1, 9, 2, 2, 2])
    np.testing.assert_array_equal(found[3, :, 0], [3, 3, 3, 9, 4, 4, 4, 9, 9, 9, 9])
    assert data.tile(images).shape == (5, 11, 1)
    with pytest.raises(
        ValueError, match=r"must be \(N, height, width, channels\); got \(5, 2, 3\)"
    ):
        data.tile(images[..., 0])
