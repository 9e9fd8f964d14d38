"""Norms of linear operators, induced by p-norms of what goes in and what comes out."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax


def has_closed_form(p: float, q: float) -> bool:
    """Whether the norm from |.|_p to |.|_q is a largest column or row norm: p = 1 or q = inf."""
    return p == 1 or math.isinf(q)


def closed_form_norm(kernel: Array, p: float, q: float) -> Array:
    """max |W x|_q / |x|_p for p = 1 or q = inf, of W with kernel (..., inputs, outputs).

    For p = 1 the largest q-norm of what one input gives; for q = inf the largest dual norm of the
    weights of one output. Of convolutions, whose kernels have the two axes of taps before, it is
    that of an operator without borders, and a bound where borders cut all patches.
    """
    axis, power = (-2, q) if p == 1 else (-1, _dual(p))
    others = tuple(i for i in range(kernel.ndim) if i != kernel.ndim + axis)
    size = jnp.abs(kernel)
    if math.isinf(power):
        return jnp.max(size)
    if power == 1:
        return jnp.max(jnp.sum(size, axis=others))
    largest = jnp.max(jnp.sum(size**power, axis=others))
    # The root of zero has no derivative.
    return jnp.where(largest > 0, jnp.where(largest > 0, largest, 1) ** (1 / power), 0)


def power_iteration(
    operator: Callable[[Array], Array],
    transpose: Callable[[Array], Array],
    vector: Array,
    p: float = 2.0,
    q: float = 2.0,
    *,
    tolerance: float,
    max_iterations: int,
) -> tuple[Array, Array, Array]:
    """Vectors v, u with u W v close to the norm of W from |.|_p to |.|_q, which it is never above.

    Boyd's iteration, u = dual(W v), v = dual(W^T u), where dual(a) has a-product |a| and unit norm
    in the dual space; for p = q = 2 it is the power iteration of W^T W, which converges to the
    norm from almost every start. For other p and q it may stop at a local maximum.

    It stops when the value changes by less than `tolerance`, relatively. For p = q = 2, from a
    generic start, the value is then below the norm by less than sqrt(tolerance) / 2, relatively:
    slow convergence means singular values that are nearly equal.

    Args:
      operator: W.
      transpose: W^T.
      vector: v to start from, any shape that W takes.
      p: of the norm of v, in (1, inf).
      q: of the norm of W v, in (1, inf).
      tolerance: when to stop.
      max_iterations: when to stop at last; 1 or more are made.

    Returns:
      v, u, and how many iterations were made.

    Reference: Boyd, 1974, https://doi.org/10.1016/0024-3795(74)90029-9
    """

    def step(carry: Any) -> Any:
        count, v, _, value, _ = carry
        u = _dual_vector(operator(v), q)
        back = transpose(u)
        new = _norm(back, _dual(p))
        v = jnp.where(new > 0, _dual_vector(back, _dual(p)), v)
        return count + 1, v, u, new, jnp.abs(new - value) > tolerance * new

    def goes_on(carry: Any) -> Array:
        return (carry[0] < max_iterations) & carry[-1]

    image = jnp.zeros_like(operator(vector))
    zero = jnp.zeros((), vector.dtype)
    start = (jnp.zeros((), jnp.int32), vector, image, zero, jnp.asarray(True))
    count, v, u, *_ = lax.while_loop(goes_on, step, start)
    return v, u, count


def _dual(p: float) -> float:
    return math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)


def _norm(x: Array, p: float) -> Array:
    if p == 2:
        return jnp.sqrt(jnp.sum(jnp.square(x)))
    largest = jnp.max(jnp.abs(x))
    scaled = jnp.abs(x) / jnp.where(largest > 0, largest, 1)
    return largest * jnp.sum(scaled**p) ** (1 / p)


def _dual_vector(x: Array, p: float) -> Array:
    """The a of unit dual norm with a x = |x|_p."""
    size = _norm(x, p)
    x = x / jnp.where(size > 0, size, 1)
    return x if p == 2 else jnp.sign(x) * jnp.abs(x) ** (p - 1)
