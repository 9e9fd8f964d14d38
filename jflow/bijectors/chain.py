"""Composition of different bijectors."""

import flax.linen as nn
from jax import Array

from jflow.bijectors.base import Bijector, Direction, check_distinct, image
from jflow.bijectors.memory import Memory, check_memory, kept
from jflow.bijectors.reversible import run_reversible
from jflow.bijectors.values import Method, run, with_log_det
from jflow.functional.supports import Supports


class Chain(Bijector):
    """Composition, written from data to base like a∘b∘c: y = a(b(c(x))).

    `inverse` runs a, b, c and `forward` runs c, b, a; the log_dets add. Every part needs its
    own instance: one instance used twice would share its parameters.

    Attributes:
      bijectors: the parts, the one nearest to the data first.
      memory: what the backward pass needs of each part is kept ("store"), or computed a second
        time from the part's input ("remat") or output ("reversible"); see `Repeat`.

    Raises:
      ValueError: no parts, one instance given twice (or inside of two parts), an unknown `memory`
        or parts that it does not fit, or parts that disagree on which axes are batch (their
        log_dets would broadcast silently).
    """

    bijectors: tuple[Bijector, ...]
    memory: Memory = "store"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bijectors", tuple(self.bijectors))
        if not self.bijectors:
            raise ValueError("Chain: bijectors must hold one bijector or more; got none")
        check_distinct("Chain", self.bijectors)
        check_memory("Chain", self.memory, self)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("forward_and_log_det", self.bijectors[::-1], x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("inverse_and_log_det", self.bijectors, y, context)

    def forward(self, x: Array, context: Array | None = None) -> Array:
        return self._run("forward", self.bijectors[::-1], x, context)[0]

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        return self._run("inverse", self.bijectors, y, context)[0]

    def _run(
        self, method: Method, parts: tuple[Bijector, ...], x: Array, context: Array | None
    ) -> tuple[Array, Array]:
        if self.memory == "reversible" and not self.is_initializing():
            return run_reversible(self, self, with_log_det(method), x, context)
        call = kept(self.memory, run, static_argnums=1)
        x, total = call(parts[0], method, x, context)
        for part in parts[1:]:
            x, log_det = call(part, method, x, context)
            if log_det.shape != total.shape:
                raise ValueError(
                    f"Chain: {type(parts[0]).__name__} has log_det shape {total.shape} and "
                    f"{type(part).__name__} has {log_det.shape}; give all parts the same "
                    "event axes (event_ndim)"
                )
            total = total + log_det
        return x, total

    @property
    def parts(self) -> tuple[Bijector, ...]:
        return self.bijectors

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        for part in self.bijectors:
            event_shape = part.latent_shape(event_shape)
        return event_shape

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        for part in reversed(self.bijectors):
            latent_shape = part.data_shape(latent_shape)
        return latent_shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        steps = []
        for part in self.bijectors:
            steps.append((part, event_shape))
            event_shape = part.latent_shape(event_shape)
        for part, shape in steps if direction == "inverse" else reversed(steps):
            support = image(part, direction, support, shape)
        return support

    @nn.nowrap
    def steps(self) -> tuple[tuple[tuple[str, ...], Bijector], ...]:
        return tuple(
            ((f"bijectors_{i}", *path), step)
            for i, part in enumerate(self.bijectors)
            for path, step in part.steps()
        )

    @nn.nowrap
    def latent_levels(self, x: Array) -> tuple[Array, ...]:
        for part in reversed(self.bijectors):
            levels = part.latent_levels(x)
            if len(levels) > 1 or not part.in_place:
                return levels
        return (x,)
