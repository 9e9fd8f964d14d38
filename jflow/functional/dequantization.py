"""From whole numbers to continuous values, and the bound that this makes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arrays import as_wide, is_hidden
from jflow.functional.supports import Integers

# In place of NaN, which integers do not have.
NO_INTEGER = np.iinfo(np.int32).min


def dequantize(key: Array, y: Array, values: int) -> Array:
    """(y + u) / values with u uniform on (0, 1): grey levels 0..values-1 to (0, 1)."""
    floating = jnp.issubdtype(y.dtype, jnp.floating)
    y = as_wide(y) if floating else y.astype(jax.dtypes.canonicalize_dtype(float))
    return (y + uniform_noise(key, y, values)) / values


def uniform_noise(key: Array, y: Array, values: int) -> Array:
    """Numbers as many as y, uniform on what `within_cell` holds."""
    margin = cell_margin(values, y)
    return jax.random.uniform(key, y.shape, y.dtype, margin, 1 - margin)


def within_cell(u: Array, values: int) -> Array:
    """u, away from 0 and 1 by the `cell_margin`."""
    margin = cell_margin(values, u)
    return jnp.clip(u, margin, 1 - margin)


def cell_margin(values: int, y: Array) -> float:
    """How far from both ends of its cell noise stays: what rounding y + u could take it over."""
    return values * float(jnp.finfo(y.dtype).eps)


def quantize(y: Array, values: int) -> Array:
    """floor(values y), kept within 0..values-1: the grey level whose cell holds y."""
    return jnp.clip(jnp.floor(values * y), 0, values - 1).astype(jnp.int32)


def averaged(
    log_prob: Callable[[Array], tuple[Array, Any]],
    key: Array,
    samples: int,
    importance_weighted: bool,
) -> tuple[Array, Any]:
    """E log p over draws of its noise, or log E p if `importance_weighted`.

    `log_prob` takes a key, and returns log p and anything else; the latter is returned, too, as it
    was for the last draw.
    """
    if samples == 1:
        return log_prob(key)
    draws, rest = lax.map(log_prob, jax.random.split(key, samples))
    if importance_weighted:
        mean = jax.nn.logsumexp(draws, axis=0) - math.log(samples)
    else:
        mean = jnp.mean(draws, axis=0)
    return mean, jax.tree.map(lambda value: value[-1], rest)


def bits(log_prob: Array, event_shape: tuple[int, ...], dimensions: int | None) -> Array:
    """-log_prob, in nats, as bits for each of so many dimensions; by default the event's size."""
    return -log_prob / (math.log(2) * (dimensions or math.prod(event_shape)))


def check_importance_weighted(asked: bool, log_det_kinds: frozenset[str]) -> None:
    """Refuses means of exp(log p) where log p is an estimate: they are no bound.

    Raises:
      ValueError: it is asked for.
    """
    if asked and not log_det_kinds <= {"exact", "bound"}:
        raise ValueError(
            "importance_weighted=True averages p, and so needs exact log-determinants: of random "
            f"ones the mean of exp(log p) is too large; log_det is {_weakest(log_det_kinds)}. Use "
            "density.with_estimator(ExactLogDet()), or importance_weighted=False"
        )


def _weakest(kinds: frozenset[str]) -> str:
    return next(kind for kind in ("biased", "unbiased") if kind in kinds)


def check_integer(name: str, y: Array | np.ndarray, support: Integers) -> None:
    """Refuses arrays of another dtype.

    Raises:
      TypeError: y is not integer.
    """
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be integers, {support}; got {y.dtype}. Give the whole numbers "
            "themselves, as integers; for continuous values build the flow with values=None, "
            "without Dequantize"
        )


def check_integers(name: str, y: Array | np.ndarray, support: Integers) -> None:
    """Refuses what are not integers of a support. Inside jit, only the dtype is checked.

    Raises:
      TypeError: y is not integer.
      ValueError: y has numbers outside of it.
    """
    check_integer(name, y, support)
    if is_hidden(y) or not y.size:
        return
    host = np.asarray(y)  # NumPy, because inside jit JAX would trace these, too
    low, high = int(host.min()), int(host.max())
    if low == NO_INTEGER:
        raise ValueError(f"{name} holds {low}, which flows give for what is not a number (NaN)")
    if low < support.low or high > support.high:
        raise ValueError(
            f"{name} must be {support}; got numbers from {low} to {high}. Set `values` to the "
            "number of grey levels of your data"
        )
