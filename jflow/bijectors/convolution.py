"""Invertible convolutions of images."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector
from jflow.bijectors.chain import Chain
from jflow.bijectors.linear import Conv1x1
from jflow.functional import causal_convolution as conv
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide


class _Conv(Bijector):
    """A square convolution of images, in its fast direction from data to base."""

    event_ndim = 3
    kernel_size: int = 3

    def __post_init__(self) -> None:
        check_counts(type(self).__name__, kernel_size=self.kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"{type(self).__name__}: kernel_size must be odd; got {self.kernel_size}"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._convolve(x, inverse=False)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._convolve(y, inverse=True)

    @nn.compact
    def _convolve(self, x: Array, *, inverse: bool) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[x.ndim - 3 :])
        flat = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
        y, log_det = self._images(flat, inverse)
        return y.reshape(x.shape), jnp.broadcast_to(log_det, x.shape[:-3])

    @nn.nowrap
    def _images(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        raise NotImplementedError


class EmergingConv(_Conv):
    """Two causal convolutions, in raster order and its reverse: every pixel sees all around it.

        inverse   x = conv_2(conv_1(y))        log_det = +height width sum(s_1 + s_2)

    The kernel of conv_1 is masked so that a pixel depends on those above, those before it in its
    row, and on its own earlier channels, with e^s on the diagonal: it cannot become singular.
    conv_2 is the same, rotated by half a turn. inverse (likelihoods) computes the taps that are not
    masked; forward goes row by row, with the inverse of a row's own part formed once: height steps,
    not height times width.

    It starts close to the identity, and mixes few channels at first: put a `Conv1x1` beside it.

    Attributes:
      kernel_size: of both kernels, odd.

    Raises:
      ValueError: an even `kernel_size`, or an event that is not an image.

    Reference: Hoogeboom et al., 2019, section 3.1, https://arxiv.org/abs/1901.11137
    """

    @nn.nowrap
    def _images(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        channels = x.shape[-1]
        shape = (len(conv.taps(self.kernel_size)), channels, channels)
        total = jnp.zeros((), x.dtype)
        names = ("first", "second")
        for name in names if inverse else names[::-1]:
            kernel = self.param(f"kernel_{name}", _small, shape, x.dtype).astype(x.dtype)
            log_scale = self.param(f"log_scale_{name}", nn.initializers.zeros, (channels,), x.dtype)
            log_scale = log_scale.astype(x.dtype)
            own = jnp.triu(kernel[-1], 1) + jnp.diag(jnp.exp(log_scale))
            kernel = jnp.asarray(kernel).at[-1].set(own)
            turned = jnp.flip(x, (1, 2, 3)) if name == "second" else x
            run = conv.causal_conv if inverse else conv.causal_conv_inverse
            turned = run(turned, kernel, self.kernel_size)
            x = jnp.flip(turned, (1, 2, 3)) if name == "second" else turned
            total = total + jnp.sum(log_scale)
        pixels = x.shape[1] * x.shape[2]
        return x, pixels * total if inverse else -pixels * total


class PeriodicConv(_Conv):
    """A convolution of an image whose opposite edges meet.

        inverse   x[i, j] = sum_ab y[(i + a) mod H, (j + b) mod W] K[a, b]
        log_det = sum over frequencies (u, v) of log|det K^(u, v)|

    A Fourier transform makes it one channels x channels matrix K^ at each frequency, by which
    inverse (likelihoods) multiplies and forward divides: no loop over pixels either way.

    It starts close to the identity. The matrices can become singular: `apply(...,
    mutable=["solver"])` returns the largest of their condition numbers in the collection "solver",
    as `condition`.

    Attributes:
      kernel_size: odd. In an image that is smaller, several taps meet in one pixel.

    Raises:
      ValueError: an even `kernel_size`, or an event that is not an image.

    Reference: Hoogeboom et al., 2019, section 3.2, https://arxiv.org/abs/1901.11137
    """

    @nn.nowrap
    def _images(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        _, height, width, channels = x.shape
        size = self.kernel_size
        shape = (size, size, channels, channels)
        kernel = self.param("kernel", _near_identity, shape, x.dtype).astype(x.dtype)
        matrices = conv.spectrum(kernel, height, width)
        self._report(condition=lambda: jnp.max(jnp.linalg.cond(matrices)))
        log_det = conv.spectrum_log_det(matrices, width)
        if inverse:
            return conv.multiply_spectrum(x, matrices), log_det
        return conv.multiply_spectrum(x, jnp.linalg.inv(matrices)), -log_det


def WoodburyConv(rank: int | None = None, pixel_rank: int | None = None) -> Chain:
    """Low-rank updates of the identity over channels, and over pixels (Woodbury transformations).

        inverse   X = W_pixels Y W_channels     of Y (height width, channels)

    Each W is that of `Linear("low_rank")`, so neither can become singular, and both directions are
    closed form in O(rank) operations for each number.

    Args:
      rank: of the update over channels, at most their number; None for 8, or all of fewer.
      pixel_rank: of the update over pixels, likewise.

    Reference: Lu and Huang, 2020, https://arxiv.org/abs/2011.13142
    """
    pixels = Conv1x1("low_rank", rank=pixel_rank, axes="pixels")
    return Chain((Conv1x1("low_rank", rank=rank), pixels))


def _small(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Kernels (taps, C, C) of small norm."""
    return 0.1 / math.sqrt(shape[0] * shape[1]) * jax.random.normal(key, shape, dtype)


def _near_identity(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Kernels (h, w, C, C), one in the middle."""
    height, width, channels, _ = shape
    kernel = _small(key, (height * width, channels, channels), dtype).reshape(shape)
    return kernel.at[height // 2, width // 2].add(jnp.eye(channels, dtype=dtype))
