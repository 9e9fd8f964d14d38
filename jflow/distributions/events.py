"""Events as layers take them, floating and finite, and as users do."""

import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.arrays import as_wide, is_infinite
from jflow.functional.dequantization import NO_INTEGER, check_integer
from jflow.functional.supports import Supports, integers_of


def checked(
    name: str, y: Array, event_shape: tuple[int, ...], support: Supports
) -> tuple[Array, tuple[int, ...]]:
    """y as floating numbers, as layers take them, and its batch shape."""
    integers = integers_of(support)
    if integers is not None:
        check_integer(name, y, integers)
        y = y.astype(jax.dtypes.canonicalize_dtype(float))
    elif not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating, a continuous value; got {y.dtype}; convert it to float"
        )
    split = y.ndim - len(event_shape)
    if split < 0 or y.shape[split:] != event_shape:
        raise ValueError(f"{name} must have shape (*batch, *{event_shape}); got {y.shape}")
    return as_wide(y), y.shape[:split]


def finite(y: Array, event_ndim: int) -> tuple[Array, Array]:
    """y with zeros for infinite numbers, and which events have some."""
    return jnp.where(jnp.isinf(y), 0, y), is_infinite(y, event_ndim)


def whole(y: Array, support: Supports) -> Array:
    """What layers give, as integers where it is whole; what is NaN there as `NO_INTEGER`."""
    if integers_of(support) is None:
        return y
    return jnp.where(jnp.isnan(y), NO_INTEGER, y.astype(jnp.int32))
