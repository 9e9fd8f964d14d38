"""Normalisation layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, LogDetKind
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align, as_wide, batch_shape
from jflow.functional.moments import channel_log_std, channel_mean, channel_variance


class ActNorm(Bijector):
    """Shifts and scales each channel, starting from statistics of the data (Glow).

        forward   y = (x + t) e^s + c      log_det = +n sum(s)
        inverse   x = (y - c) e^-s - t     log_det = -n sum(s)

    The last axis holds the channels, and n is the product of the other event axes (height
    times width for images). At `init`, s and t, or c, are chosen so that the result of the
    direction being run has mean 0 and variance 1 in each channel, over the batch and those other
    axes; a channel that is constant over the batch is only shifted. Under jit with a batch sharded
    over devices, the statistics are those of the whole batch.

    c is the data's mean, kept in the collection "constants", and t is in units of the data's
    standard deviation, so that a step of an optimiser means the same for data of any scale and
    offset. (Run forward at `init`, c is 0.)

    Attributes:
      event_ndim: how many trailing axes are the event; 1 or more.

    Reference: Kingma and Dhariwal, Glow, 2018, section 3.1, https://arxiv.org/abs/1807.03039
    """

    event_ndim: int = 1

    def __post_init__(self) -> None:
        check_counts("ActNorm", event_ndim=self.event_ndim)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        center, shift, log_scale = self._numbers(x, inverse=False)
        return (x + shift) * jnp.exp(log_scale) + center, self._log_det(x, log_scale)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_wide(y)
        center, shift, log_scale = self._numbers(y, inverse=True)
        return (y - center) * jnp.exp(-log_scale) - shift, -self._log_det(y, log_scale)

    @nn.compact
    def _numbers(self, x: Array, *, inverse: bool) -> tuple[Array, Array, Array]:
        zeros = jnp.zeros(x.shape[-1:], x.dtype)
        center = self.variable("constants", "center", lambda: channel_mean(x) if inverse else zeros)
        shift = self.param("shift", lambda _: zeros if inverse else -channel_mean(x))
        sign = 1 if inverse else -1
        log_scale = self.param("log_scale", lambda _: sign * channel_log_std(x))
        return align(center.value, x), align(shift, x), align(log_scale, x)

    def _log_det(self, x: Array, log_scale: Array) -> Array:
        positions = math.prod(x.shape[x.ndim - self.event_ndim : -1])
        return jnp.broadcast_to(positions * jnp.sum(log_scale), batch_shape(x, self.event_ndim))

    @property
    def in_place(self) -> bool:
        return True


class BatchNorm(Bijector):
    """Standardises each channel by running statistics, then scales and shifts it (MAF, Real NVP).

        inverse   x = (y - m) e^s / sqrt(v + epsilon) + t
                  log_det = n sum(s - log(v + epsilon) / 2)

    The last axis holds the channels, and n is the product of the other event axes. m and v are kept
    in the collection "batch_stats"; they start as the statistics of the batch given to `init`.

    Where that collection is mutable, as in `fit`, `inverse` uses the statistics of its batch
    instead, held constant in gradients, and moves m and v towards them. Its result is then not a
    density of single points, and `log_det_kind` is "biased" there; otherwise it is "exact".
    `forward` always uses m and v. `ActNorm` has none of these complications.

    Attributes:
      event_ndim: how many trailing axes are the event; 1 or more.
      momentum: what m and v keep of themselves in a step.
      epsilon: added to variances.

    Raises:
      ValueError: in training, a batch of a single point.

    References: Dinh et al., Real NVP, 2017, section 3.7, https://arxiv.org/abs/1605.08803;
    Papamakarios et al., MAF, 2017, appendix B, https://arxiv.org/abs/1705.07057
    """

    event_ndim: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_counts("BatchNorm", event_ndim=self.event_ndim)
        if not (0 <= self.momentum < 1 and self.epsilon > 0):
            raise ValueError(
                "BatchNorm: momentum must be in [0, 1) and epsilon positive; got "
                f"{self.momentum} and {self.epsilon}"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        shift, scale, mean, half_log_variance = self._numbers(x, inverse=False)
        y = (x - shift) * jnp.exp(half_log_variance - scale) + mean
        return y, self._log_det(x, half_log_variance - scale)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_wide(y)
        shift, scale, mean, half_log_variance = self._numbers(y, inverse=True)
        x = (y - mean) * jnp.exp(scale - half_log_variance) + shift
        return x, self._log_det(y, scale - half_log_variance)

    @nn.compact
    def _numbers(self, x: Array, *, inverse: bool) -> tuple[Array, ...]:
        channels, zeros = x.shape[-1:], nn.initializers.zeros
        shift = self.param("shift", zeros, channels, x.dtype)
        scale = self.param("log_scale", zeros, channels, x.dtype)
        start = lambda f, other: f(x) if inverse else jnp.full(channels, other, x.dtype)  # noqa: E731
        mean = self.variable("batch_stats", "mean", lambda: start(channel_mean, 0.0))
        variance = self.variable("batch_stats", "variance", lambda: start(channel_variance, 1.0))
        used = mean.value, variance.value
        if inverse and self._trains:
            if math.prod(x.shape[:-1]) < 2:
                raise ValueError(f"BatchNorm: training needs a batch of points; got {x.shape}")
            used = jax.lax.stop_gradient((channel_mean(x), channel_variance(x)))
            for kept, new in zip((mean, variance), used, strict=True):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        half_log = 0.5 * jnp.log(used[1] + self.epsilon)
        return tuple(align(a, x) for a in (shift, scale, used[0], half_log))

    @property
    def _trains(self) -> bool:
        bound = self.scope is not None
        return bound and self.is_mutable_collection("batch_stats") and not self.is_initializing()

    @property
    def log_det_kind(self) -> LogDetKind:
        return "biased" if self._trains else "exact"

    def _log_det(self, x: Array, log_scale: Array) -> Array:
        positions = math.prod(x.shape[x.ndim - self.event_ndim : -1])
        return jnp.broadcast_to(positions * jnp.sum(log_scale), batch_shape(x, self.event_ndim))

    @property
    def in_place(self) -> bool:
        return True
