"""Maps that forget a sign, or which of four pixels is the largest, and learn to draw it."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, DirectionKind
from jflow.bijectors.reshape import Squeeze
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, batch_shape, sum_event
from jflow.functional.supports import Interval, Supports, back, each, moved, onto
from jflow.nets.layers import check_factory

_POSITIVE = Interval(0, math.inf)


class AbsoluteValue(Bijector):
    """Forgets signs: data on the line to base numbers above 0.

        inverse   x = |y|;                        log_det = sum log p(sign(y) | x, context)
        forward   y = s x, with s drawn from p;   log_det = -sum log p(s | x, context)

    So inverse(forward(x)) = x, but forward(inverse(y)) may have other signs. Log-likelihoods are
    exact. It suits data that are symmetric, or nearly so. The base side lives above 0, as behind
    `Elementwise(Softplus())`; forward needs the RNG stream "noise" (`Density.sample` gives it).

    Attributes:
      net: makes the network of the logits of positive signs; see `jflow.nets`. None for 1/2 each.
      event_ndim: 1 for vectors, 3 for images.

    Raises:
      TypeError: `net` is a network, where what makes them is wanted, or makes other ones.
      ValueError: `event_ndim` is no count; or forward without the stream "noise".

    Reference: Nielsen et al., SurVAE flows, 2020, table 2, https://arxiv.org/abs/2007.02731
    """

    net: Callable[[int], nn.Module] | None = None
    event_ndim: int = 1

    def __post_init__(self) -> None:
        check_counts("AbsoluteValue", event_ndim=self.event_ndim)
        if self.net is not None:
            check_factory("AbsoluteValue", self.net, event_ndim=self.event_ndim)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        logits = self._logits(x, context)
        _check_noise(self)
        positive = jnp.ones(x.shape, bool)
        if not self.is_initializing():
            positive = jax.random.bernoulli(self.make_rng("noise"), jax.nn.sigmoid(logits))
        log_det = -self._log_share(positive, logits)
        outside = jnp.any(x < 0, axis=tuple(range(-self.event_ndim, 0)))
        return jnp.where(positive, x, -x), jnp.where(outside, -math.inf, log_det)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_wide(y)
        return jnp.abs(y), self._log_share(y >= 0, self._logits(jnp.abs(y), context))

    @nn.compact
    def _logits(self, x: Array, context: Array | None) -> Array:
        if self.net is None:
            return jnp.zeros_like(x)
        net: Any = self.net(x.shape[-1]).copy(name="signs")
        return as_wide(net(x, context)).astype(x.dtype)

    @nn.nowrap
    def _log_share(self, positive: Array, logits: Array) -> Array:
        return sum_event(jax.nn.log_sigmoid(jnp.where(positive, logits, -logits)), self.event_ndim)

    @property
    def forward_kind(self) -> DirectionKind:
        return "random"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return direction == "forward"

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        taken, to = (_POSITIVE, Interval()) if direction == "forward" else (Interval(), _POSITIVE)
        return each(lambda part: moved("AbsoluteValue", part, taken, to), support)


class MaxPool(Bijector):
    """Parts blocks of 2 x 2 pixels: data (H, W, C) to base (H/2, W/2, 4 C).

    The first C channels of the base side are the largest number of each block, a coarse image, the
    others, in the order of reading, say by how much the other three are below, through the inverse
    of softplus. Which of the four is the largest is forgotten, and drawn uniformly by forward:

        inverse   x = (max y, softplus^-1(max y - y'));  log_det = -n log 4 + the sum of
                                                         log|dx/dy|, n = C H W / 4

    So inverse(forward(x)) = x, but forward(inverse(y)) may have other pixels in front.
    Log-likelihoods are exact. A `MultiScale` whose level ends here keeps the coarse image. forward
    needs the RNG stream "noise" (`Density.sample` gives it).

    Raises:
      ValueError: an odd height or width; (base side) channels that 4 does not divide; or forward
        without the stream "noise".

    Reference: Nielsen et al., SurVAE flows, 2020, table 2, https://arxiv.org/abs/2007.02731
    """

    event_ndim = 3

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        self.data_shape(x.shape[-3:])
        _check_noise(self)
        most, rest = jnp.split(x.reshape(*x.shape[:-1], 4, x.shape[-1] // 4), [1], axis=-2)
        gaps, log_slope = onto(_POSITIVE)(rest)
        place = jnp.zeros(most.shape, jnp.int32)
        if not self.is_initializing():
            place = jax.random.randint(self.make_rng("noise"), most.shape, 0, 4, jnp.int32)
        # Of four numbers with the largest in front, that one moves to its place.
        others = most - gaps
        at = jnp.arange(4, dtype=jnp.int32).reshape((1,) * (x.ndim - 1) + (4, 1))
        before = jnp.concatenate([others, most], axis=-2)
        after = jnp.concatenate([most, others], axis=-2)
        block = jnp.where(at == place, most, jnp.where(at < place, before, after))
        y, _ = Squeeze(2, parent=None).forward_and_log_det(block.reshape(x.shape))
        return y, self._log_places(x) + sum_event(log_slope, 4)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        self.latent_shape(y.shape[-3:])
        block, _ = Squeeze(2, parent=None).inverse_and_log_det(as_wide(y))
        parts = block.reshape(*block.shape[:-1], 4, block.shape[-1] // 4)
        most = jnp.max(parts, axis=-2, keepdims=True)
        place = jnp.argmax(parts, axis=-2, keepdims=True)
        at = jnp.arange(3, dtype=place.dtype).reshape((1,) * (block.ndim - 1) + (3, 1))
        others = jnp.where(at < place, parts[..., :3, :], parts[..., 1:, :])
        rest = back(_POSITIVE)(most - others)
        x = jnp.concatenate([most, rest], axis=-2).reshape(block.shape)
        log_slope = onto(_POSITIVE)(rest)[1]
        return x, -self._log_places(x) - sum_event(log_slope, 4)

    @nn.nowrap
    def _log_places(self, x: Array) -> Array:
        blocks = math.prod(x.shape[-3:]) // 4
        return jnp.full(batch_shape(x, 3), blocks * math.log(4), x.dtype)

    @property
    def forward_kind(self) -> DirectionKind:
        return "random"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return direction == "forward"

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        height, width, channels = event_shape
        if height % 2 or width % 2:
            raise ValueError(f"MaxPool: height and width must be even; got {event_shape}")
        return height // 2, width // 2, 4 * channels

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(latent_shape)
        height, width, channels = latent_shape
        if channels % 4:
            raise ValueError(f"MaxPool: forward needs channels that 4 divides; got {latent_shape}")
        return 2 * height, 2 * width, channels // 4


def _check_noise(layer: Bijector) -> None:
    if not (layer.has_rng("noise") or layer.is_initializing()):
        raise ValueError(
            f"{type(layer).__name__}: forward draws one of several points; use sample, or give "
            "apply rngs={'noise': key}"
        )
