"""Inverses of functions of few variables by Newton's method, with exact derivatives."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arrays import batch_shape
from jflow.functional.implicit import solved
from jflow.functional.log_determinants import value_and_jacobian

# Steps are halved twice where they lead farther off; below this, there is no way down.
_SHORTEST = 1e-3


def invert_by_newton(
    function: Callable[[Any, Array], Array],
    params: Any,
    y: Array,
    *,
    event_ndim: int = 1,
    max_iterations: int = 50,
) -> tuple[Array, Array]:
    """x with f(params, x) = y, and whether it was found, (*batch).

    Newton's method from x = 2 y - f(y), which is the solution up to second order where f is near to
    the identity; its steps are shortened where the largest residual does not fall. It takes D
    products and a factorisation of the Jacobian for each of them. x is the first solution that is
    met: f need not be invertible elsewhere. Derivatives are those of the implicit function theorem.

    Args:
      function: f, from (*batch, *event) to the same, each element by itself.
      params: a pytree of what else f depends on.
      y: (*batch, *event).
      event_ndim: how many trailing axes are the event.
      max_iterations: at most.
    """

    def find(params: Any, y: Array) -> tuple[Array, Array]:
        own = lambda x: function(params, x)  # noqa: E731
        return _descend(own, 2 * y - own(y), y, event_ndim, max_iterations)

    def divide(params: Any, x: Array, b: Array) -> Array:
        return _divided(lambda x: function(params, x), x, b, event_ndim)[1]

    return solved(find, function, divide, params, y)


def _descend(
    function: Callable[[Array], Array], x: Array, y: Array, event_ndim: int, max_iterations: int
) -> tuple[Array, Array]:
    """Newton's method from x."""
    axes, over = tuple(range(-event_ndim, 0)), (..., *(None,) * event_ndim)
    eps, size = float(jnp.finfo(y.dtype).eps), jnp.max(jnp.abs(y), axis=axes)

    def look(x: Array) -> tuple[Array, Array]:
        found, step = _divided(function, x, y, event_ndim, from_value=True)
        return step, jnp.max(jnp.abs(found - y), axis=axes)

    def more(state: Any) -> Array:
        x, _, off, length, i = state
        rounding = 4 * eps * (size + jnp.max(jnp.abs(x), axis=axes))
        return (i < max_iterations) & jnp.any((off > rounding) & (length > _SHORTEST))

    def advance(state: Any) -> Any:
        x, step, off, length, i = state
        tried = x + length[over] * step
        next_step, next_off = look(tried)
        nearer = next_off < off
        x = jnp.where(nearer[over], tried, x)
        step = jnp.where(nearer[over], next_step, step)
        length = jnp.where(nearer, jnp.minimum(2 * length, 1), length / 4)
        return x, step, jnp.where(nearer, next_off, off), length, i + 1

    step, off = look(x)
    start = x, step, off, jnp.ones(off.shape, y.dtype), jnp.int32(0)
    x, _, off, _, _ = lax.while_loop(more, advance, start)
    return x, off <= 1e3 * eps * (1 + size)


def _divided(
    function: Callable[[Array], Array],
    x: Array,
    b: Array,
    event_ndim: int,
    *,
    from_value: bool = False,
) -> tuple[Array, Array]:
    """f(x), and (df/dx)^-1 b, or (df/dx)^-1 (b - f(x))."""
    value, jacobian = value_and_jacobian(function, x, event_ndim)
    right = b - value if from_value else b
    flat = right.reshape(*batch_shape(x, event_ndim), math.prod(x.shape[x.ndim - event_ndim :]), 1)
    return value, jnp.linalg.solve(jacobian, flat).reshape(x.shape)
