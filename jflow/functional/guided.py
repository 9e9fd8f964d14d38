"""Guidance of causal networks: towards their context, and beyond."""

from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jflow.functional.autoregressive import BlockStep, Causal, Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guided(Causal):
    """p_i = w p_i(context) + (1 - w) p_i(none): of a network with its context, and without.

    Attributes:
      known: the network, given the context.
      unknown: the same, not given it.
      weight: w.
    """

    known: Causal
    unknown: Causal
    weight: float = field(metadata={"static": True})

    @property
    def event_ndim(self) -> int:  # type: ignore[override]
        """That of the network."""
        return self.known.event_ndim

    @property
    def remembers(self) -> bool:  # type: ignore[override]
        """Whether the network does."""
        return self.known.remembers

    def __call__(self, u: Array) -> Any:
        return self._joined(self.known(u), self.unknown(u))

    def careful(self, u: Array) -> Any:
        return self._joined(self.known.careful(u), self.unknown.careful(u))

    def without_dropout(self) -> "Guided":
        known, unknown = (net.without_dropout() for net in (self.known, self.unknown))
        return Guided(known, unknown, self.weight)

    def start(self, like: Array) -> tuple[Any, Step]:
        return self._together(*(net.start(like) for net in (self.known, self.unknown)))

    def start_blocks(self, like: Array, size: int) -> tuple[Any, BlockStep]:
        return self._together(*(net.start_blocks(like, size) for net in (self.known, self.unknown)))

    def _together(self, *started: tuple[Any, Step]) -> tuple[Any, Step]:
        caches, steps = zip(*started, strict=True)

        def step(caches: Any, i: Array, given: Array) -> Any:
            pairs = [one(c, i, given) for one, c in zip(steps, caches, strict=True)]
            caches, params = zip(*pairs, strict=True)
            return caches, self._joined(*params)

        return caches, step

    def _joined(self, known: Any, unknown: Any) -> Any:
        w = self.weight
        return jax.tree.map(lambda a, b: w * a + (1 - w) * b, known, unknown)
