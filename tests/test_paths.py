"""What continuous flows make of points on the way, and pictures of it."""

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image
from scipy.linalg import expm

import jflow
from jflow import bijectors as jb
from jflow import flows, viz
from tests.test_matching import drawn

A = np.array([[0.3, -0.8], [0.5, -0.2]])


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, context):
        return x @ self.param("matrix", lambda _: A.T.astype(x.dtype))


@pytest.fixture(scope="module")
def density():
    flow = jflow.Flow(jb.Chain((jb.ActNorm(), jb.Continuous(lambda _: Linear()))), (2,))
    return jflow.Density(flow, jflow.init(flow, 0, 3 + 2 * drawn(0, 50, 2)))


def test_paths_of_a_linear_field(density):
    z = drawn(1, 2, 4, 2)
    times, values, log_prob = density.paths(z, times=5)
    np.testing.assert_allclose(times, np.linspace(0, 1, 5))
    assert values.shape == (5, 2, 4, 2)
    own = {k: v["bijector"]["bijectors_0"] for k, v in density.variables.items() if "bijector" in v}
    own = {k: v for k, v in own.items() if v}
    outer = jb.ActNorm()
    for t, found, log_p in zip(np.linspace(0, 1, 5), values, log_prob, strict=True):
        state = z @ expm(t * A).T
        y, log_det = outer.apply(own, state, method="forward_and_log_det")
        np.testing.assert_allclose(found, y, rtol=1e-8)
        base = -(z**2).sum(-1) / 2 - np.log(2 * np.pi)
        np.testing.assert_allclose(log_p, base - t * np.trace(A) - log_det, rtol=1e-8)
    np.testing.assert_allclose(log_prob[-1], density.log_prob(values[-1]), atol=1e-8)
    np.testing.assert_allclose(values[-1], density.from_latents(z), rtol=1e-8)


def test_paths_given_a_context():
    flow = flows.flow_matching(2, (8,), context_shape=1, guidance=2.0)
    y, context = drawn(0, 6, 2), drawn(1, 6, 1)
    density = jflow.Density(flow, jflow.init(flow, 0, y, context))
    each = density.paths(y, context, times=3)
    np.testing.assert_allclose(each.values[-1], density.from_latents(y, context), atol=1e-8)
    one = density.paths(y, context[0], times=3)
    np.testing.assert_allclose(one.values[:, 0], each.values[:, 0], atol=1e-8)


def test_pictures(density, tmp_path):
    z = drawn(1, 30, 2)
    picture = viz.paths(density, z, times=4)
    lines, start, end = picture.axes[0].collections
    assert len(lines.get_segments()) == 30
    np.testing.assert_allclose(end.get_offsets(), density.from_latents(z))
    assert len(start.get_offsets()) == 30
    file = viz.animate_paths(density, tmp_path / "a.gif", count=20, frames=4)
    with Image.open(file) as image:
        assert image.n_frames >= 4


def test_what_has_no_paths(density, tmp_path):
    plain = flows.nsf(2, layers=2, hidden=(8,))
    other = jflow.Density(plain, jflow.init(plain, 0, drawn(0, 9, 2)))
    with pytest.raises(TypeError, match="paths: the flow must end, nearest to the base"):
        other.paths(drawn(0, 9, 2))
    with pytest.raises(ValueError, match="times must be"):
        density.paths(drawn(0, 9, 2), times=1)
    with pytest.raises(ValueError, match=r"path must be a \.gif file"):
        viz.animate_paths(density, tmp_path / "a.mp4")
    wide = flows.ffjord(3, hidden=(4,))
    with pytest.raises(ValueError, match="two features is drawn"):
        viz.paths(jflow.Density(wide, jflow.init(wide, 0, drawn(0, 9, 3))))
