"""From whole numbers on the data side to the continuous values that flows are of."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, DirectionKind, LogDetKind
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, batch_shape
from jflow.functional.dequantization import dequantize
from jflow.functional.supports import Integers, Interval, Supports, each, moved

# Beyond it, float32 has no digits left for the noise.
_MOST = 2**16


class Dequantize(Bijector):
    """Whole numbers y of 0..k-1, such as grey levels, seen as continuous values in (0, 1).

        inverse   x = (y + u) / k, with noise u uniform on (0, 1);  log_det = -D log k
        forward   y = floor(k x), kept within 0..k-1;               log_det = D log k, or -inf
                                                                    beyond [0, 1]

    log p(x) + log_det is, in the mean over u, at most log P(y) of the discrete model P(y), the
    integral of p over y's cell; and the mean of its exponential is P(y) itself, but for the ends of
    cells that rounding would leave (0.8 % each of 65,536 values in float32, else less). What p puts
    outside of [0, 1] is lost to that bound. It stands nearest to the data:

        Flow(Chain((Dequantize(256, event_ndim=3), ...)), (28, 28, 1))

    `inverse` needs the RNG stream "noise" (a density asks for a key).

    Attributes:
      values: k, from 2 to 65,536.
      event_ndim: axes of an event; 3 for images.

    Raises:
      ValueError: another number of values; or inverse without the stream "noise".

    Reference: Theis, van den Oord, Bethge, A note on the evaluation of generative models, 2016,
    sect. 3.1, https://arxiv.org/abs/1511.01844
    """

    values: int = 256
    event_ndim: int = 1

    def __post_init__(self) -> None:
        check_counts("Dequantize", 2, values=self.values)
        check_counts("Dequantize", 0, event_ndim=self.event_ndim)
        if self.values > _MOST:
            raise ValueError(
                f"Dequantize: values must be {_MOST:,} or fewer; got {self.values}. Float32 holds "
                "no noise between more: take such numbers for continuous, or bring them together"
            )
        for name in ("values", "event_ndim"):  # those of NumPy have dtypes of their own
            object.__setattr__(self, name, int(getattr(self, name)))
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        y = jnp.clip(jnp.floor(self.values * x), 0, self.values - 1)
        outside = jnp.any((x < 0) | (x > 1), axis=self._axes(x))
        return y, jnp.where(outside, -math.inf, -self._log_det(x))

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        if not (self.has_rng("noise") or self.is_initializing()):
            raise ValueError("Dequantize: inverse draws noise; give apply rngs={'noise': key}")
        y = as_wide(y)
        level = jnp.clip(jnp.floor(y), 0, self.values - 1)
        outside = jnp.any(jnp.abs(y - level) > 0, axis=self._axes(y))  # not !=: of NaN, that is so
        x = dequantize(self.make_rng("noise"), level, self.values)
        return x, jnp.where(outside, -math.inf, self._log_det(y))

    @nn.nowrap
    def _axes(self, y: Array) -> tuple[int, ...]:
        return tuple(range(y.ndim - self.event_ndim, y.ndim))

    @nn.nowrap
    def _log_det(self, y: Array) -> Array:
        size = math.prod(y.shape[y.ndim - self.event_ndim :])
        return jnp.full(batch_shape(y, self.event_ndim), -size * math.log(self.values), y.dtype)

    @property
    def log_det_kind(self) -> LogDetKind:
        return "bound"

    @property
    def inverse_kind(self) -> DirectionKind:
        return "random"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return direction == "inverse"

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        levels = Integers(0, self.values - 1)
        taken, to = (Interval(), levels) if direction == "forward" else (levels, Interval(0, 1))
        return each(lambda part: moved(type(self).__name__, part, taken, to), support)
