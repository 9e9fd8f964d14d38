"""The slow direction of autoregressive maps, by sweeps over all positions at once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.autoregressive import Causal, Report, ScalarMap, Solver


def jacobi(tolerance: float, max_sweeps: int | None = None) -> Solver:
    """A solver that sweeps over all positions at once, until nothing changes.

    Sweep k makes position k - 1 exact whatever the rest is, so as many sweeps as there are
    positions are exact: or as many as the longest chain of them that depend on each other. It stops
    when no value changes by more than `tolerance` times 1 + |u|. Derivatives are solutions of
    linear equations of the same kind, by the same sweeps.

    A value that is not finite counts as zero for the net as long as it may change, so that it
    cannot spoil earlier positions; in the end it makes all later ones NaN. Points that `max_sweeps`
    have not brought within the tolerance are NaN.

    Args:
      tolerance: of the stopping test.
      max_sweeps: at most so many; None for the number of positions.
    """
    find = partial(_find, tolerance, max_sweeps)
    return Solver(find, partial(_divide, tolerance), partial(_divide_transposed, tolerance))


def _find(
    tolerance: float, max_sweeps: int | None, of: ScalarMap, net: Causal, v: Array
) -> tuple[Array, Array, Report]:
    ndim = net.event_ndim
    positions = v.shape[v.ndim - ndim]
    limit = positions if max_sweeps is None else min(max_sweeps, positions)

    def sweep(u: Array) -> tuple[Array, Array]:
        return of.backward(v, net.careful(jnp.where(jnp.isfinite(u), u, 0)))

    def goes_on(carry: Any) -> Array:
        _, report = carry
        return (report.iterations < limit) & ~(report.residual <= tolerance)

    def again(carry: Any) -> Any:
        u, report = carry
        new, _ = sweep(u)
        return new, Report(report.iterations + 1, _largest(_changes(u, new)))

    nothing = Report(jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, v.dtype))
    u, report = lax.while_loop(goes_on, again, (jnp.zeros_like(v), nothing))
    new, log_dets = sweep(u)
    changes = _changes(u, new)
    report = report._replace(residual=_largest(changes))
    wrong = jnp.any(~jnp.isfinite(u), axis=tuple(range(1 - ndim, 0))).astype(jnp.int32)
    bad = jnp.cumsum(wrong, axis=-1, dtype=jnp.int32) > wrong
    if limit < positions:
        worst = jnp.max(changes, axis=tuple(range(1 - ndim, 0)), initial=0)
        bad |= jnp.any(worst > tolerance, axis=-1, keepdims=True)
    bad = bad.reshape(bad.shape + (1,) * (ndim - 1))
    nan = lambda x: jnp.where(bad, jnp.nan, x)  # noqa: E731
    return nan(u), nan(log_dets), report


def _divide(tolerance: float, of: ScalarMap, net: Causal, u: Array, v: Array, b: Array) -> Array:
    push = jax.linearize(lambda u: of.all(net, u)[0], u)[1]
    return _linear(tolerance, push, _slopes(of, net, u), b, net.event_ndim)


def _divide_transposed(
    tolerance: float, of: ScalarMap, net: Causal, u: Array, v: Array, b: Array
) -> Array:
    pull = jax.vjp(lambda u: of.all(net, u)[0], u)[1]
    return _linear(tolerance, lambda w: pull(w)[0], _slopes(of, net, u), b, net.event_ndim)


def _slopes(of: ScalarMap, net: Causal, u: Array) -> Array:
    """df/du_i: the diagonal of J."""
    params = net(u)
    return jax.jvp(lambda u: of.forward(u, params)[0], (u,), (jnp.ones_like(u),))[1]


def _linear(
    tolerance: float, product: Callable[[Array], Array], slopes: Array, b: Array, ndim: int
) -> Array:
    """t with A t = b, A triangular with that diagonal: to the tolerance of its largest entry."""
    axes = tuple(range(-ndim, 0))

    def goes_on(carry: Any) -> Array:
        _, sweeps, done = carry
        return (sweeps <= b.shape[b.ndim - ndim]) & ~done

    def again(carry: Any) -> Any:
        t, sweeps, _ = carry
        change = (b - product(t)) / slopes
        new = t + change
        size = lambda x: jnp.max(jnp.abs(x), axis=axes, initial=0)  # noqa: E731
        return new, sweeps + 1, jnp.all(size(change) <= tolerance * size(new))

    start = jnp.zeros_like(b), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return lax.while_loop(goes_on, again, start)[0]


def _changes(u: Array, new: Array) -> Array:
    """|new - u| / (1 + |new|); infinite if a value became or ceased to be finite."""
    same = (new == u) | (jnp.isnan(new) & jnp.isnan(u))
    change = jnp.where(same, 0, jnp.abs(new - u) / (1 + jnp.abs(new)))
    return jnp.where(jnp.isnan(change), jnp.inf, change)


def _largest(changes: Array) -> Array:
    return jnp.max(changes, initial=0)
