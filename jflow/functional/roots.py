"""Inverses of increasing functions of one variable, elementwise, with exact derivatives."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.implicit import solved

# Far more than any bracket of float64 takes.
_MAX_STEPS = 300


def invert_increasing(
    function: Callable[[Any, Array], tuple[Array, Array]],
    params: Any,
    y: Array,
    low: Array,
    high: Array,
) -> tuple[Array, Array]:
    """x in [low, high] with f(params, x) = y, and log(dx/dy).

    Newton's method inside a bracket that shrinks at every step; bisection where a Newton step would
    leave the bracket, or is not half of the step before. It stops when all steps are below four
    units in the last place of 1 + |x|. Derivatives are those of `solved`.

    Args:
      function: f, returning f(params, x) and log(df/dx), elementwise in x and y.
      params: a pytree of what else f depends on.
      y: values; NaN gives NaN.
      low: the lower end of a bracket of each solution.
      high: its upper end. A y beyond the bracket gives the end nearest to it.
    """

    # The bracket is an argument, not a closure, so that this works inside other transformations.
    def find(given: Any, y: Array) -> tuple[Array, None]:
        params, *ends = given
        return _solve(lambda x: function(params, x), y, *ends), None

    def divide(given: Any, x: Array, b: Array) -> Array:
        return b * jnp.minimum(jnp.exp(-function(given[0], x)[1]), jnp.finfo(x.dtype).max)

    given = params, *lax.stop_gradient((low, high))
    x, _ = solved(find, lambda given, x: function(given[0], x)[0], divide, given, y)
    return x, -function(params, x)[1]


def tolerance(dtype: Any) -> float:
    """Where `invert_increasing` stops, relative to 1 + |x|."""
    return 4 * float(jnp.finfo(dtype).eps)


def _solve(
    function: Callable[[Array], tuple[Array, Array]], y: Array, low: Array, high: Array
) -> Array:
    small = tolerance(y.dtype)

    def goes_on(carry: Any) -> Array:
        steps, *_, done = carry
        return (steps < _MAX_STEPS) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        steps, x, low, high, last, done = carry
        value, log_slope = function(x)
        above = value > y
        low, high = jnp.where(above, low, x), jnp.where(above, x, high)
        target, limit = x + (y - value) * jnp.exp(-log_slope), small * (1 + jnp.abs(x))
        # A root at an end of the bracket: rounding must not take Newton's step for one beyond.
        newton = jnp.clip(target, low, high)
        inside = jnp.abs(newton - target) <= limit
        move, size = jnp.abs(newton - x), high - low
        near = move <= limit
        found = (inside & near) | (size <= limit)
        use = inside & (near | (2 * move <= last))
        new = jnp.where(use, newton, low + size / 2)
        return (
            steps + 1,
            jnp.where(done, x, new),
            low,
            high,
            jnp.where(use, move, size),
            done | found,
        )

    done = ~(jnp.isfinite(y) & jnp.isfinite(low) & jnp.isfinite(high))
    size = high - low
    start = (jnp.zeros((), jnp.int32), low + size / 2, low, high, size, done)
    x = lax.while_loop(goes_on, step, start)[1]
    return jnp.where(done, jnp.nan, x)
