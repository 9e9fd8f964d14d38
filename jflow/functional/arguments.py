"""Checks of arguments that several rooms share."""

import math
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def check_counts(owner: str, least: int = 1, /, **counts: Any) -> None:
    """Refuses what is not a whole number, `least` or more.

    Args:
      owner: whose arguments they are.
      least: what they must be at least.
      counts: their names and values.

    Raises:
      ValueError: one of them is not.
    """
    for name, count in counts.items():
        whole = isinstance(count, Integral) and not isinstance(count, bool)
        if not (whole and int(count) >= least):
            raise ValueError(
                f"{owner}: {name} must be a whole number, {least} or more; got {count!r}"
            )


def as_key(owner: str, key: Any) -> Array:
    """A JAX random key: itself, that of a whole number, or that of old-style key data (2,) uint32.

    Raises:
      TypeError: `key` is something else.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise TypeError(f"{owner}: key must be one key; got {key.shape} of them")
        return key
    if isinstance(key, Integral) and not isinstance(key, bool):
        return jax.random.key(int(key))
    data = getattr(key, "dtype", None), getattr(key, "shape", None)
    if data == (np.uint32, (2,)):
        return jax.random.wrap_key_data(key)
    raise TypeError(
        f"{owner}: key must be a whole number or a JAX key, such as 0 or jax.random.key(0); "
        f"got {key!r:.60}"
    )


def as_weights(name: str, weights: Any, count: int, *, some: bool = True) -> np.ndarray:
    """The weights of examples, (count,).

    Args:
      name: of the argument.
      weights: zero or more each.
      count: how many there are to be.
      some: whether one must be above zero.

    Raises:
      ValueError: a wrong shape, NaN, infinities, negative ones, or all of them zero.
    """
    found = np.asarray(weights, np.float64)
    if found.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), one for each; got {found.shape}")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"{name} must be zero or more, and finite; the least is {found.min()}")
    if some and not found.any():
        raise ValueError(f"{name} are all zero: there is no example left")
    return found


def check_numbers(
    owner: str, /, *, least: float | None = None, above: float | None = None,
    below: float | None = None, **numbers: Any,
) -> None:  # fmt: skip
    """Refuses what is not a finite number, or out of its range.

    Args:
      owner: whose arguments they are.
      least: what they must be at least; None for no limit.
      above: what they must be above.
      below: what they must be below.
      numbers: their names and values.

    Raises:
      ValueError: one of them is not.
    """
    limits = {"at least": least, "above": above, "below": below}
    wanted = " and ".join(
        f"{word} {limit:g}" for word, limit in limits.items() if limit is not None
    )
    for name, number in numbers.items():
        known = isinstance(number, Real) and not isinstance(number, bool)
        value = float(number) if known else math.nan
        if not (
            math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (below is None or value < below)
        ):
            raise ValueError(
                f"{owner}: {name} must be a number {wanted}".rstrip() + f"; got {number!r}"
            )
