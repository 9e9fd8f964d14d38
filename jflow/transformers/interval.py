"""What transforms of an interval share: their ends, and what happens beyond them."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array

from jflow.functional.arrays import pinned
from jflow.transformers.base import Transformer


@dataclass(frozen=True, kw_only=True)
class OnInterval(Transformer):
    """An increasing map of an interval onto itself.

    Subclasses define `_on_unit` and `_on_unit_inverse`, which map [0, 1] onto itself.

    Attributes:
      bound: with linear tails, the interval is [-bound, bound].
      tails: "linear" for the identity outside of the interval, so that the domain is the whole
        line; None for the interval [0, 1] and nothing outside.
    """

    bound: float = 5.0
    tails: Literal["linear"] | None = "linear"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 < self.bound < math.inf:
            raise ValueError(f"{name}: bound must be positive and finite; got {self.bound}")
        if self.tails not in ("linear", None):
            raise ValueError(f"{name}: tails must be 'linear' or None; got {self.tails!r}")

    @property
    def domain(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.tails is None else (-math.inf, math.inf)

    @property
    def codomain(self) -> tuple[float, float]:
        return self.domain

    @property
    def closed(self) -> bool:
        return self.tails is None

    def saturated(self, x: Array, params: Array) -> Array | None:
        return None if self.tails is None else jnp.abs(x) >= self.bound

    @abstractmethod
    def _on_unit(self, x: Array, params: Array) -> tuple[Array, Array]: ...

    @abstractmethod
    def _on_unit_inverse(self, y: Array, params: Array) -> tuple[Array, Array]: ...

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        if self.tails is None:
            return _onto_unit(x, *self._on_unit(x, params))
        inside, unit = self._to_unit(x)
        y, log_det = self._on_unit(unit, params)
        return jnp.where(inside, self._from_unit(y), x), jnp.where(inside, log_det, 0)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        if self.tails is None:
            return _onto_unit(y, *self._on_unit_inverse(y, params))
        inside, unit = self._to_unit(y)
        x, log_det = self._on_unit_inverse(unit, params)
        return jnp.where(inside, self._from_unit(x), y), jnp.where(inside, log_det, 0)

    def _to_unit(self, x: Array) -> tuple[Array, Array]:
        """Whether x is inside, and its place in [0, 1]: the middle for those outside."""
        inside = jnp.abs(x) < self.bound
        return inside, jnp.where(inside, x, 0) / (2 * self.bound) + 0.5

    def _from_unit(self, x: Array) -> Array:
        return 2 * self.bound * (x - 0.5)


def _onto_unit(x: Array, y: Array, log_det: Array) -> tuple[Array, Array]:
    """y, the image of x, without rounding errors: in [0, 1], and at its ends where x is."""
    return pinned(y, x), log_det


def check_bins(name: str, bins: int, least: int, minimum: float) -> None:
    """Refuses too few bins, and minimum shares that do not fit.

    Raises:
      ValueError: one of these.
    """
    if bins < least:
        raise ValueError(f"{name}: bins must be {least} or more; got {bins}")
    if not 0 < minimum * bins < 1:
        raise ValueError(
            f"{name}: minimum, the least share of a bin, must be in (0, 1 / bins); got {minimum} "
            f"with {bins} bins"
        )
