"""A bijector with its directions swapped."""

import flax.linen as nn
from jax import Array

from jflow.bijectors.base import Bijector, Direction, DirectionKind, LogDetKind, image, weakest
from jflow.functional.supports import Supports


class Invert(Bijector):
    """Swaps the directions: `forward` runs the bijector's inverse and the other way round.

    Attributes:
      bijector: the one to invert.
    """

    bijector: Bijector

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self.bijector.inverse_and_log_det(x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self.bijector.forward_and_log_det(y, context)

    def forward(self, x: Array, context: Array | None = None) -> Array:
        return self.bijector.inverse(x, context)

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        return self.bijector.forward(y, context)

    @property
    def parts(self) -> tuple[Bijector, ...]:
        return (self.bijector,)

    @property
    def forward_kind(self) -> DirectionKind:
        return self.bijector.inverse_kind

    @property
    def inverse_kind(self) -> DirectionKind:
        return self.bijector.forward_kind

    @property
    def log_det_kind(self) -> LogDetKind:
        return weakest(self.log_det_kinds)

    @property
    def log_det_kinds(self) -> frozenset[LogDetKind]:
        # What is drawn on the way to the base makes a bound; on the way from it, none.
        drawn: frozenset[LogDetKind] = frozenset(("bound",))
        kinds: frozenset[LogDetKind] = frozenset(("exact",))
        kinds = kinds | (self.bijector.log_det_kinds - drawn)
        return kinds | drawn if self.inverse_kind == "random" else kinds

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return self.bijector.needs_key("inverse" if direction == "forward" else "forward")

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijector.data_shape(event_shape)

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijector.latent_shape(latent_shape)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        other: Direction = "inverse" if direction == "forward" else "forward"
        return image(self.bijector, other, support, self.latent_shape(event_shape))
