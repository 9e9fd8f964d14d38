"""What a transformer is: a scalar bijection whose parameters are given to it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.functional.roots import tolerance
from jflow.functional.supports import Interval, Support

LogDetKind = Literal["exact", "unbiased", "bound", "biased"]
DirectionKind = Literal["closed form", "iterative", "random", "missing"]


@dataclass(frozen=True)
class Transformer(ABC):
    """A strictly monotone scalar function y = f(x; params), applied elementwise.

    `x` is (...), `params` is (..., num_params), both results are (...): the value, and
    log|df/dx| (forward) or log|df^-1/dy| (inverse), in nats. Where leading axes differ, they
    broadcast. With `params` zero, a transformer that has parameters is the identity or close to it.

    A point outside the interval `domain` (forward) or `codomain` (inverse), open unless `closed`,
    has no image: its value is that of some point inside, its log-derivative is -inf, and their
    gradients by x are zero. NaN stays NaN. A value that rounding puts on an open end is the
    number next to it, so that what comes out can go back.

    To write one, subclass as a frozen dataclass, set `num_params`, and define `_forward` and
    `_inverse`, which see interior points (and NaN) only; for bounded ones, `domain`, `codomain`.
    """

    @property
    @abstractmethod
    def num_params(self) -> int:
        """How many parameters each scalar takes."""

    @property
    def domain(self) -> tuple[float, float]:
        """The interval of x."""
        return (-math.inf, math.inf)

    @property
    def codomain(self) -> tuple[float, float]:
        """The interval of y."""
        return (-math.inf, math.inf)

    @property
    def closed(self) -> bool:
        """Whether the ends of `domain` and `codomain` belong to them."""
        return False

    @property
    def supports(self) -> tuple[Support, Support]:
        """Where x and y live: the intervals above, if not the circle."""
        return Interval(*self.domain), Interval(*self.codomain)

    @property
    def tolerance(self) -> float:
        """Where an iterative direction stops, in float32; 0 if both are closed form.

        It is relative to 1 + |u|, where u is the variable solved for: x itself, or its place in an
        interval of size 1.
        """
        kinds = {self.forward_kind, self.inverse_kind}
        return 0.0 if kinds == {"closed form"} else tolerance(jnp.float32)

    @property
    def log_det_kind(self) -> LogDetKind:
        """What the log-derivative is; see `Bijector.log_det_kind`."""
        return "exact"

    @property
    def forward_kind(self) -> DirectionKind:
        """How forward is computed; see `Bijector.forward_kind`."""
        return "closed form"

    @property
    def inverse_kind(self) -> DirectionKind:
        """How the inverse is computed; see `Bijector.inverse_kind`."""
        return "closed form"

    def saturated(self, x: Array, params: Array) -> Array | None:
        """Where a scalar has left the range in which this transform can bend it; else None.

        (...) of booleans: a bounded scale within 5 % of its bound, an x beyond the ends of a
        spline. Where many are, a wider bound would fit better. x may be of either side.
        """
        return None

    def forward_and_log_det(self, x: Array, params: Array) -> tuple[Array, Array]:
        """y = f(x) and log|df/dx|."""
        x, params = _matched(x, params)
        inside, outside = _interior(x, *self.domain, self.closed)
        y, log_det = self._forward(inside, params)
        return _off_ends(y, *self.codomain, self.closed), _impossible(log_det, outside)

    def inverse_and_log_det(self, y: Array, params: Array) -> tuple[Array, Array]:
        """x = f^-1(y) and log|df^-1/dy|."""
        y, params = _matched(y, params)
        inside, outside = _interior(y, *self.codomain, self.closed)
        x, log_det = self._inverse(inside, params)
        return _off_ends(x, *self.domain, self.closed), _impossible(log_det, outside)

    @abstractmethod
    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]: ...

    @abstractmethod
    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]: ...


def _matched(x: Array, params: Array) -> tuple[Array, Array]:
    """x (...) and params (..., num_params), with their leading axes broadcast."""
    if params.shape[:-1] == x.shape:
        return x, params
    shape = jnp.broadcast_shapes(x.shape, params.shape[:-1])
    ones = (1,) * (len(shape) - x.ndim), (1,) * (len(shape) + 1 - params.ndim)
    x, params = x.reshape(ones[0] + x.shape), params.reshape(ones[1] + params.shape)
    return jnp.broadcast_to(x, shape), jnp.broadcast_to(params, (*shape, params.shape[-1]))


def _interior(x: Array, low: float, high: float, closed: bool) -> tuple[Array, Array | None]:
    """x with every point outside the interval moved inside, and where that was done."""
    if math.isinf(low) and math.isinf(high):
        return x, None
    if math.isinf(high):
        middle = low + 1.0
    elif math.isinf(low):
        middle = high - 1.0
    else:
        middle = (low + high) / 2
    # All comparisons are false for NaN, which therefore stays NaN.
    outside = (x < low) | (x > high)
    if not closed:
        # At an end, or so near that the processor may take the distance for zero.
        tiny = jnp.finfo(x.dtype).tiny
        outside |= (x == low) | (x == high) | (jnp.abs(x - low) < tiny) | (jnp.abs(high - x) < tiny)
    return jnp.where(outside, jnp.asarray(middle, x.dtype), x), outside


def _off_ends(y: Array, low: float, high: float, closed: bool) -> Array:
    """y with what rounding put on an open end, or beyond, moved to the number next to it."""
    if closed or (math.isinf(low) and math.isinf(high)):
        return y
    # Distances below the smallest normal number count as none, as in `_interior`.
    tiny, of = jnp.finfo(y.dtype).tiny, y.dtype.type
    least = max(np.nextafter(of(low), of(high)), of(low) + tiny)
    most = min(np.nextafter(of(high), of(low)), of(high) - tiny)
    # Not jnp.clip, whose slope at its ends is 1/2.
    return jnp.where(y < least, least, jnp.where(y > most, most, y))


def _impossible(log_det: Array, outside: Array | None) -> Array:
    return log_det if outside is None else jnp.where(outside, -jnp.inf, log_det)
