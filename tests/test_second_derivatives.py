"""Derivatives of derivatives, in both directions of every recipe, against differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import flows
from jflow.functional.roots import invert_increasing
from tests.harness import perturbed

SMALL = {"layers": 2, "hidden": (4,)}
RECIPES = {
    "nice": SMALL,
    "real_nvp": SMALL,
    "maf": SMALL,
    "iaf": SMALL,
    "nsf": SMALL,
    "sos": SMALL,
    "umnn": SMALL,
    "hint": SMALL,
    "naf": SMALL | {"units": 2},
    "bnaf": {"layers": 1, "units": 2},
    "i_resnet": {"layers": 2, "hidden": (4, 4)},
    "planar": {"layers": 2},
    "radial": {"layers": 2},
    "sylvester": {"layers": 2},
}
# One of each solver: of scalars, within the features, of residuals, of blocks.
QUICK = ("sylvester", "sos", "i_resnet", "bnaf")


@pytest.mark.parametrize("method", ["log_prob", "from_latents"])
@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES],
)
def test_second_derivatives(name, method):
    flow = getattr(flows, name)(3, **RECIPES[name])
    random = np.random.default_rng(0)
    y, direction = random.standard_normal((2, 2, 3))
    variables = perturbed(jflow.init(flow, jax.random.key(0), jnp.asarray(y)), 0.1)

    def value(y):
        found = flow.apply(variables, y, method=method, rngs={"noise": jax.random.key(1)})
        return jnp.sum(jnp.sin(found))

    @jax.jit
    def slopes(y):
        along = lambda y: jnp.sum(direction * jax.grad(value)(y))  # noqa: E731
        return along(y), jax.grad(along)(y)

    step = 1e-5 * random.standard_normal((2, 3))
    there, here, back = (slopes(y + s) for s in (step, 0 * step, -step))
    wanted = (there[0] - back[0]) / 2
    np.testing.assert_allclose(jnp.sum(here[1] * step), wanted, rtol=1e-4, atol=1e-12)


def _bent(slope, x):
    return x + slope * jnp.tanh(x), jnp.log1p(slope / jnp.cosh(x) ** 2)


def _by_newton(slope, y):
    x = y
    for _ in range(9):
        value, log_slope = _bent(slope, x)
        x = x + (y - value) * jnp.exp(-log_slope)
    return x


def _in_a_loop(inverse, y, slopes):
    return jax.lax.scan(lambda y, slope: (inverse(slope, y), None), y, slopes)[0]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_solutions_in_loops_have_derivatives_of_every_order(order):
    y, slopes = jnp.linspace(-2, 2, 5), jnp.asarray([0.3, 0.9])

    def derivative(inverse, y):
        function = partial(_in_a_loop, inverse)
        for _ in range(order):
            function = jax.grad(function)
        return jax.jit(jax.vmap(function, in_axes=(0, None)))(y, slopes)

    given = lambda slope, y: invert_increasing(_bent, slope, y, y - 1, y + 1)[0]  # noqa: E731
    wanted = derivative(_by_newton, y)
    np.testing.assert_allclose(derivative(given, y), wanted, atol=1e-8)
    forward = jax.jacfwd(partial(_in_a_loop, given))
    np.testing.assert_allclose(
        jax.vmap(jax.jacfwd(forward), in_axes=(0, None))(y, slopes),
        jax.vmap(jax.hessian(partial(_in_a_loop, _by_newton)), in_axes=(0, None))(y, slopes),
        atol=1e-8,
    )
