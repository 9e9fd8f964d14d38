"""Probability flows of denoisers, against normal data, whose denoisers are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import jflow
from jflow import bijectors as jb
from jflow import data, flows, nets, train
from jflow import functional as jf
from tests.test_matching import drawn

WIDTH = 0.5  # of data N(0, WIDTH^2)
PATHS = (jf.VariancePreserving(), jf.VarianceExploding(0.05, 20.0))


class Best(nn.Module):
    """What noise, data and score are in the mean, given x(t)."""

    way: jf.Path
    kind: str

    @nn.compact
    def __call__(self, x, context):
        t = context[-1].astype(x.dtype)
        a, b, _ = self.way.coefficients(t)
        variance = a**2 * WIDTH**2 + b**2
        x = x + 0 * self.param("unused", nn.initializers.zeros, (), x.dtype)
        return {"noise": b * x / variance, "data": a * WIDTH**2 * x / variance,
                "score": -x / variance}[self.kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["noise", "data", "score"])
def test_log_p_is_that_of_the_diffusion(kind):
    for path in PATHS:
        net = nets.Denoiser(lambda _, path=path: Best(path, kind), path, kind)
        flow = jflow.Flow(jb.Continuous(net, frequencies=1), (2,))
        y = drawn(0, 20, 2)
        density = jflow.Density(flow, jflow.init(flow, 0, y))
        one = jnp.ones(())
        start = path.coefficients(0 * one)
        a, b, _ = path.coefficients(one)
        # The flow begins at N(0, 1), the diffusion at a variance that is near to it.
        grown = (a**2 * WIDTH**2 + b**2) / (start.data**2 * WIDTH**2 + start.base**2)
        exact = norm(0, float(grown) ** 0.5).logpdf(y).sum(-1)
        np.testing.assert_allclose(density.log_prob(y), exact, atol=1e-6)


def test_denoisers_are_trained_by_matching():
    path = jf.VariancePreserving()
    net = nets.Denoiser(nets.MLP((32, 32), activation="gelu"), path)
    flow = jflow.Flow(jb.Chain((jb.ActNorm(), jb.Continuous(net, frequencies=4))), (2,))
    y = (drawn(0, 2_000, 2) * [1.0, 0.3] + 2).astype(np.float32)
    of_path = lambda flow, **options: train.FlowMatching(flow, path=path, **options)  # noqa: E731
    density, _ = jflow.fit(
        flow, y, key=0, objective=of_path, steps=600, learning_rate=1e-2, progress=False
    )
    new = (drawn(1, 300, 2) * [1.0, 0.3] + 2).astype(np.float32)
    exact = norm([2, 2], [1, 0.3]).logpdf(new).sum(-1)
    assert np.abs(np.asarray(density.log_prob(new)) - exact).mean() < 0.2


def test_images_with_a_context():
    net = nets.Denoiser(nets.UNet(2, levels=1))
    flow = jflow.Flow(jb.Continuous(net, event_ndim=3), (2, 2, 1), context_shape=2)
    y, context = drawn(0, 3, 2, 2, 1), drawn(1, 3, 2)
    density = jflow.Density(flow, jflow.init(flow, 0, y, context))
    found = density.log_prob(y, context)
    np.testing.assert_allclose(found[1], density.log_prob(y[1], context[1]), atol=1e-6)
    layer = lambda f, x, t, c: f.bijector.velocity(x, t, c)  # noqa: E731
    each = flow.apply(density.variables, y, jnp.full(3, 0.4), context, method=layer)
    one = flow.apply(density.variables, y[1], jnp.asarray(0.4), context[1], method=layer)
    np.testing.assert_allclose(each[1], one, atol=1e-10)


def test_bad_arguments():
    net = nets.MLP((4,))
    for build, message in (
        (lambda: nets.Denoiser(net, predicts="x"), "predicts must be one of"),  # type: ignore[arg-type]
        (lambda: nets.Denoiser(net, jf.LinearPath()), "from noise would be infinite at an end"),
        (lambda: nets.Denoiser(net, jf.LinearPath(), "data"), "from data would be infinite"),
        (lambda: nets.Denoiser(net, jf.Interpolant()), "it has noise besides"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(TypeError, match="Denoiser: net must be a factory"):
        nets.Denoiser(net(2))
    with pytest.raises(TypeError, match=r"path must be a functional\.Path"):
        nets.Denoiser(net, "linear")  # type: ignore[arg-type]
    assert jax.jit(lambda: nets.Denoiser(net) and 1.0)() == 1


def test_noise_is_taken_away_as_the_mean_of_clean_data():
    """Of a mixture of normals, in closed form; its samples then have the clean law's spread."""
    flow, noise = jflow.Flow(jb.Reverse(), (2,), jflow.GaussianMixture(3)), 0.6
    density = jflow.Density(flow, jflow.init(flow, 1, np.zeros((1, 2))))
    means = np.asarray(density.variables["params"]["base"]["means"])[:, ::-1]
    y = np.asarray(density.sample(0, 2_000))
    away = y[:, None] - means
    shares = np.exp(-(away**2).sum(-1) / 2)
    shares /= shares.sum(1, keepdims=True)
    wanted = (shares[..., None] * (means + (1 - noise**2) * away)).sum(1)
    found = jflow.distributions.denoise(density, y, noise)
    assert found.dtype == y.dtype
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(jflow.distributions.denoise(density, y[3], noise), found[3])


def test_what_denoising_refuses():
    levels = flows.glow((4, 4, 1), 1, 1, 4, values=4)
    y = np.zeros((1, 4, 4, 1), np.int32)
    density = jflow.Density(levels, jflow.init(levels, 0, y))
    with pytest.raises(TypeError, match=r"this flow is of integers, .* fit one with values=None"):
        jflow.distributions.denoise(density, y, 0.1)
    with pytest.raises(TypeError, match=r"density must be a jflow.Density, of numbers; got NoneTy"):
        jflow.distributions.denoise(None, y, 0.1)
    with pytest.raises(ValueError, match=r"noise must be .*above 0; got -1"):
        jflow.distributions.denoise(_line(), np.zeros(2), -1)
    with pytest.raises(TypeError, match=r"y must be floating, .*; got int32"):
        data.add_noise(jax.random.key(0), y, 0.1)
    with pytest.raises(ValueError, match=r"scale must be .*above 0; got 0"):
        data.add_noise(jax.random.key(0), np.zeros(2), 0)


def _line():
    flow = jflow.Flow(jb.Reverse(), (2,))
    return jflow.Density(flow, jflow.init(flow, 0, np.zeros((1, 2))))
