"""Fitting to a target: what is learned, what is reported, and errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, train

KEY = jax.random.key(0)


def banana(y):
    """A bent normal times e^1.3: log int p = log(4 pi) + 1.3."""
    a, b = y[..., 0], y[..., 1]
    return 1.3 - a**2 / 8 - (b - a**2 / 2) ** 2 / 2


def shifted(y, context):
    return -jnp.sum((y - context) ** 2, axis=-1) / 2


def test_iaf_learns_a_target(tmp_path):
    density, history = jflow.fit_to_target(
        flows.iaf(2, 4, (16, 16)), banana, key=KEY, steps=600, samples=128,
        learning_rate=5e-3, evaluate_every=300, directory=tmp_path,
    )  # fmt: skip
    first, last = history.rows[0], history.rows[-1]
    assert last["train_kl"] < first["train_kl"]
    assert last["ess"] > 0.5
    np.testing.assert_allclose(last["log_normalizer"], math.log(4 * math.pi) + 1.3, atol=0.15)
    quality = train.importance(density, banana, jax.random.key(5), 2000)
    assert 0 < quality.ess <= 1
    # KL(q || p) = E[log q - log p] + log int p is not negative.
    assert quality.kl + math.log(4 * math.pi) + 1.3 > -0.05
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3


def test_conditional_target():
    contexts = np.random.default_rng(0).normal(size=(64, 2))
    flow = flows.maf(2, 1, (8,), context_shape=2)
    density, history = jflow.fit_to_target(
        flow, shifted, key=KEY, context=contexts, steps=300, samples=64, learning_rate=2e-2,
        evaluate_every=300,
    )  # fmt: skip
    assert history.rows[-1]["ess"] > 0.8
    samples = density.sample(KEY, 2000, np.asarray([1.0, -1.0]))
    np.testing.assert_allclose(np.mean(samples, axis=0), [1, -1], atol=0.2)


def test_each_context_is_judged_by_itself():
    # q is right for every context; p's normaliser e^c differs, and says nothing against q.
    flow = jflow.Flow(
        jflow.bijectors.Elementwise(jflow.transformers.Affine()), (1,), context_shape=1
    )
    contexts = np.linspace(-3.0, 3.0, 16)[:, None]
    density = jflow.Density(flow, jflow.init(flow, KEY, np.zeros((2, 1)), np.zeros((2, 1))))

    def target(y, c):
        return (c[:, 0] - y[:, 0] ** 2 / 2 - math.log(2 * math.pi) / 2).astype(jnp.float32)

    quality = train.importance(density, target, KEY, 16 * 256, contexts)
    np.testing.assert_allclose(quality.ess, 1, atol=1e-6)
    np.testing.assert_allclose([quality.log_normalizer, quality.kl], 0, atol=1e-6)


def test_importance_weights_of_a_known_pair():
    # q standard normal in 1-D, p = N(0, 1/2) unnormalised: ESS = 1 / E_q[w^2] E_q[w]^2 = sqrt(3)/2.
    flow = jflow.Flow(jflow.bijectors.Elementwise(jflow.transformers.Affine()), (1,))
    density = jflow.Density(flow, jflow.init(flow, KEY, np.zeros((2, 1))))
    quality = train.importance(density, lambda y: -(y[:, 0] ** 2), KEY, 200_000)
    np.testing.assert_allclose(quality.ess, math.sqrt(3) / 2, atol=0.01)
    np.testing.assert_allclose(quality.log_normalizer, math.log(math.pi) / 2, atol=0.01)
    kl = math.log(2) / 2 + 1 / 2 + math.log(1 / math.sqrt(2 * math.pi)) - math.log(2) / 2
    np.testing.assert_allclose(quality.kl, kl, atol=0.01)


def test_weights_of_zero_everywhere():
    flow = jflow.Flow(jflow.bijectors.Elementwise(jflow.transformers.Affine()), (1,))
    density = jflow.Density(flow, jflow.init(flow, KEY, np.zeros((2, 1))))
    quality = train.importance(density, lambda y: jnp.full(len(y), -jnp.inf), KEY, 10)
    assert quality.ess == 0
    assert quality.log_normalizer == -math.inf


def test_errors():
    flow = flows.iaf(2, 1, (4,))
    with pytest.raises(ValueError, match="samples must be a whole number, 1 or more; got 0"):
        jflow.fit_to_target(flow, banana, key=KEY, samples=0)
    with pytest.raises(ValueError, match=r"context is given, but the flow has none"):
        jflow.fit_to_target(flow, banana, key=KEY, context=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"target must return one log-density for each y"):
        jflow.fit_to_target(flow, lambda y: y, key=KEY)
    with pytest.raises(ValueError, match="it returned a tuple"):
        jflow.fit_to_target(flow, lambda y: (y[:, 0],), key=KEY)
    with pytest.raises(train.NonFiniteLossError, match="not finite at step 0") as caught:
        jflow.fit_to_target(flow, lambda y: y[:, 0] * jnp.nan, key=KEY, steps=2)
    assert caught.value.step == 0


def test_samples_without_gradients_are_refused():
    """Of a mixture the weights, and of folds the pieces, would be learned wrongly, and silently."""
    mixture = jflow.GaussianMixture(2)
    bases = (mixture, jflow.Product((mixture, jflow.StandardNormal())))
    for base in bases:
        flow = flows.real_nvp(2, 2, (8,)).clone(base=base, recipe=None)
        with pytest.raises(ValueError, match=f"the samples of {type(base).__name__} have no grad"):
            jflow.fit_to_target(flow, banana, key=KEY, steps=1)
    with pytest.raises(ValueError, match="this flow's forward_kind is 'random'"):
        jflow.fit_to_target(jflow.Flow(jb.RAD(), (2,)), banana, key=KEY, steps=1)
