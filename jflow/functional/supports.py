"""Where a side of a bijector lives, and which volume a density on it is of.

The support of an event is one `Support` that holds for each of its entries, or a tuple of them, one
for each entry of the last axis.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Support(ABC):
    """A set of numbers, which holds at least all of the probability.

    Attributes:
      source: which part says so, for errors; it does not count in comparisons.
    """

    source: str = field(default="", compare=False)

    @abstractmethod
    def holds(self, other: "Support") -> bool:
        """Whether all of the other set lies in this one, and its volume is the same."""


@dataclass(frozen=True)
class _Between(Support):
    """Numbers of one kind between two ends."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            name = type(self).__name__
            raise ValueError(f"{name}: low must be below high; got {self.low} and {self.high}")

    def holds(self, other: Support) -> bool:
        """Whether all of the other set is of this kind, and between these ends."""
        if not isinstance(other, _Between) or type(other) is not type(self):
            return False
        return self.low <= other.low and other.high <= self.high


@dataclass(frozen=True)
class Interval(_Between):
    """The numbers between two ends; by default the line. Its volume is length.

    Attributes:
      low: the lower end.
      high: the upper end.

    Raises:
      ValueError: `low` is not below `high`.
    """

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "the line"
        if math.isinf(self.high):
            return f"the numbers above {self.low:g}"
        if math.isinf(self.low):
            return f"the numbers below {self.high:g}"
        return f"[{self.low + 0:g}, {self.high:g}]"  # not -0


@dataclass(frozen=True)
class Circle(Support):
    """Angles, in radians from -pi to pi, whose ends are one point. Its volume is arc length."""

    def __str__(self) -> str:
        return "the circle"

    def holds(self, other: Support) -> bool:
        """Whether the other set is the circle, too: a part of the line is none of it."""
        return isinstance(other, Circle)


@dataclass(frozen=True)
class Integers(_Between):
    """The whole numbers between two ends, both included. Their volume is their number.

    So a density of them is a probability, and log_det is 0 for a bijector that permutes them.

    Attributes:
      low: the lower end.
      high: the upper end.

    Raises:
      ValueError: `low` is not below `high`.
    """

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "the whole numbers"
        return f"the whole numbers from {self.low:g} to {self.high:g}"


Supports: TypeAlias = Support | tuple[Support, ...]


def entries(support: Supports, size: int) -> tuple[Support, ...]:
    """The supports of the entries of a last axis of that size.

    Raises:
      ValueError: there are as many as of another size.
    """
    if isinstance(support, Support):
        return (support,) * size
    if len(support) != size:
        raise ValueError(f"there are {len(support)} supports for {size} entries")
    return support


def joined(parts: Iterable[Support]) -> Supports:
    """The support of an event with these entries."""
    parts = tuple(parts)
    return parts[0] if all(part == parts[0] for part in parts) else parts


def each(function: Callable[[Support], Support], support: Supports) -> Supports:
    """The function of the support of every entry."""
    if isinstance(support, Support):
        return function(support)
    return joined(map(function, support))


def moved(taker: str, given: Support, taken: Support, to: Support) -> Support:
    """Where a part that takes one set, and gives another, brings what is given.

    Raises:
      ValueError: some of it is not taken.
    """
    if not taken.holds(given):
        raise ValueError(
            f"{taker} takes {taken}, and {given.source or 'what is there'} gives {given}: the "
            "density would not integrate to one. Take a base that lives there, or put a "
            "transformer between them that ends there"
        )
    return replace(to, source=taker)


def mixed(taker: str, support: Supports) -> Support:
    """One set that holds the entries in any order.

    Raises:
      ValueError: angles, numbers of the line and whole numbers are mixed.
    """
    parts = (support,) if isinstance(support, Support) else support
    if all(part == parts[0] for part in parts):
        return parts[0]
    kind = next((k for k in (Interval, Integers) if all(isinstance(p, k) for p in parts)), None)
    if kind is None:
        kinds = " and ".join(sorted({str(part) for part in parts}))
        raise ValueError(
            f"{taker} would mix entries of {kinds}: keep them apart, as by an order that is given, "
            "or masks"
        )
    low = min(part.low for part in parts if isinstance(part, kind))
    high = max(part.high for part in parts if isinstance(part, kind))
    return kind(low, high, source=parts[0].source)


def integers_of(support: Supports) -> Integers | None:
    """The whole numbers that hold all entries, if all of them are such; else None."""
    parts = (support,) if isinstance(support, Support) else support
    whole = [part for part in parts if isinstance(part, Integers)]
    if len(whole) < len(parts):
        return None
    return Integers(min(part.low for part in whole), max(part.high for part in whole))


def angles(support: Supports, event_shape: tuple[int, ...]) -> np.ndarray | None:
    """Which entries of an event are angles, (*event); None if none is."""
    size = event_shape[-1] if event_shape else 1
    mask = np.asarray([isinstance(part, Circle) for part in entries(support, size)])
    return np.broadcast_to(mask if event_shape else mask[0], event_shape) if mask.any() else None


def beyond_a_turn(support: Supports, y: ArrayLike, event_shape: tuple[int, ...]) -> Array | bool:
    """Which events (*batch, *event) have angles beyond [-pi, pi], (*batch); False if none can.

    The ends of intervals are left to the transformers and bases, which know them.
    """
    mask = angles(support, event_shape)
    if mask is None:
        return False
    y = jnp.asarray(y)
    far = (jnp.abs(y) > jnp.asarray(math.pi, y.dtype)) & np.broadcast_to(mask, y.shape)
    return jnp.any(far, axis=tuple(range(-len(event_shape), 0)))


def onto(support: Support) -> Callable[[Array], tuple[Array, Array]]:
    """A smooth map of the line onto a support, and the logarithm of its slope."""
    low, high = -math.pi, math.pi
    if not isinstance(support, Circle):
        low, high = support.low, support.high  # type: ignore[attr-defined]
    if math.isinf(low) and math.isinf(high):
        return lambda x: (x, jnp.zeros_like(x))
    if math.isinf(high):
        return lambda x: (low + jax.nn.softplus(x), jax.nn.log_sigmoid(x))
    if math.isinf(low):
        return lambda x: (high - jax.nn.softplus(-x), jax.nn.log_sigmoid(-x))

    def between(x: Array) -> tuple[Array, Array]:
        log_slope = math.log(high - low) + jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)
        return low + (high - low) * jax.nn.sigmoid(x), log_slope

    return between


def back(support: Support) -> Callable[[Array], Array]:
    """The inverse of `onto(support)`; at the ends, and beyond, that of a number near them."""
    low, high = -math.pi, math.pi
    if not isinstance(support, Circle):
        low, high = support.low, support.high  # type: ignore[attr-defined]

    def from_zero(away: Array) -> Array:
        away = jnp.maximum(away, jnp.finfo(away.dtype).eps)
        return away + jnp.log(-jnp.expm1(-away))

    def between(y: Array) -> Array:
        least = jnp.finfo(y.dtype).eps
        share = jnp.clip((y - low) / (high - low), least, 1 - least)
        return jnp.log(share) - jnp.log1p(-share)

    if math.isinf(low) and math.isinf(high):
        return lambda y: y
    if math.isinf(high):
        return lambda y: from_zero(y - low)
    if math.isinf(low):
        return lambda y: -from_zero(high - y)
    return between
