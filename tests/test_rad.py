"""RAD: a density of several points with one image, exact, and samples that follow it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import nets
from tests.harness import perturbed

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@partial(jax.jit, static_argnums=0)
def shares(layer, variables, y):
    """Images of points, and the shares that their branches have in these."""
    inverse = lambda y: layer.apply(variables, y, method="inverse")  # noqa: E731
    x, log_det = layer.apply(variables, y, method="inverse_and_log_det")
    slope = jax.vmap(jax.jacfwd(inverse))(y)[:, 0, 0]
    return x, jnp.exp(log_det - jnp.log(jnp.abs(slope)))


@pytest.fixture(scope="module")
def density():
    flow = jflow.Flow(jb.RAD(nets.MLP((8,))), (1,))
    y = normal(64, 1)
    return jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.5))


def test_log_det_is_that_of_the_slope_and_the_share_of_the_branch(density):
    layer, variables = density.flow.bijector, {"params": density.variables["params"]["bijector"]}
    y = np.linspace(-4, 4, 41)[:, None]
    x, share = shares(layer, variables, y)
    assert (np.log(share) <= 1e-12).all()
    # The shares of all points with one image sum to one.
    params = jax.device_get(variables["params"])
    centre, half = params["centre"], np.exp(params["log_half"])
    outer, inner = np.exp(params["log_outer"]), np.exp(params["log_inner"])
    reach = half * inner
    for at in (-3.0, -0.2, 0.0, 0.3, 3.0):
        points = np.stack([(at - reach) / outer - half, -at / inner, (at + reach) / outer + half])
        reached = np.asarray([at <= reach[0], abs(at) <= reach[0], at >= -reach[0]])
        images, share = jax.device_get(shares(layer, variables, points + centre))
        np.testing.assert_allclose(images[reached], at, atol=1e-12)
        assert np.sum(share[reached]) == pytest.approx(1)
    assert x.shape == y.shape


def test_integrates_to_one(density):
    y = np.linspace(-40, 40, 400_001)[:, None]
    p = np.exp(density.log_prob(y))
    assert float(p.sum()) * (y[1, 0] - y[0, 0]) == pytest.approx(1, abs=1e-3)


def test_samples_follow_the_density(density):
    samples, log_prob = density.sample_and_log_prob(KEY, 200_000)
    np.testing.assert_allclose(density.log_prob(samples), log_prob, atol=1e-9)
    edges = np.linspace(-3, 3, 25)
    counts, _ = np.histogram(samples[:, 0], edges)
    fine = np.linspace(-3, 3, 24 * 200 + 1)
    middle = (fine[1:] + fine[:-1]) / 2
    p = np.exp(density.log_prob(middle[:, None])).reshape(24, 200).sum(1) * (fine[1] - fine[0])
    np.testing.assert_allclose(counts / 200_000, p, atol=5 * np.sqrt(0.25 / 200_000))


def test_forward_needs_a_key_and_says_so(density):
    assert density.flow.bijector.forward_kind == "random"
    assert jb.Chain((jb.RAD(), jb.ActNorm())).forward_kind == "random"
    with pytest.raises(ValueError, match=r"from_latents: give a key: .* its values are drawn"):
        density.from_latents(np.zeros((2, 1)))
    y = density.from_latents(np.linspace(-1, 1, 9)[:, None], key=0)
    np.testing.assert_allclose(density.latents(y), np.linspace(-1, 1, 9)[:, None], atol=1e-6)


def test_fits_two_modes_better_than_an_affine_map():
    y = np.where(np.random.default_rng(1).random((2000, 1)) < 0.3, 2.0, -2.0)
    y = y + 0.3 * normal(2000, 1)
    flow = jflow.Flow(jb.Chain((jb.RAD(nets.MLP((16,))), jb.ActNorm())), (1,))
    fitted, _ = jflow.fit(flow, y, key=KEY, steps=300, batch_size=256, learning_rate=1e-2,
                          validation=None, progress=False)  # fmt: skip
    best = 0.5 * np.log(2 * np.pi * np.e * np.var(y))
    assert -np.mean(fitted.log_prob(y)) < best - 0.5


def test_points_at_the_knots_keep_their_branch_in_compiled_float32():
    size = 64
    layer = jb.RAD(nets.MLP((8,)))
    y = normal(4, size).astype(np.float32)
    params = perturbed(jflow.init(layer, KEY, y), 0.4)["params"]
    half = np.exp(np.asarray(params["log_half"]))
    knots = np.concatenate([half, -half])
    knots = np.concatenate(
        [knots, np.nextafter(knots, np.float32(0)), np.nextafter(knots, 2 * knots)]
    )
    knots = knots.reshape(6, size) + np.asarray(params["centre"])
    # Optimised as users run it: the tests' own settings compute everything in one order.
    run = jax.jit(
        lambda v, y: layer.apply(v, y, method="inverse_and_log_det"),
        compiler_options={"xla_backend_optimization_level": 3},
    )
    rows = np.full((6 * size, size), 0.01, np.float32)
    rows[np.arange(6 * size), np.tile(np.arange(size), 6)] = knots.ravel()
    assert np.isfinite(run({"params": params}, rows)[1]).all()
