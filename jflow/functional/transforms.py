"""Fast linear transforms of the last axis, in O(D log D) or less."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array


def butterfly(angles: Array, x: Array, *, inverse: bool = False) -> Array:
    """Rotates pairs of numbers 1, 2, 4, ... places apart: x (N, D) to (N, D).

    At level l, numbers i and i + 2^l of each group of 2^(l+1) become

        (x_i cos t - x_j sin t,  x_i sin t + x_j cos t)

    Where D is not a power of two, numbers without a partner stay as they are.

    Args:
      angles: (levels, 2^(levels - 1)), with 2^levels at least D.
      x: (N, D).
      inverse: whether to undo it.
    """
    count, size = x.shape
    levels = angles.shape[0]
    whole = 2**levels
    x = jnp.pad(x, ((0, 0), (0, whole - size)))
    for level in range(levels)[:: -1 if inverse else 1]:
        reach = 2**level
        groups = whole // (2 * reach)
        second = np.arange(whole).reshape(groups, 2, reach)[:, 1]
        angle = jnp.where(jnp.asarray(second < size), angles[level].reshape(groups, reach), 0)[None]
        cos, sin = jnp.cos(angle), jnp.sin(-angle if inverse else angle)
        pairs = x.reshape(count, groups, 2, reach)
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        x = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=2).reshape(count, whole)
    return x[:, :size]


def haar(x: Array, *, inverse: bool = False) -> Array:
    """Haar wavelets of x (N, 2^m): the total over sqrt(2^m), then differences, coarse to fine.

    Each level turns pairs (a, b) into (a + b) / sqrt 2 and (a - b) / sqrt 2.
    """
    size, half = x.shape[-1], math.sqrt(0.5)
    if inverse:
        coarse = x[:, :1]
        while coarse.shape[-1] < size:
            fine = x[:, coarse.shape[-1] : 2 * coarse.shape[-1]]
            pairs = jnp.stack([(coarse + fine) * half, (coarse - fine) * half], axis=-1)
            coarse = pairs.reshape(x.shape[0], 2 * coarse.shape[-1])
        return coarse
    details: list[Array] = []
    while x.shape[-1] > 1:
        a, b = x[:, 0::2], x[:, 1::2]
        details.insert(0, (a - b) * half)
        x = (a + b) * half
    return jnp.concatenate([x, *details], axis=-1)
