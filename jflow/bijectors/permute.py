"""Fixed rearrangements of the last axis."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.bijectors.base import Bijector, Direction
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_number, no_log_det, permute
from jflow.functional.supports import Supports, entries, joined, mixed


class Permute(Bijector):
    """Rearranges the last axis: forward y[..., i] = x[..., order[i]]. log_det is 0.

    Integers stay such.

    Attributes:
      order: the permutation, or None for a random one, drawn when the parameters are
        initialised and kept in the collection "constants". In `Repeat`, each layer draws its own.
      event_ndim: how many trailing axes are the event; 1 or more.
      halves: whether the random order exchanges the halves: what is among the first features // 2
        leaves them. Between couplings of mask "half", every feature is then transformed by one of
        any two, which an order without this does not do.

    Raises:
      ValueError: `order` is not a permutation, has not the size of the last axis, or is given
        with `halves`.
    """

    order: tuple[int, ...] | None = None
    event_ndim: int = 1
    halves: bool = False

    def __post_init__(self) -> None:
        check_counts("Permute", event_ndim=self.event_ndim)
        if self.halves and self.order is not None:
            raise ValueError("Permute: halves=True draws a random order; got an order as well")
        if self.order is not None:
            order = tuple(int(i) for i in self.order)
            if sorted(order) != list(range(len(order))):
                raise ValueError(f"Permute: order must be a permutation of 0..n-1; got {order}")
            object.__setattr__(self, "order", order)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._rearranged(x, inverse=False)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._rearranged(y, inverse=True)

    @nn.compact
    def _rearranged(self, x: Array, *, inverse: bool) -> tuple[Array, Array]:
        x = as_number(x)
        log_det = no_log_det(x, self.event_ndim)
        if self.order is not None:
            self.latent_shape(x.shape[x.ndim - self.event_ndim :])
            order = np.asarray(self.order)
            return permute(x, np.argsort(order) if inverse else order), log_det
        order = self.variable(
            "constants", "order", lambda: self._drawn(self.make_rng(), x.shape[-1])
        ).value
        return permute(x, jnp.argsort(order) if inverse else order), log_det

    @nn.nowrap
    def _drawn(self, key: Array, size: int) -> Array:
        if not self.halves:
            return jax.random.permutation(key, size)
        first, second = jax.random.split(key)
        few = jax.random.permutation(first, size // 2)
        many = size // 2 + jax.random.permutation(second, size - size // 2)
        # Into the first half go as many of the second; the rest, one if size is odd, stays there.
        return jnp.concatenate([many[: size // 2], few, many[size // 2 :]])

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        if self.order is not None and len(self.order) != event_shape[-1]:
            raise ValueError(
                f"Permute: order has {len(self.order)} entries; the event shape is {event_shape}"
            )
        return event_shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        if self.order is None:
            return mixed("Permute in a random order", support)
        order = self.order if direction == "forward" else np.argsort(self.order).tolist()
        parts = entries(support, len(order))
        return joined(parts[i] for i in order)


class Reverse(Bijector):
    """Reverses the last axis. log_det is 0. Integers stay such.

    Attributes:
      event_ndim: how many trailing axes are the event; 1 or more.
    """

    event_ndim: int = 1

    def __post_init__(self) -> None:
        check_counts("Reverse", event_ndim=self.event_ndim)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_number(x)
        return jnp.flip(x, axis=-1), no_log_det(x, self.event_ndim)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self.forward_and_log_det(y)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return support if not isinstance(support, tuple) else support[::-1]
