"""More numbers on the base side than the data have."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, DirectionKind, LogDetKind
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, sum_event
from jflow.functional.supports import Interval, Supports, entries, joined
from jflow.nets.layers import check_factory

_LOG_TWO_PI = 1.8378770664093453


class Augment(Bijector):
    """Numbers e of noise beside those of y, so that a flow has more room: x = (y, e).

        inverse   x = (y, e), e drawn from q(e | y);  log_det = -log q(e | y)
        forward   y, of x = (y, e);                   log_det = log q(e | y)

    q is N(m, exp(2 s)), with m and s of a network of y, or N(0, 1) without one. log p(x) + log_det
    is, in the mean over e, at most log p(y), and the mean of its exponential is p(y). Paths that
    may not cross in few dimensions can pass each other in more.

    `inverse` draws from the RNG stream "noise" (a density asks for a key).

    Attributes:
      size: how many numbers, at the end of the last axis; of images, channels.
      net: makes the network of m and s; see `jflow.nets`. None for N(0, 1).
      event_ndim: 1 for vectors, 3 for images.

    Raises:
      TypeError: `net` is a network, where what makes them is wanted, or makes other ones.
      ValueError: a number out of range; (on call) inverse without the stream "noise".

    References: Dupont et al., 2019, https://arxiv.org/abs/1904.01681; Huang et al., 2020,
    https://arxiv.org/abs/2002.07101; Chen et al., 2020, https://arxiv.org/abs/2002.09741
    """

    size: int
    net: Callable[[int], nn.Module] | None = None
    event_ndim: int = 1

    def __post_init__(self) -> None:
        check_counts("Augment", size=self.size)
        if self.net is not None:
            check_factory("Augment", self.net, event_ndim=self.event_ndim)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        y, e = x[..., : -self.size], x[..., -self.size :]
        middle, log_scale = self._law(y, context)
        return y, self._log_q((e - middle) * jnp.exp(-log_scale), log_scale)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        if not (self.has_rng("noise") or self.is_initializing()):
            raise ValueError("Augment: inverse draws noise; give apply rngs={'noise': key}")
        y = as_wide(y)
        middle, log_scale = self._law(y, context)
        e = jax.random.normal(self.make_rng("noise"), middle.shape, y.dtype)
        x = jnp.concatenate([y, middle + jnp.exp(log_scale) * e], axis=-1)
        return x, -self._log_q(e, log_scale)

    @nn.compact
    def _law(self, y: Array, context: Array | None) -> tuple[Array, Array]:
        """The mean and the log standard deviation of e."""
        if self.net is None:
            lost = jnp.isnan(y).any(axis=-1, keepdims=True)
            none = jnp.where(lost, jnp.nan, jnp.zeros((*y.shape[:-1], self.size), y.dtype))
            return none, none
        law = as_wide(self.net(2 * self.size).copy(name="net")(y, context))
        middle, raw = jnp.split(law, 2, axis=-1)
        return middle, 3 * jnp.tanh(raw / 3)

    @nn.nowrap
    def _log_q(self, e: Array, log_scale: Array) -> Array:
        return sum_event(-jnp.square(e) / 2 - log_scale - _LOG_TWO_PI / 2, self.event_ndim)

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
        super().latent_shape(event_shape)
        return (*event_shape[:-1], event_shape[-1] + self.size)

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(latent_shape)
        if latent_shape[-1] <= self.size:
            raise ValueError(
                f"Augment: forward drops {self.size} numbers of the last axis; got {latent_shape}"
            )
        return (*latent_shape[:-1], latent_shape[-1] - self.size)

    @nn.nowrap
    def data_support(self, support: Supports, event_shape: tuple[int, ...]) -> Supports:
        own = entries(support, event_shape[-1] + self.size)
        for part in own[event_shape[-1] :]:
            if not part.holds(Interval()):
                raise ValueError(
                    f"Augment: its noise is on all of the line, and {part.source or 'the base'} "
                    f"gives {part}: almost no draw would be there. Take a base on the line, or put "
                    "a transformer between them that ends there"
                )
        return joined(own[: event_shape[-1]])

    @nn.nowrap
    def latent_support(self, support: Supports, event_shape: tuple[int, ...]) -> Supports:
        return joined((*entries(support, event_shape[-1]), *(Interval(),) * self.size))
