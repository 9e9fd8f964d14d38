"""Small array functions that every room shares: dtypes, event sums, permutations."""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

# Of how many rows a checksum is computed at a time.
_ROWS = 2**14


def wide_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype bijectors compute in: float64 for float64, float32 for all else."""
    # Not jnp.promote_types, which refuses mixed dtypes under strict promotion.
    wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits > 32
    return jnp.dtype(dtype) if wide else jnp.dtype(jnp.float32)


def as_wide(x: ArrayLike) -> Array:
    """x as a floating array of at least float32, so that log-determinants are.

    Float64 stays float64; half precision and integers become float32.
    """
    x = jnp.asarray(x)
    return x.astype(wide_dtype(x.dtype))


def as_number(x: ArrayLike) -> Array:
    """Integers as they are, all else as `as_wide`: for what moves numbers without computing."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.integer) else as_wide(x)


def no_log_det(x: Array, event_ndim: int) -> Array:
    """The log_det of what keeps volumes: zeros (*batch), floating."""
    return jnp.zeros(batch_shape(x, event_ndim), wide_dtype(x.dtype))


def check_fits(name: str, array: np.ndarray) -> None:
    """Refuses integers that JAX would wrap, as it has no such wide ones unless asked for.

    Raises:
      ValueError: naming the array, the dtype and what came.
    """
    if array.dtype.kind not in "iu" or not array.size:
        return
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.min() < np.iinfo(dtype).min or array.max() > np.iinfo(dtype).max:
        raise ValueError(f"{name} must fit {dtype}; got {array.min()} to {array.max()}")


def as_host_array(name: str, array: Any) -> np.ndarray:
    """On the host, in the dtype and byte order that it would have on the device; no copy if it has.

    Raises:
      ValueError: masked values, or integers that JAX would wrap.
    """
    if np.ma.is_masked(array):
        raise ValueError(
            f"{name} has {np.ma.count_masked(array)} masked values; fill or leave them out"
        )
    array = np.asarray(array)
    check_fits(name, array)
    dtype = jax.dtypes.canonicalize_dtype(array.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):  # infinities are refused elsewhere
        return array.astype(dtype, copy=False)


def is_hidden(x: ArrayLike) -> bool:
    """Whether x's values cannot be looked at here.

    It is an argument of a function being compiled, or has parts on devices of other processes.
    """
    if isinstance(x, Tracer):
        return True
    return isinstance(x, Array) and not (x.is_fully_addressable or x.is_fully_replicated)


def sum_event(x: Array, event_ndim: int) -> Array:
    """Sums the last `event_ndim` axes, in float32 or wider."""
    return jnp.sum(as_wide(x), axis=tuple(range(-event_ndim, 0)))


def is_infinite(x: Array, event_ndim: int) -> Array:
    """Which events (*batch, *event) hold an infinite number, and no NaN: (*batch)."""
    axes = tuple(range(-event_ndim, 0))
    return jnp.any(jnp.isinf(x), axis=axes) & ~jnp.any(jnp.isnan(x), axis=axes)


def batch_shape(x: Array, event_ndim: int) -> tuple[int, ...]:
    """The leading axes of x, those before its event."""
    return x.shape[: x.ndim - event_ndim]


def align(parameter: Array, x: Array) -> Array:
    """`parameter` in x's dtype, with leading axes of size 1 up to x's rank.

    What combines both then broadcasts over x's batch, with implicit rank promotion switched off,
    too.
    """
    missing = (1,) * (x.ndim - parameter.ndim)
    return parameter.reshape(missing + parameter.shape).astype(x.dtype)


def over_event(mask: Array, x: Array) -> Array:
    """A mask of the batch, over the axes of one element of x, too."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def clip_rounding(x: Array, low: float, high: float) -> Array:
    """x without the rounding errors that put it outside of [low, high].

    Its slope is 1 everywhere; that of jnp.clip is 1/2 at both ends, where points may well lie.
    """
    return x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)


def pinned(t: Array, x: Array, low: float = 0.0, high: float = 1.0) -> Array:
    """t in [0, 1], and exactly 0 or 1 where x is at an end of its interval; its slopes stay."""
    exact = jnp.where(x <= low, 0, jnp.where(x >= high, 1, jnp.clip(t, 0, 1)))
    return t + jax.lax.stop_gradient(exact - t)


def permute(x: Array, order: np.ndarray | Array, axis: int = -1) -> Array:
    """result[..., i] = x[..., order[i]], for a permutation `order` of that axis, from the last."""
    index = (..., order.astype(np.int32), *(slice(None),) * (-1 - axis))
    return x.at[index].get(mode="promise_in_bounds", unique_indices=True)


def with_flag(context: Array, known: Array | float) -> Array:
    """context (*, C) and whether it is known, 1 or 0, as (*, C + 1); zeros where it is not."""
    flag = jnp.broadcast_to(jnp.asarray(known, context.dtype), (*context.shape[:-1], 1))
    return jnp.concatenate([flag * context, flag], axis=-1)


def wrap_angles(x: Array) -> Array:
    """The angles in [-pi, pi) that x is up to whole turns, in radians. The slope is 1."""
    turns = jnp.floor((x + math.pi) / (2 * math.pi))
    return clip_rounding(x - 2 * math.pi * turns, -math.pi, math.pi)


def checksum(tree: Any, places: np.ndarray | None = None) -> str:
    """Type and shape of the first array, and a checksum of the rows at some places of all."""
    first, found = np.asarray(jax.tree.leaves(tree)[0]), 0
    shape = first.shape if places is None else (len(places), *first.shape[1:])
    for leaf in jax.tree.leaves(tree):
        rows = np.asarray(leaf)
        # A part at a time: there is no copy as large as they are.
        for at in range(0, shape[0], _ROWS):
            part = rows[slice(at, at + _ROWS) if places is None else places[at : at + _ROWS]]
            found = zlib.crc32(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data, found)
    return f"{first.dtype}{list(shape)}, checksum {found:08x}"
