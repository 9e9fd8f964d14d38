"""From whole numbers on the data side to the continuous values that flows are of."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, DirectionKind, LogDetKind
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, batch_shape
from jflow.functional.dequantization import cell_margin, uniform_noise, within_cell
from jflow.functional.supports import Integers, Interval, Supports, each, moved
from jflow.nets.layers import aligned_context, context_of_pixels

# Beyond it, float32 has no digits left for the noise.
_MOST = 2**16


class Dequantize(Bijector):
    """Whole numbers y of 0..k-1, such as grey levels, seen as continuous values in (0, 1).

        inverse   x = (y + u) / k, with noise u in (0, 1);  log_det = -D log k - log q(u | y)
        forward   y = floor(k x), kept within 0..k-1;       log_det = D log k + log q(u | y), of
                                                            u = k x - y; -inf beyond [0, 1]

    log p(x) + log_det is, in the mean over u, at most log P(y) of the discrete model P(y), the
    integral of p over y's cell; and the mean of its exponential is P(y) itself, but for the ends of
    cells that rounding would leave (0.8 % each of 65,536 values in float32, else less), which
    count for nothing. What p puts outside of [0, 1] is lost to that bound. It stands nearest to the
    data:

        Flow(Chain((Dequantize(256, event_ndim=3), ...)), (28, 28, 1))

    The noise is uniform, and log q = 0, but for those ends; or, in *variational dequantization*,
    what a bijector of the unit cube makes of uniform noise, given y: it is trained with the rest,
    towards noise under which the bound is tightest. Its context are the levels, 2 y / (k - 1) - 1,
    beside the context of the flow, if there is one:

        step = Coupling(RationalQuadraticSpline(8, tails=None), ResidualConvNet(32), "checkerboard")
        Dequantize(256, event_ndim=3, noise=step)

    `inverse` needs the RNG stream "noise" (a density asks for a key). The log q of forward is of
    k x - y, which has few digits where k is large: with noise that is learned, three numbers had
    errors of 0.01 nats for 256 levels in float32. Likelihoods, also those of samples, are by
    inverse.

    Attributes:
      values: k, from 2 to 65,536.
      event_ndim: axes of an event; 3 for images.
      noise: a bijector of events of 1 or 3 axes, whose forward leads from (0, 1) into (0, 1); None
        for uniform noise.

    Raises:
      TypeError: `noise` is no bijector.
      ValueError: another number of values; noise that has no exact log-determinant, or leaves the
        unit cube; or inverse without the stream "noise".

    References: Theis, van den Oord, Bethge, A note on the evaluation of generative models, 2016,
    sect. 3.1, https://arxiv.org/abs/1511.01844; Ho et al., Flow++, 2019, section 3.1,
    https://arxiv.org/abs/1902.00275
    """

    values: int = 256
    event_ndim: int = 1
    noise: Bijector | None = None

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
        if self.noise is not None:
            _check_noise(self.noise, self.event_ndim)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        y = self._levels(x)
        log_det = -self._log_det(x)
        if self.noise is not None:
            u = within_cell(self.values * x - y, self.values)
            _, log_q = self.noise.inverse_and_log_det(u, self._given(y, context))
            log_det = log_det + log_q
        outside = jnp.any((x < 0) | (x > 1), axis=self._axes(x))
        return y, jnp.where(outside, -math.inf, log_det)

    def forward(self, x: Array, context: Array | None = None) -> Array:
        return self._levels(as_wide(x))

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        if not (self.has_rng("noise") or self.is_initializing()):
            raise ValueError("Dequantize: inverse draws noise; give apply rngs={'noise': key}")
        y = as_wide(y)
        level = jnp.clip(jnp.floor(y), 0, self.values - 1)
        outside = jnp.any(jnp.abs(y - level) > 0, axis=self._axes(y))  # not !=: of NaN, that is so
        u, log_det = uniform_noise(self.make_rng("noise"), level, self.values), self._log_det(y)
        if self.noise is not None:
            u, change = self.noise.forward_and_log_det(u, self._given(level, context))
            u, log_det = within_cell(u, self.values), log_det + change
        return (level + u) / self.values, jnp.where(outside, -math.inf, log_det)

    @nn.nowrap
    def _levels(self, x: Array) -> Array:
        return jnp.clip(jnp.floor(self.values * x), 0, self.values - 1)

    @nn.nowrap
    def _given(self, level: Array, context: Array | None) -> Array:
        """What the noise depends on: the levels, in units of their range, and the context."""
        own = level * (2 / (self.values - 1)) - 1
        if context is None:
            return own
        if self.event_ndim == 3:
            context = context_of_pixels(context, level)
        else:
            context = aligned_context(context, batch_shape(level, 1))
        context = context.astype(own.dtype)
        context = jnp.broadcast_to(context, (*own.shape[:-1], context.shape[-1]))
        return jnp.concatenate([own, context], axis=-1)

    @nn.nowrap
    def _axes(self, y: Array) -> tuple[int, ...]:
        return tuple(range(y.ndim - self.event_ndim, y.ndim))

    @nn.nowrap
    def _log_det(self, y: Array) -> Array:
        size = math.prod(y.shape[y.ndim - self.event_ndim :])
        # The density of what `uniform_noise` draws is a little above one.
        each = math.log1p(-2 * cell_margin(self.values, y)) - math.log(self.values)
        return jnp.full(batch_shape(y, self.event_ndim), size * each, y.dtype)

    @property
    def parts(self) -> tuple[Bijector, ...]:
        return () if self.noise is None else (self.noise,)

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
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().latent_shape(event_shape)
        if self.noise is not None and self.noise.latent_shape(shape) != shape:
            raise ValueError(
                f"Dequantize: noise must keep the shape of events {shape}; got one that makes "
                f"{self.noise.latent_shape(shape)} of it"
            )
        return shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        levels = Integers(0, self.values - 1)
        taken, to = (Interval(), levels) if direction == "forward" else (levels, Interval(0, 1))
        if self.noise is not None:
            cell = Interval(0, 1, source="Dequantize")
            found = self.noise.data_support(cell, event_shape)
            each(lambda part: moved("Dequantize(noise=)", part, cell, cell), found)
        return each(lambda part: moved(type(self).__name__, part, taken, to), support)


def _check_noise(noise: Bijector, event_ndim: int) -> None:
    if not isinstance(noise, Bijector):
        raise TypeError(
            "Dequantize: noise must be a bijector of the unit cube, such as a Coupling of splines "
            f"with tails=None; got {noise!r}"
        )
    kinds = noise.log_det_kind, noise.forward_kind, noise.inverse_kind
    if kinds[0] != "exact" or not {"missing", "random"}.isdisjoint(kinds):
        raise ValueError(
            "Dequantize: noise needs an exact log_det, and both directions; got "
            f"{type(noise).__name__}, whose log_det is {kinds[0]}, forward {kinds[1]} and inverse "
            f"{kinds[2]}"
        )
    if event_ndim not in (1, 3):
        raise ValueError(
            "Dequantize: noise is of vectors or of images, events of 1 or 3 axes; got event_ndim="
            f"{event_ndim}"
        )
