"""The inverse of x + g(x), for a contraction g, to a certified precision."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align, batch_shape
from jflow.functional.implicit import solved

# Of |x| + |y|, what the rounding of y - x - g(x) may be. Measured at solutions, for networks of up
# to 4 layers: 2 units in the last place where x has 2 features, 3 and 6.5 where it has 64 and 512.
_ULPS = 8
# Iterations without a smaller residual before rounding is taken to be the reason.
_PATIENCE = 8


class Solution(NamedTuple):
    """What an iteration found.

    Attributes:
      x: the solution, (*batch, *event); NaN where `converged` is not true.
      converged: whether the iteration did, (*batch): to the tolerance, or to rounding.
      bound: on the distance to the exact solution, (*batch): (|y - x - g(x)| + r) / (1 - L), which
        holds for any x, where r is what rounding may take from the numerator: eight units in the
        last place of |x| + |y|.
      iterations: how many were made, of the slowest element of the batch; a scalar.
    """

    x: Array
    converged: Array
    bound: Array
    iterations: Array


def invert_residual(
    function: Callable[[Any, Array], Array],
    params: Any,
    y: Array,
    *,
    lipschitz: float,
    norm: float = 2.0,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    anderson: int = 0,
    event_ndim: int = 1,
) -> Solution:
    """x with x + g(x) = y, where g has Lipschitz constant L < 1.

    Banach's iteration x <- y - g(x), from x = y. It stops for each element of the batch once

        |y - x - g(x)| / (1 - L) <= tolerance,

    a bound on the distance to the solution for whatever x is, or once rounding keeps it from
    falling any further: the bound that was reached is returned. Where neither happens within
    `max_iterations`, x is NaN.

    Derivatives are those of the implicit function theorem, (I + J) dx = dy - dg, by the same
    iteration; see `solved`.

    Args:
      function: g(params, x), from (*batch, *event) to the same, each element by itself.
      params: a pytree of what else g depends on.
      y: (*batch, *event).
      lipschitz: L, in (0, 1).
      norm: the p of the norm |.|_p in which L holds.
      tolerance: the bound to reach; None for `default_tolerance` of y's dtype.
      max_iterations: None for as many as L asks for, from a start 10^4 away.
      anderson: how many earlier iterates Anderson's acceleration combines; 0 for none. Where a
        step does not reduce the residual, Banach's follow until it is the smallest so far.
      event_ndim: how many trailing axes are the event.

    Raises:
      ValueError: `lipschitz` is not in (0, 1), or a tolerance, norm or count out of range.
    """
    tolerance = default_tolerance(y.dtype) if tolerance is None else tolerance
    _check_arguments(lipschitz, norm, tolerance, max_iterations, anderson)
    small = min(tolerance, float(jnp.finfo(y.dtype).eps))
    limit = max_iterations or _PATIENCE + math.ceil(math.log(1e-4 * small) / math.log(lipschitz))
    rule = _Rule(lipschitz, tolerance, limit, anderson, event_ndim)

    def find(params: Any, y: Array) -> tuple[Array, Any]:
        x, *report = _iterate(lambda x: function(params, x), y, rule, norm)
        return x, report

    def divide(params: Any, x: Array, b: Array) -> Array:
        push = jax.linearize(lambda x: function(params, x), x)[1]
        return _solve_linear(push, b, rule, norm)

    x, report = solved(find, lambda params, x: x + function(params, x), divide, params, y)
    return Solution(x, *report)


def _check_arguments(
    lipschitz: float, norm: float, tolerance: float, max_iterations: int | None, anderson: int
) -> None:
    if not 0 < lipschitz < 1:
        raise ValueError(f"invert_residual: lipschitz must be in (0, 1); got {lipschitz}")
    if not norm >= 1:
        raise ValueError(f"invert_residual: norm must be 1 or more; got {norm}")
    if not tolerance > 0:
        raise ValueError(f"invert_residual: tolerance must be positive; got {tolerance}")
    check_counts("invert_residual", 0, anderson=anderson)
    if max_iterations is not None:
        check_counts("invert_residual", max_iterations=max_iterations)


def default_tolerance(dtype: Any) -> float:
    """1e-6 for float32, 1e-12 for float64: what `invert_residual` aims at."""
    return 1e-12 if jnp.finfo(dtype).bits > 32 else 1e-6


class _Rule(NamedTuple):
    """How to iterate: the arguments of `invert_residual`."""

    lipschitz: float
    tolerance: float
    limit: int
    anderson: int
    event_ndim: int


class _Carry(NamedTuple):
    iterations: Array
    x: Array
    best: Array
    best_size: Array  # of its residual
    waited: Array
    done: Array
    history: Any


def _solve_linear(push: Callable[[Array], Array], b: Array, rule: _Rule, norm: float) -> Array:
    """t with t + J t = b, to the tolerance relative to b, by the same iteration."""

    def solve(p: float) -> Callable[[Callable[[Array], Array], Array], Array]:
        return lambda matvec, b: (
            _iterate(lambda t: matvec(t) - t, b, rule, p, _norm(b, p, rule.event_ndim)).x
        )

    # J^T contracts in the dual norm.
    dual = 1 / (1 - 1 / norm) if norm > 1 else math.inf
    return lax.custom_linear_solve(lambda t: t + push(t), b, solve(norm), solve(dual))


def _iterate(
    contraction: Callable[[Array], Array],
    y: Array,
    rule: _Rule,
    p: float,
    unit: Array | float = 1.0,
) -> Solution:
    """x with x + contraction(x) = y, to the tolerance times `unit`."""
    batch, ndim = batch_shape(y, rule.event_ndim), rule.event_ndim
    goal = rule.tolerance * (1 - rule.lipschitz) * unit

    def step(carry: _Carry) -> _Carry:
        residual = y - carry.x - contraction(carry.x)
        size = _norm(residual, p, ndim)
        better = (size < carry.best_size) & ~carry.done
        best = jnp.where(_wide(better, y), carry.x, carry.best)
        best_size = jnp.where(better, size, carry.best_size)
        waited = jnp.where(better, 0, carry.waited + 1)
        done = carry.done | (best_size <= goal) | (waited >= _PATIENCE) | jnp.isnan(size)
        x, history = carry.x + residual, carry.history
        if rule.anderson:
            mixed, history = _anderson(carry.x, residual, history, carry.iterations, ndim)
            x = jnp.where(_wide(better, y), mixed, x)
        return _Carry(carry.iterations + 1, x, best, best_size, waited, done, history)

    none = jnp.zeros((rule.anderson, *y.shape), y.dtype) if rule.anderson else y
    waited, done = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)
    size = jnp.full(batch, jnp.inf, y.dtype)
    start = _Carry(jnp.zeros((), jnp.int32), y, y, size, waited, done, (none, none))
    end = lax.while_loop(lambda c: (c.iterations < rule.limit) & ~jnp.all(c.done), step, start)
    # Where rounding stopped the iteration, the residual is a few units in the last place of y.
    size_of_both = _norm(end.best, p, ndim) + _norm(y, p, ndim)
    rounding = 1e3 * jnp.finfo(y.dtype).eps * size_of_both
    found = jnp.isfinite(end.best_size) & (end.best_size <= jnp.maximum(goal, rounding))
    x = jnp.where(_wide(found, y), end.best, jnp.nan)
    numerator = end.best_size + _ULPS * float(jnp.finfo(y.dtype).eps) * size_of_both
    return Solution(x, found, numerator / (1 - rule.lipschitz), end.iterations)


def _anderson(
    x: Array, residual: Array, history: Any, iterations: Array, event_ndim: int
) -> tuple[Array, Any]:
    """The combination of the last iterates, with weights of sum 1, whose residual is least."""
    xs, residuals = history
    slot = iterations % xs.shape[0]
    xs, residuals = xs.at[slot].set(x), residuals.at[slot].set(residual)
    axes = tuple(range(-event_ndim, 0))
    gram = jnp.sum(residuals[:, None] * residuals[None], axis=axes)
    gram = jnp.moveaxis(gram, (0, 1), (-2, -1))
    slots = jnp.arange(xs.shape[0], dtype=jnp.int32)
    used = align((slots <= iterations)[:, None], gram)
    trace = jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    eye = align(jnp.eye(xs.shape[0]), gram)
    # Empty slots get weight zero; the rest is regularised, for residuals are nearly parallel.
    info = jnp.finfo(x.dtype)
    system = gram + (4 * info.eps * trace + info.tiny) * eye + 1e6 * trace * (1 - used) * eye
    weights = jnp.linalg.solve(system, jnp.broadcast_to(used, (*gram.shape[:-1], 1)))
    weights = jnp.moveaxis(weights[..., 0] / jnp.sum(weights, axis=(-2, -1))[..., None], -1, 0)
    weights = _wide(weights, xs)
    return jnp.sum(weights * (xs + residuals), axis=0), (xs, residuals)


def _norm(x: Array, p: float, event_ndim: int) -> Array:
    axes = tuple(range(-event_ndim, 0))
    size = jnp.abs(x)
    if p == 2:
        return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes))
    if p == 1:
        return jnp.sum(size, axis=axes)
    if math.isinf(p):
        return jnp.max(size, axis=axes)
    return jnp.sum(size**p, axis=axes) ** (1 / p)


def _wide(x: Array, like: Array) -> Array:
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
