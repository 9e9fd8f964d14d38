"""Normalisation layers."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector
from jflow.functional.arrays import align, as_wide, batch_shape


class ActNorm(Bijector):
    """Shifts and scales each channel, starting from statistics of the data (Glow).

        forward   y = x e^s + t        log_det = +n sum(s)
        inverse   x = (y - t) e^-s     log_det = -n sum(s)

    The last axis holds the channels, and n is the product of the other event axes (height
    times width for images). At `init`, s and t are chosen so that the result of the direction
    being run has mean 0 and variance 1 in each channel, over the batch and those other axes; a
    channel that is constant over the batch is only shifted. Under jit with a batch sharded over
    devices, the statistics are those of the whole batch.

    Attributes:
      event_ndim: how many trailing axes are the event.

    Reference: Kingma and Dhariwal, Glow, 2018, section 3.1, https://arxiv.org/abs/1807.03039
    """

    event_ndim: int = 1

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        shift, log_scale = self._shift_and_log_scale(x, inverse=False)
        return x * jnp.exp(log_scale) + shift, self._log_det(x, log_scale)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_wide(y)
        shift, log_scale = self._shift_and_log_scale(y, inverse=True)
        return (y - shift) * jnp.exp(-log_scale), -self._log_det(y, log_scale)

    @nn.compact
    def _shift_and_log_scale(self, x: Array, *, inverse: bool) -> tuple[Array, Array]:
        # From `inverse`, mean and standard deviation themselves; from `forward`, what undoes them.
        def init_log_scale(_: Array) -> Array:
            return _log_std(x) if inverse else -_log_std(x)

        def init_shift(_: Array) -> Array:
            return _mean(x) if inverse else -_mean(x) * jnp.exp(-_log_std(x))

        shift = self.param("shift", init_shift)
        log_scale = self.param("log_scale", init_log_scale)
        return align(shift, x), align(log_scale, x)

    def _log_det(self, x: Array, log_scale: Array) -> Array:
        positions = math.prod(x.shape[x.ndim - self.event_ndim : -1])
        return jnp.broadcast_to(positions * jnp.sum(log_scale), batch_shape(x, self.event_ndim))

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._expect_event_ndim(event_shape, self.event_ndim)
        return event_shape


def _mean(x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(x.ndim - 1)))


def _log_std(x: Array) -> Array:
    """Log standard deviation of each channel, or 0 where it is nothing but rounding error."""
    mean = _mean(x)
    variance = jnp.mean(jnp.square(x - align(mean, x)), axis=tuple(range(x.ndim - 1)))
    rounding = jnp.square(8 * jnp.finfo(x.dtype).eps * jnp.abs(mean))
    constant = variance <= rounding
    return jnp.where(constant, 0.0, 0.5 * jnp.log(jnp.where(constant, 1.0, variance)))
