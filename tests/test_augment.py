"""More numbers on the base side: bounds against densities that are known."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from tests.harness import perturbed
from tests.test_matching import drawn

Y = drawn(0, 50, 2)


def test_bounds_of_a_gaussian():
    # x = (y, e) of correlation r under the base: p(y) is known, and q(e | y) is N(0, 1).
    r = 0.8
    s = (1 - r**2) ** 0.5
    kernel = np.array([[1, -r / s], [0, 1 / s]])
    flow = jflow.Flow(jb.Chain((jb.Augment(1), jb.Linear("dense"))), (1,))
    own = {"kernel": kernel, "log_scale": np.log(np.linalg.norm(kernel, axis=0))}
    density = jflow.Density(flow, {"params": {"bijector": {"bijectors_1": own}}})
    exact = norm.logpdf(Y[:, 0])
    found = density.log_prob_estimate(Y[:, :1], 0, probes=4_000)
    assert (np.abs(found.mean - exact) < 5 * found.standard_error + 1e-3).all()
    assert np.abs(found.mean - exact).max() < 0.3
    once = np.mean([density.log_prob(Y[:, :1], key=i) for i in range(200)], axis=0)
    # E log p(e | y) - log q(e) of one draw: minus KL(N(0, 1) || N(r y, 1 - r^2)).
    kl = 0.5 * np.log(1 - r**2) + (1 + r**2 * Y[:, 0] ** 2) / (2 * (1 - r**2)) - 0.5
    np.testing.assert_allclose(once.mean(), np.mean(exact - kl), atol=0.1)


def test_anode_is_a_bound_that_fits():
    y = np.concatenate([Y - 2, Y + 2]).astype(np.float32)
    density, _ = jflow.fit(
        flows.anode(2, hidden=(16,), extra=1), y, key=0, steps=150, learning_rate=1e-2,
        progress=False,
    )  # fmt: skip
    assert density.flow.latent_shape == (3,)
    assert density.sample(0, 7).shape == (7, 2)
    found = density.log_prob_estimate(y, 0)
    gaussian = norm(y.mean(0), y.std(0)).logpdf(y).sum(-1).mean()
    assert np.asarray(found.mean).mean() > gaussian
    assert np.asarray(found.solver_error).max() < 1e-3


def test_its_inverse_is_a_slice():
    """Numbers that the base does not have, drawn from a law that is learned: an exact log p."""
    flow = jflow.Flow(jb.Invert(jb.Augment(1, nets.MLP((8,)))), (2,))
    assert flow.bijector.log_det_kinds == {"exact"}
    assert flow.latent_shape == (1,)
    density, _ = jflow.fit(flow, Y, key=0, steps=30, progress=False)
    log_p = density.log_prob(Y)  # no key
    law = density.flow.bijector.bijector.apply(
        {"params": density.variables["params"]["bijector"]["bijector"]},
        Y[:, :1],
        None,
        method="_law",
    )
    wanted = norm.logpdf(Y[:, 0]) + norm.logpdf(Y[:, 1], *map(np.ravel, (law[0], np.exp(law[1]))))
    np.testing.assert_allclose(log_p, wanted, atol=1e-6)
    y, own = density.sample_and_log_prob(0, 50)
    np.testing.assert_allclose(density.log_prob(y), own, atol=1e-6)
    back = jb.Invert(jb.Invert(jb.Augment(1)))
    assert back.log_det_kind == "bound"


def test_signs_and_places_are_drawn():
    """Densities with a mass of one, and samples that follow them."""
    layers = jb.AbsoluteValue(nets.MLP((4,))), jb.Elementwise(jt.Softplus())
    flow = jflow.Flow(jb.Chain(layers), (1,))
    assert flow.bijector.log_det_kinds == {"exact"}
    grid = np.linspace(-12, 12, 4001)[:, None]
    density = jflow.Density(flow, perturbed(jflow.init(flow, 0, grid), 1.0))
    p = np.exp(density.log_prob(grid))
    assert abs(p.sum() * (grid[1] - grid[0])[0] - 1) < 1e-3
    drawn = np.asarray(density.sample(0, 20_000))
    assert abs((drawn < 0).mean() - p[grid[:, 0] < 0].sum() / p.sum()) < 0.015
    pooled = jb.MaxPool()
    y = np.random.default_rng(0).standard_normal((7, 4, 6, 2))
    x = np.asarray(pooled.apply({}, y, method="inverse"))
    np.testing.assert_allclose(x[..., :2], y.reshape(7, 2, 2, 3, 2, 2).max((2, 4)))
    one = y[0, :, :2]
    jacobian = jax.jacobian(lambda y: pooled.apply({}, y, method="inverse").ravel())(one)
    log_det = pooled.apply({}, one, method="inverse_and_log_det")[1]
    wanted = np.linalg.slogdet(np.asarray(jacobian).reshape(16, 16))[1] - 4 * np.log(4)
    np.testing.assert_allclose(log_det, wanted, rtol=1e-9)
    flow = jflow.Flow(pooled, (2, 2, 1))
    drawn = jflow.Density(flow, {}).sample(0, 4_000).reshape(-1, 4)
    np.testing.assert_allclose(np.bincount(np.argmax(drawn, 1)) / 4_000, 0.25, atol=0.03)


def test_bad_arguments():
    with pytest.raises(ValueError, match="size must be"):
        jb.Augment(0)
    with pytest.raises(TypeError, match="Augment: net must be a factory"):
        jb.Augment(1, nets.MLP((4,))(2))
    with pytest.raises(ValueError, match="on all of the line, and StandardUniform gives"):
        jflow.Flow(jb.Augment(1), (2,), jflow.StandardUniform())
    with pytest.raises(ValueError, match=r"drops 3 numbers of the last axis; got \(3,\)"):
        jb.Augment(3).data_shape((3,))
    density = jflow.Density(flow := jflow.Flow(jb.Augment(1), (2,)), jflow.init(flow, 0, Y))
    with pytest.raises(ValueError, match=r"AbsoluteValue takes numbers above 0|takes .*above 0"):
        jflow.Flow(jb.AbsoluteValue(), (2,))
    with pytest.raises(ValueError, match="MaxPool: height and width must be even"):
        jflow.Flow(jb.MaxPool(), (3, 2, 1))
    for layer, shape in ((jb.AbsoluteValue(), (2,)), (jb.MaxPool(), (1, 1, 4))):
        with pytest.raises(ValueError, match="forward draws one of several points"):
            layer.apply({}, np.ones(shape), method="forward")
    with pytest.raises(ValueError, match="give a key"):
        density.log_prob(Y)
    with pytest.raises(ValueError, match="inverse draws noise"):
        flow.apply(density.variables, Y, method="log_prob")
    assert flow.latent_shape == (3,)
