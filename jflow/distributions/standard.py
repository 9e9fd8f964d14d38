"""Bases without parameters."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jflow.functional.arrays import sum_event
from jflow.functional.supports import Interval, Supports, joined


@dataclass(frozen=True)
class StandardNormal:
    """Independent standard normals: log p(x) = -|x|^2 / 2 - D log(2 pi) / 2."""

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        return LocationScale.standard("Normal", event_shape, dtype)


@dataclass(frozen=True)
class StandardLogistic:
    """Independent standard logistics: log p(x) = sum of -x - 2 log(1 + e^-x) (NICE, eq. 3.3)."""

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        return LocationScale.standard("Logistic", event_shape, dtype)


@dataclass(frozen=True)
class StandardUniform:
    """Independent uniforms on [0, 1]: log p(x) is 0 inside, and -inf outside."""

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        return _Box(jnp.zeros(event_shape, dtype), jnp.ones(event_shape, dtype))

    def support(self, event_shape: tuple[int, ...]) -> Supports:
        """The unit interval."""
        return Interval(0.0, 1.0, source="StandardUniform")


@dataclass(frozen=True)
class BoxUniform:
    """Independent uniforms on [low, high]: log p(x) = -sum log(high - low), -inf outside.

    Attributes:
      low: the lower end: a number, or a tuple with one for each entry of the event's last axis.
      high: the upper end, likewise.

    Raises:
      ValueError: `low` is not below `high`, an end is not finite, or (on call) the tuples do not
        have one entry for each feature, or an interval has no width in the dtype.
    """

    low: float | tuple[float, ...] = 0.0
    high: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            many = np.ndim(value) > 0
            object.__setattr__(self, name, tuple(map(float, value)) if many else float(value))
        sizes = {len(end) for end in (self.low, self.high) if isinstance(end, tuple)}
        if len(sizes) > 1:
            raise ValueError(
                f"BoxUniform: low and high must have equal lengths; got {self.low} and {self.high}"
            )
        size = max(sizes, default=1)
        for low, high in zip(_repeat(self.low, size), _repeat(self.high, size), strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"BoxUniform: low must be below high; got {low} and {high}")

    def support(self, event_shape: tuple[int, ...]) -> Supports:
        """The box."""
        self._check(event_shape)
        size = max(len(end) if isinstance(end, tuple) else 1 for end in (self.low, self.high))
        ends = zip(_repeat(self.low, size), _repeat(self.high, size), strict=True)
        return joined(Interval(*pair, source="BoxUniform") for pair in ends)

    def _check(self, event_shape: tuple[int, ...]) -> None:
        for name, end in (("low", self.low), ("high", self.high)):
            if isinstance(end, tuple) and event_shape[-1:] != (len(end),):
                raise ValueError(
                    f"BoxUniform: {name} has {len(end)} entries; the event shape is "
                    f"{event_shape}. Give a number, or one entry for each feature"
                )

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        self._check(event_shape)
        with np.errstate(over="ignore"):
            width = np.asarray(self.high, dtype) - np.asarray(self.low, dtype)
        if not np.all((width > 0) & np.isfinite(width)):
            raise ValueError(
                f"BoxUniform: high - low must be positive and finite in {jnp.dtype(dtype)}; got "
                f"{self.low} and {self.high}"
            )
        low, high = (jnp.asarray(end, dtype) for end in (self.low, self.high))
        return _Box(jnp.broadcast_to(low, event_shape), jnp.broadcast_to(high, event_shape))


def _repeat(end: float | tuple[float, ...], size: int) -> tuple[float, ...]:
    return end if isinstance(end, tuple) else (end,) * size


@dataclass(frozen=True)
class _Box:
    """Independent uniforms; low and high are (*event)."""

    low: Array
    high: Array

    def sample(self, *, seed: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        u = jax.random.uniform(seed, (*sample_shape, *self.low.shape), self.low.dtype)
        # Rounding must not carry a sample past the upper end, where its log_prob is -inf.
        return jnp.minimum(self.low + u * (self.high - self.low), self.high)

    def log_prob(self, x: Array) -> Array:
        outside = (x < self.low) | (x > self.high)
        each = jnp.where(outside, -jnp.inf, -jnp.log(self.high - self.low))
        each = jnp.where(jnp.isnan(x), jnp.nan, each)
        return sum_event(each.astype(x.dtype), self.low.ndim)

    def mean(self) -> Array:
        return self.low / 2 + self.high / 2


@dataclass(frozen=True)
class LocationScale:
    """Independent members of a family of Distrax's, of these locations and scales.

    Attributes:
      family: "Normal" or "Logistic".
      loc: where they are symmetric about, (*batch, *event).
      scale: their widths, of a shape that broadcasts with `loc`.
      event_ndim: how many trailing axes are the event.
    """

    family: str
    loc: Array
    scale: Array
    event_ndim: int

    @classmethod
    def standard(
        cls, family: str, event_shape: tuple[int, ...], dtype: DTypeLike
    ) -> "LocationScale":
        """Around 0, of scale 1."""
        zeros, ones = jnp.zeros(event_shape, dtype), jnp.ones(event_shape, dtype)
        return cls(family, zeros, ones, len(event_shape))

    def _independent(self) -> Any:
        import distrax  # on demand everywhere here: it takes as long to import as JAX

        each = getattr(distrax, self.family)(self.loc, self.scale)
        return distrax.Independent(each, reinterpreted_batch_ndims=self.event_ndim)

    def sample(self, *, seed: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return self._independent().sample(seed=seed, sample_shape=sample_shape)

    def log_prob(self, x: Array) -> Array:
        log_prob = self._independent().log_prob(x)
        # Distrax's logistic has NaN at infinity.
        axes = tuple(range(-self.event_ndim, 0))
        return jnp.where(
            jnp.any(jnp.isinf(x), axes) & ~jnp.any(jnp.isnan(x), axes), -jnp.inf, log_prob
        )

    def mean(self) -> Array:
        return self.loc

    def tempered(self, temperature: float | Array) -> "LocationScale":
        """The same locations, with scaled widths."""
        return replace(self, scale=self.scale * temperature)
