"""Layers that another library computes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Direction
from jflow.bijectors.one_method import OneMethod
from jflow.functional.supports import Interval, Support, Supports, each, moved, onto


class Opaque:
    """Something of another library, equal to itself alone: so a flow that has it can be hashed.

    Attributes:
      held: the thing.
    """

    def __init__(self, held: Any) -> None:
        self.held = held

    def __repr__(self) -> str:
        return type(self.held).__name__


class Foreign(OneMethod):
    """A bijector of another library: a subclass defines `_run`.

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


LINE, POSITIVE, UNIT = Interval(), Interval(0.0, math.inf), Interval(0.0, 1.0)
Sides = tuple[Support, Support]


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


def check_event_ndim(least: int, most: int, event_ndim: int) -> None:
    """Refuses a bijector that takes events of so many axes to such of so many, in other events.

    Raises:
      ValueError: it changes their number, or takes more than there are.
    """
    if not least == most <= event_ndim:
        raise ValueError(
            f"from_bijector: events have {event_ndim} axes; the bijector takes events of {least} "
            f"axes to such of {most}"
        )


def known_sides(bijector: Any, on_line: Iterable[str], others: Mapping[str, Sides]) -> Sides:
    """Where a bijector takes numbers from, and to, by the name of its class.

    Raises:
      ValueError: that is not known.
    """
    name = type(bijector).__name__
    if name in on_line:
        return LINE, LINE
    if name not in others:
        raise ValueError(
            f"from_bijector: where {name} takes numbers from, and to, is not known; say so by "
            "supports=(of x, of y), such as (Interval(), Interval(0.0, math.inf))"
        )
    return others[name]


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


def supports_in(parts: Iterable[Sides]) -> Sides:
    """Where a chain's first part takes numbers from, and where its last part brings them.

    Raises:
      ValueError: a part does not take all that the part before gives.
    """
    (first, reached), *others = parts
    for x, y in others:
        reached = moved("a part of the chain", reached, x, y)
    return first, reached
