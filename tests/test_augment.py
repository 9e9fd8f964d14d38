"""More numbers on the base side: bounds against densities that are known."""

import numpy as np
import pytest
from scipy.stats import norm

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
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
    with pytest.raises(ValueError, match="give a key"):
        density.log_prob(Y)
    with pytest.raises(ValueError, match="inverse draws noise"):
        flow.apply(density.variables, Y, method="log_prob")
    assert flow.latent_shape == (3,)
