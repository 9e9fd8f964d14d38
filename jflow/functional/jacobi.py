"""The slow direction of autoregressive maps, by sweeps over all positions at once."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.autoregressive import Causal, Report, ScalarMap, Solver


def jacobi(tolerance: float, max_sweeps: int | None = None, block: int | None = None) -> Solver:
    """A solver that sweeps over all positions at once, until nothing changes.

    Sweep k makes position k - 1 exact whatever the rest is, so as many sweeps as there are
    positions are exact: or as many as the longest chain of them that depend on each other. It stops
    when a sweep changes no value by more than `tolerance` times 1 + |u|. Derivatives are solutions
    of linear equations of the same kind, by sweeps over all positions.

    A value that is not finite counts as zero for the net as long as it may change, so that it
    cannot spoil earlier positions; in the end it makes all later ones NaN. Points that `max_sweeps`
    have not brought within the tolerance are NaN.

    Args:
      tolerance: of the stopping test.
      max_sweeps: at most so many, of each block; None for the number of its positions.
      block: how many positions are swept together, one such block after the other
        (Gauss-Seidel-Jacobi); None for all.
    """
    find = partial(_find, tolerance, max_sweeps, block)
    return Solver(find, partial(_divide, tolerance), partial(_divide_transposed, tolerance))


class _Found(NamedTuple):
    """Of some positions: u, and what a sweep makes of it.

    Attributes:
      u: (*batch, positions, *rest).
      log_dets: log|du_i/dv_i|.
      changes: by how much one more sweep would change it.
    """

    u: Array
    log_dets: Array
    changes: Array


def _find(
    tolerance: float,
    max_sweeps: int | None,
    block: int | None,
    of: ScalarMap,
    net: Causal,
    v: Array,
) -> tuple[Array, Array, Report]:
    ndim = net.event_ndim
    positions = v.shape[v.ndim - ndim]
    size = positions if block is None else min(block, positions)
    limit = size if max_sweeps is None else min(max_sweeps, size)
    until_still = partial(_until_still, tolerance, limit)
    whole = lambda u: of.backward(v, net.careful(u))  # noqa: E731
    if block is None:
        (u, log_dets, changes), sweeps = until_still(
            lambda _, u: (None, whole(u)), None, jnp.zeros_like(v)
        )[1:]
        left = changes
    else:
        (u, changes), sweeps = _blocks(until_still, size, of, net, v)
        # Of the program that log p is of, which in half precision rounds otherwise than blocks do.
        new, log_dets = whole(jnp.where(jnp.isfinite(u), u, 0))
        left = _changes(u, new)
    report = Report(sweeps, jnp.max(left, initial=0))
    wrong = jnp.any(~jnp.isfinite(u), axis=tuple(range(1 - ndim, 0))).astype(jnp.int32)
    bad = jnp.cumsum(wrong, axis=-1, dtype=jnp.int32) > wrong
    if limit < size:
        worst = jnp.max(changes, axis=tuple(range(1 - ndim, 0)), initial=0)
        bad |= jnp.any(worst > tolerance, axis=-1, keepdims=True)
    bad = bad.reshape(bad.shape + (1,) * (ndim - 1))
    nan = lambda x: jnp.where(bad, jnp.nan, x)  # noqa: E731
    return nan(u), nan(log_dets), report


def _blocks(
    until_still: Callable[..., tuple[Any, _Found, Array]],
    size: int,
    of: ScalarMap,
    net: Causal,
    v: Array,
) -> tuple[Any, Array]:
    """u and its changes, block after block; and how many sweeps that took, of blocks."""
    axis = v.ndim - net.event_ndim
    positions = v.shape[axis]
    cut = partial(lax.dynamic_slice_in_dim, slice_size=size, axis=axis)
    paste = partial(lax.dynamic_update_slice_in_dim, axis=axis)
    cache, step = net.start_blocks(v, size)

    def one(carry: Any, i: Array) -> tuple[Any, Array]:
        (cache, u, changes), v_i = carry, cut(v, i)

        def sweep(cache: Any, own: Array) -> tuple[Any, tuple[Array, Array]]:
            cache, params = step(cache, i, paste(u, own, i))
            return cache, of.backward(v_i, params)

        cache, mine, sweeps = until_still(sweep, cache, cut(u, i))
        return (cache, paste(u, mine.u, i), paste(changes, mine.changes, i)), sweeps

    # The last block begins early enough to be whole.
    starts = np.minimum(np.arange(0, positions, size), positions - size)
    carry = cache, jnp.zeros_like(v), jnp.zeros_like(v)
    (_, *found), sweeps = lax.scan(one, carry, jnp.asarray(starts, jnp.int32))
    return tuple(found), jnp.sum(sweeps, dtype=jnp.int32)


def _until_still(
    tolerance: float,
    limit: int,
    sweep: Callable[[Any, Array], tuple[Any, tuple[Array, Array]]],
    cache: Any,
    start: Array,
) -> tuple[Any, _Found, Array]:
    """What sweeps make of u until one changes nothing, or `limit` have; and how many there were.

    The last sweep is the one that finds the changes of u, and what it leaves in the cache is of u;
    it is not counted.
    """

    def goes_on(carry: Any) -> Array:
        _, _, sweeps, done = carry
        return (sweeps <= limit) & ~done

    def again(carry: Any) -> Any:
        cache, (u, _, _), sweeps, _ = carry
        cache, (new, log_dets) = sweep(cache, jnp.where(jnp.isfinite(u), u, 0))
        changes = _changes(u, new)
        # What it starts from is not taken, however small all values are.
        done = (sweeps > 0) & (jnp.max(changes, initial=0) <= tolerance)
        kept = jnp.where(done | (sweeps == limit), u, new)
        return cache, _Found(kept, log_dets, changes), sweeps + 1, done

    nothing = _Found(start, jnp.zeros_like(start), jnp.zeros_like(start))
    zero = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    cache, found, sweeps, _ = lax.while_loop(goes_on, again, (cache, nothing, *zero))
    return cache, found, sweeps - 1


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
