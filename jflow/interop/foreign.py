"""Layers that another library computes."""

import math
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors import Bijector
from jflow.bijectors.base import Direction
from jflow.functional.supports import Support, Supports, each, moved, onto


class Opaque:
    """Something of another library, equal to itself alone: so a flow that has it can be hashed.

    Attributes:
      held: the thing.
    """

    def __init__(self, held: Any) -> None:
        self.held = held

    def __repr__(self) -> str:
        return type(self.held).__name__


class Foreign(Bijector):
    """A bijector of another library.

    Attributes:
      opaque: holds it.
      sides: where x and y live.
      event_ndim: axes of an event.
    """

    opaque: Opaque
    sides: tuple[Support, Support]
    event_ndim: int = 1

    @nn.nowrap
    def _guarded(self, direction: Direction, x: Array) -> tuple[Array, Array]:
        """x with what lies outside of its side replaced, and which events (*batch) that was in."""
        support = self.sides[0 if direction == "forward" else 1]
        low, high = getattr(support, "low", -math.inf), getattr(support, "high", math.inf)
        outside = (x <= low) | (x >= high)
        stand_in, _ = onto(support)(jnp.zeros_like(x))
        axes = tuple(range(x.ndim - self.event_ndim, x.ndim))
        return jnp.where(outside, stand_in, x), jnp.any(outside, axis=axes)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        x, y = self.sides
        taken, to = (x, y) if direction == "forward" else (y, x)
        name = repr(self.opaque)
        return each(lambda part: moved(name, part, taken, to), support)


def check_sides(owner: str, supports: Any) -> None:
    """Refuses what is not a support of x and one of y, each for all entries.

    Raises:
      TypeError: naming the owner.
    """
    if supports is None:
        return
    if not (len(supports) == 2 and all(isinstance(side, Support) for side in supports)):
        raise TypeError(
            f"{owner}: supports must be (of x, of y), one Support each, for all entries; got "
            f"{supports!r:.100}. Of entries that live elsewhere, make layers of their own"
        )


def settled(
    direction: Direction, x: Array, y: Array, log_det: Array, outside: Array, event_ndim: int
) -> tuple[Array, Array]:
    """y and log_det (*batch), which is -inf of events outside, or that have no inverse."""
    if direction == "inverse":
        axes = tuple(range(x.ndim - event_ndim, x.ndim))
        real = jnp.all(jnp.isfinite(y), axis=axes) & ~jnp.isnan(log_det)
        lost = ~real & jnp.all(jnp.isfinite(x), axis=axes)
        y = jnp.where(lost.reshape(lost.shape + (1,) * event_ndim), 0, y)
        outside = outside | lost
    return y, jnp.where(outside, -jnp.inf, log_det)


def summed(log_det: Array, x: Array, own_ndim: int, event_ndim: int) -> Array:
    """log_det of a bijector of events of `own_ndim` axes, summed over those of `event_ndim`."""
    each = jnp.broadcast_to(log_det, x.shape[: x.ndim - own_ndim])
    return jnp.sum(each, axis=tuple(range(x.ndim - event_ndim, each.ndim)))


def supports_in(parts: Iterable[tuple[Support, Support]]) -> tuple[Support, Support]:
    """Where a chain's first part takes numbers from, and where its last part brings them.

    Raises:
      ValueError: a part does not take all that the part before gives.
    """
    (first, reached), *others = parts
    for x, y in others:
        reached = moved("a part of the chain", reached, x, y)
    return first, reached
