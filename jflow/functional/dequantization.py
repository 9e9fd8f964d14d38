"""From grey levels to continuous values, and the bound that this makes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arrays import is_hidden


def dequantize(key: Array, y: Array, values: int) -> Array:
    """(y + u) / values with u uniform on (0, 1): grey levels 0..values-1 to (0, 1)."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    # Away from both ends by what rounding y + u could take it over.
    margin = values * jnp.finfo(dtype).eps
    u = jax.random.uniform(key, y.shape, dtype, margin, 1 - margin)
    return (y.astype(dtype) + u) / values


def quantize(y: Array, values: int) -> Array:
    """floor(values y), kept within 0..values-1: the grey level whose cell holds y."""
    return jnp.clip(jnp.floor(values * y), 0, values - 1).astype(jnp.int32)


def discrete_bits_per_dim(
    log_prob: Callable[[Array, Array], tuple[Array, Any]],
    y: Array,
    key: Array,
    values: int,
    event_shape: tuple[int, ...],
    dimensions: int | None = None,
    samples: int = 1,
    importance_weighted: bool = False,
) -> tuple[Array, Any]:
    """(size log2(values) - E_u log2 p((y + u) / values)) / dimensions, over draws of u.

    `importance_weighted` puts the mean over draws inside the logarithm: log2 E_u p.

    The numerator is the bits of the whole event of that size, padding included; `dimensions`,
    by default the size, is what they are shared by. `log_prob` takes a point and a key, for what
    is random in it, and returns log p and anything else; the latter is returned, too, as it was for
    the last draw.
    """

    def draw(key: Array) -> tuple[Array, Any]:
        return log_prob(dequantize(key, y, values), jax.random.fold_in(key, 1))

    draws, rest = lax.map(draw, jax.random.split(key, samples))
    size = math.prod(event_shape)
    if importance_weighted:
        mean = jax.nn.logsumexp(draws, axis=0) - math.log(samples)
    else:
        mean = jnp.mean(draws, axis=0)
    bits = size * math.log2(values) - mean / math.log(2)
    return bits / (dimensions or size), jax.tree.map(lambda value: value[-1], rest)


def check_importance_weighted(asked: bool, log_det_kind: str) -> None:
    """Refuses means of exp(log p) where log p is an estimate: they are no bound.

    Raises:
      ValueError: it is asked for.
    """
    if asked and log_det_kind != "exact":
        raise ValueError(
            "importance_weighted=True averages p, and so needs exact log-determinants: of random "
            f"ones the mean of exp(log p) is too large; log_det_kind is {log_det_kind!r}. Use "
            "density.with_estimator(ExactLogDet()), or importance_weighted=False"
        )


def check_levels(name: str, y: Array | np.ndarray, values: int) -> None:
    """Refuses what are not grey levels 0..values-1. Inside jit, only the dtype is checked.

    Raises:
      TypeError: y is not integer.
      ValueError: y has levels out of range.
    """
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be integer grey levels 0..{values - 1}; got {y.dtype}. Continuous "
            "values have a log_prob, not bits per dimension"
        )
    if is_hidden(y) or not y.size:
        return
    host = np.asarray(y)  # NumPy, because inside jit JAX would trace these, too
    low, high = int(host.min()), int(host.max())
    if low < 0 or high >= values:
        raise ValueError(
            f"{name} must be grey levels 0..{values - 1}; got levels from {low} to {high}. Set "
            "`values` to the number of levels of your data"
        )
