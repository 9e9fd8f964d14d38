"""What may be done to each batch of training examples: `fit(augment=)`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts, check_numbers


def flip_left_right(key: Array, y: Array) -> Array:
    """Images (N, height, width, channels), each mirrored with probability 1/2: `fit(augment=)`."""
    flipped = jax.random.bernoulli(key, shape=(len(y), 1, 1, 1))
    return jnp.where(flipped, y[:, :, ::-1], y)


def shift(key: Array, y: Array, pixels: int = 1, share: float = 0.5) -> Array:
    """Images (N, height, width, channels), a share of them moved, for `fit(augment=)`.

    Along each side by up to so many pixels; zeros move in. It is for images whose borders are
    black, and whose place does not matter: small sets of them overfit less.

    Raises:
      ValueError: `pixels` is not a whole number, 1 or more, or `share` not in [0, 1].
    """
    check_counts("shift", pixels=pixels)
    if not 0 <= share <= 1:
        raise ValueError(f"shift: share must be in [0, 1]; got {share!r}")
    first, second = jax.random.split(key)
    moves = jax.random.randint(first, (len(y), 2), 0, 2 * pixels + 1)
    moves = jnp.where(jax.random.bernoulli(second, share, (len(y), 1)), moves, pixels)
    padded = jnp.pad(y, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    cut = lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), y.shape[1:])  # noqa: E731
    return jax.vmap(cut)(padded, moves)


def mutate(key: Array, y: Any, rate: float = 0.1, values: int = 256) -> Array:
    """Images in which a share `rate` of the numbers is drawn anew from 0..values-1.

    What is left of them is what many images have in common: a flow fitted to such, by
    `fit(augment=mutate)`, is a background for `ImageDensity.calibrate`. Ren et al., 2019,
    https://arxiv.org/abs/1906.02845, section 4.
    """
    y = jnp.asarray(y)
    first, second = jax.random.split(key)
    drawn = jax.random.randint(second, y.shape, 0, values).astype(y.dtype)
    return jnp.where(jax.random.bernoulli(first, rate, y.shape), drawn, y)


def add_noise(key: Array, y: Any, scale: float) -> Array:
    """y plus normal noise of standard deviation `scale`, for `fit(augment=)`, of any numbers.

    It makes the flow one of noisy data, from whose samples `jflow.distributions.denoise` takes the
    noise. The flow must be of the whole line (of images, `alpha=None`). Validate on noisy data.

    Raises:
      TypeError: y is not floating.
      ValueError: `scale` is not above 0.
    """
    y = jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(f"add_noise: y must be floating, as images / 255; got {y.dtype}")
    check_numbers("add_noise", above=0, scale=scale)
    return y + scale * jax.random.normal(key, y.shape, y.dtype)
