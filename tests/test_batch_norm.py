"""BatchNorm: statistics of the batch in training, running ones in evaluation; and ranked splits."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import transformers as jt

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@partial(jax.jit, static_argnums=(0, 1), static_argnames="mutable")
def run(layer, method, variables, y, mutable=False):
    return layer.apply(variables, y, method=method, mutable=mutable)


def started(layer, y):
    return jflow.init(layer, KEY, y)


def test_starts_with_the_statistics_of_the_first_batch():
    y = 5 + 3 * normal(64, 4)
    variables = started(jb.BatchNorm(epsilon=1e-12), y)
    x, log_det = run(jb.BatchNorm(epsilon=1e-12), "inverse_and_log_det", variables, y)
    x = np.asarray(x)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-9)
    np.testing.assert_allclose(log_det, -np.sum(np.log(y.std(0))), atol=1e-9)


def test_training_uses_the_batch_and_moves_the_running_statistics():
    layer = jb.BatchNorm(momentum=0.75, epsilon=1e-12)
    variables = started(layer, normal(64, 2))
    y = 7 + 2 * normal(50, 2, seed=1)
    x, moved = run(layer, "inverse", variables, y, mutable=("batch_stats",))
    np.testing.assert_allclose(np.asarray(x).mean(0), 0, atol=1e-9)
    for name, of_batch in (("mean", y.mean(0)), ("variance", y.var(0))):
        wanted = 0.75 * np.asarray(variables["batch_stats"][name]) + 0.25 * of_batch
        np.testing.assert_allclose(moved["batch_stats"][name], wanted, atol=1e-12)
    # Held constant: the gradient of the result is that of a fixed scale.
    inverse = lambda y: layer.apply(variables, y, method="inverse", mutable=["batch_stats"])[0]  # noqa: E731
    slope = jax.jit(jax.grad(lambda y: inverse(y)[0, 0]))(y)
    wanted = np.zeros_like(y)
    wanted[0, 0] = 1 / y.std(0)[0]
    np.testing.assert_allclose(slope, wanted, atol=1e-9)


def test_says_that_it_is_biased_in_training_only():
    class Probe(nn.Module):
        @nn.compact
        def __call__(self, y):
            layer = jb.Chain((jb.BatchNorm(),))
            layer.inverse_and_log_det(y)
            return layer.log_det_kind

    y = np.ones((4, 2)) * np.arange(4.0)[:, None]
    variables = Probe().init(KEY, y)
    assert jb.BatchNorm().log_det_kind == "exact"
    assert Probe().apply(variables, y) == "exact"
    assert Probe().apply(variables, y, mutable=["batch_stats"])[0] == "biased"


def test_fit_moves_statistics_and_saves_them(tmp_path):
    step = jb.Chain((jb.BatchNorm(), jb.Elementwise(jt.SinhArcsinh())))
    flow = jflow.Flow(jb.Repeat(step, 2), (2,))
    y = 3 + 2 * normal(500, 2)
    variables = jflow.init(flow, KEY, y[:10] - 5)
    density, history = jflow.fit(
        flow, y, key=KEY, steps=200, batch_size=100, validation=0.2, variables=variables,
        evaluate_every=50, progress=False,
    )  # fmt: skip
    stats = density.variables["batch_stats"]["bijector"]["bijector"]["bijectors_0"]
    assert stats["mean"].shape == (2, 2)
    np.testing.assert_allclose(stats["mean"][0], 3, atol=0.3)
    np.testing.assert_allclose(stats["variance"][0], 4, atol=0.6)
    entropy = np.log(2 * np.pi * np.e * 4)
    log_prob = np.asarray(density.log_prob(y))
    assert -log_prob.mean() < entropy + 0.1
    assert history.rows[-1]["validation_nll"] < entropy + 0.3
    density.save(tmp_path / "d")
    again = jflow.load(tmp_path / "d", flow=flow)
    np.testing.assert_array_equal(again.log_prob(y), log_prob)


def test_grey_levels_move_statistics_too():
    flow = jflow.Flow(jb.Chain((jb.Dequantize(4, 3), jb.BatchNorm(3))), (2, 2, 1))
    y = np.random.default_rng(0).integers(0, 4, (64, 2, 2, 1))
    start = jflow.init(flow, KEY, y)
    density, _ = jflow.fit(flow, y, key=KEY, steps=3, batch_size=32, variables=start,
                           validation=None, progress=False)  # fmt: skip
    before, after = (
        np.asarray(variables["batch_stats"]["bijector"]["bijectors_1"]["mean"])
        for variables in (start, density.variables)
    )
    assert np.abs(after - before).max() > 1e-6
    assert np.isfinite(density.bits_per_dim(y, KEY)).all()


def test_errors():
    layer = jb.BatchNorm()
    variables = started(layer, normal(8, 2))
    with pytest.raises(ValueError, match=r"training needs a batch of points; got \(2,\)"):
        layer.apply(variables, jnp.ones(2), method="inverse", mutable=["batch_stats"])
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\)"):
        jb.BatchNorm(momentum=1.0)


def ranked():
    """Channels of scales 1, 8, 2, 4: standardised, the small ones are what the data predict."""
    y = normal(256, 2, 2, 4) * np.asarray([1.0, 8.0, 2.0, 4.0])
    levels = (jb.ActNorm(3), jb.ActNorm(3), jb.ActNorm(3))
    return jb.MultiScale(levels, (2, 2, 4), split="likelihood"), y


def test_channels_that_contribute_least_are_set_aside():
    layer, y = ranked()
    variables = jflow.init(layer, KEY, y)
    # log|dx/dy| = -log scale: largest for channel 0, least for channel 1.
    assert variables["constants"]["order_0"].tolist() == [0, 2, 3, 1]
    x = run(layer, "inverse", variables, y)
    finest, *_ = map(np.asarray, layer.latent_levels(x))
    np.testing.assert_allclose(finest.std((0, 1, 2)), 1, atol=1e-9)
    np.testing.assert_allclose(finest * [4.0, 8.0], y[..., [3, 1]], atol=2.0)
    np.testing.assert_allclose(run(layer, "forward", variables, x), y, atol=1e-9)


def test_ranked_again_on_request():
    layer, y = ranked()
    variables = jflow.init(layer, KEY, y)
    other = y[..., ::-1].copy()
    params = jflow.init(layer, KEY, other)["params"]
    both = {**variables, "params": params}
    _, moved = run(layer, "inverse", both, other, mutable=("constants",))
    assert moved["constants"]["order_0"].tolist() == [3, 1, 0, 2]


@pytest.mark.slow
def test_real_nvp_with_ranked_splits():
    flow = jflow.flows.real_nvp(
        image_shape=(4, 4, 1), hidden=4, blocks=1, values=None, split="likelihood"
    )
    y = np.random.default_rng(0).uniform(size=(8, 4, 4, 1))
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    np.testing.assert_allclose(density.from_latents(density.latents(y)), y, atol=1e-9)
    with pytest.raises(ValueError, match="split must be 'half' or 'likelihood'"):
        jflow.flows.real_nvp(image_shape=(4, 4, 1), split="all")
