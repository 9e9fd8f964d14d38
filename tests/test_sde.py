"""Stochastic flows: bounds of log p against a process whose density is known."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import kstest, norm

import jflow
from jflow import bijectors as jb
from jflow import flows, nets

RATE, NOISE = 1.5, 0.8
Y = np.random.default_rng(0).normal(size=(200, 2)) * 0.7


def variance(t):
    """Of x(t), where dx = -RATE x dt + NOISE dW and x(0) ~ N(0, 1)."""
    left = np.exp(-2 * RATE * t)
    return left + NOISE**2 * (1 - left) / (2 * RATE)


class Drift(nn.Module):
    """Of the process of Ornstein and Uhlenbeck."""

    @nn.compact
    def __call__(self, x, context):
        return -self.param("rate", nn.initializers.constant(RATE), (), x.dtype) * x


class Score(nn.Module):
    """Its own, times what it is off."""

    off: float = 1.0

    @nn.compact
    def __call__(self, x, context):
        left = jnp.exp(-2 * RATE * context[-1])
        return -self.off * x / (left + NOISE**2 * (1 - left) / (2 * RATE))


def process(steps, off=1.0):
    bijector = jb.SDE(lambda _: Drift(), lambda _: Score(off), steps, (NOISE, NOISE))
    flow = jflow.Flow(bijector, (2,))
    return jflow.Density(flow, jflow.init(flow, 0, Y))


def of_the_steps(y, steps):
    """Log p of what so many steps come to."""
    v, h = 1.0, 1 / steps
    for _ in range(steps):
        v = (1 - RATE * h) ** 2 * v + NOISE**2 * h
    return norm(0, v**0.5).logpdf(y).sum(-1)


def test_bounds_are_below_log_p_and_near_it():
    exact = norm(0, variance(1.0) ** 0.5).logpdf(Y).sum(-1)
    density = process(64)
    found = density.log_prob_estimate(Y, 0, probes=64)
    assert np.abs(found.mean - exact).max() < 0.1
    assert np.abs(np.mean(found.mean - exact)) < 0.02
    assert found.solver_error.max() == 0
    below = np.asarray(found.mean) - of_the_steps(Y, 64)
    assert below.mean() < 0.002
    assert (np.abs(below) < 5 * np.asarray(found.standard_error) + 1e-3).all()
    # One path is a lower bound, and more so for a score that is off.
    once = [np.mean(process(16, off).log_prob(Y, key=1)) for off in (1.0, 0.5)]
    assert of_the_steps(Y, 16).mean() > once[0] > once[1] + 0.05


def test_weights_are_unbiased():
    density = process(8, off=0.7)
    draws = jax.jit(jax.vmap(lambda key: density.flow.apply(
        density.variables, Y[:5], method="log_prob", rngs={"noise": key}
    )))(jax.random.split(jax.random.key(0), 40_000))  # fmt: skip
    mean = logsumexp(np.asarray(draws), axis=0) - np.log(len(draws))
    np.testing.assert_allclose(mean, of_the_steps(Y[:5], 8), atol=0.03)


def test_a_step_back_is_that_of_the_end_it_leaves():
    density, y = process(1), Y[:3]
    draws = jax.jit(jax.vmap(lambda key: density.latents(y, key=key)))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    # x - (f - g^2 s) h, with f = -RATE x and the score at t = 1.
    wanted = y + RATE * y - NOISE**2 * y / variance(1.0)
    np.testing.assert_allclose(draws.mean(0), wanted, atol=0.03)
    np.testing.assert_allclose(draws.std(0), NOISE, rtol=0.03)


def test_samples_are_of_the_process():
    y = np.asarray(process(32).sample(0, 4_000))
    assert kstest(y[:, 0], norm(0, variance(1.0) ** 0.5).cdf).pvalue > 0.01
    density = process(64)
    y, log_p = density.sample_and_log_prob(0, 500)
    assert np.mean(np.asarray(log_p) - of_the_steps(y, 64)) == pytest.approx(0, abs=0.1)


def test_a_fit_learns_both_drifts():
    y = np.concatenate([drawn - 2 for drawn in (Y, Y + 4)]).astype(np.float32)
    flow = flows.sde(2, (32, 32), steps=16)
    density, _ = jflow.fit(flow, y, key=0, steps=300, learning_rate=1e-2, progress=False)
    gaussian = norm(y.mean(0), y.std(0)).logpdf(y).sum(-1).mean()
    found = density.log_prob_estimate(y, 0, probes=16)
    assert np.asarray(found.mean).mean() > gaussian + 0.3
    sample = np.asarray(density.sample(1, 2_000))
    np.testing.assert_allclose(sample.mean(0), y.mean(0), atol=0.3)
    np.testing.assert_allclose(sample.std(0), y.std(0), atol=0.3)


def test_bad_arguments():
    net = nets.MLP((4,))
    for build, message in (
        (lambda: jb.SDE(net, time_steps=0), "time_steps must be"),
        (lambda: jb.SDE(net, noise=0.1), "noise must be two numbers"),  # type: ignore[arg-type]
        (lambda: jb.SDE(net, noise=(1.0, 0.0)), "noise at the data must be a number above 0"),
        (lambda: flows.sde(0), "features must be"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(TypeError, match="SDE: score must be a factory of networks"):
        jb.SDE(net, net(2))
    density = process(2)
    with pytest.raises(ValueError, match="give a key"):
        density.log_prob(Y)
    with pytest.raises(ValueError, match="both directions draw noise"):
        density.flow.apply(density.variables, Y)
    with warnings.catch_warnings(action="error"):
        assert np.isnan(density.log_prob(np.full((1, 2), np.nan), key=0)).all()
