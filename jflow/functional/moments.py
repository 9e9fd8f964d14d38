"""Means and spreads of channels (the last axis), over all other axes."""

import jax.numpy as jnp
from jax import Array

from jflow.functional.arrays import align


def channel_mean(x: Array) -> Array:
    """Of each channel, in two passes: the first loses digits where the offset is large."""
    rows = tuple(range(x.ndim - 1))
    first = jnp.mean(x, axis=rows)
    return first + jnp.mean(x - align(first, x), axis=rows)


def channel_variance(x: Array) -> Array:
    """Of each channel."""
    return jnp.mean(jnp.square(x - align(channel_mean(x), x)), axis=tuple(range(x.ndim - 1)))


def channel_log_std(x: Array) -> Array:
    """Log standard deviation of each channel, or 0 where it is nothing but rounding error.

    Deviations are divided by the largest before they are squared: in float32, squares of numbers
    below 1e-22 are 0, and above 1e19 infinite.
    """
    center, rows = channel_mean(x), tuple(range(x.ndim - 1))
    deviations = jnp.abs(x - align(center, x))
    largest = jnp.max(deviations, axis=rows, initial=0)
    constant = largest <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(center)
    largest = jnp.where(constant, 1, largest)
    shares = jnp.mean(jnp.square(deviations / align(largest, x)), axis=rows)
    return jnp.where(constant, 0, jnp.log(largest) + 0.5 * jnp.log(shares))
