"""Distrax, both ways.

    distribution = to_distribution(density)            # a distrax.Distribution
    bijector = to_bijector(density)                    # a distrax.Bijector
    distrax.Transformed(some_base, bijector)
    layer = from_bijector(distrax.Tanh())              # a layer of jflow

The first two hold variables, and may be made inside of `jax.grad` of a loss.
"""

from typing import Any

import distrax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors import Bijector
from jflow.bijectors.base import Direction
from jflow.distributions import Density
from jflow.distributions.base import default_promotion
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Interval
from jflow.interop.bound import Bound
from jflow.interop.foreign import (
    LINE,
    UNIT,
    Foreign,
    Opaque,
    Sides,
    check_event_ndim,
    check_sides,
    known_sides,
    settled,
    summed,
    supports_in,
)

__all__ = ["from_bijector", "to_bijector", "to_distribution"]

# Where the bijectors live that are not of the line onto the line, or said of themselves.
_SUPPORTS: dict[str, Sides] = {
    "Tanh": (LINE, Interval(-1.0, 1.0)),
    "Sigmoid": (LINE, UNIT),
    "GumbelCDF": (LINE, UNIT),
}
_ON_LINE = (
    "ScalarAffine Shift DiagLinear DiagPlusLowRankLinear LowerUpperTriangularAffine "
    "TriangularLinear UnconstrainedAffine RationalQuadraticSpline"
).split()


class _Distribution(distrax.Distribution):
    """A density as Distrax has them."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound

    def _sample_n(self, key: Array, n: int) -> Array:
        return self._bound.sample(key, (n,))

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        return self._bound.sample(key, (n,), and_log_prob=True)

    def log_prob(self, value: Array) -> Array:
        return self._bound.log_prob(value)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self._bound.flow.event_shape

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._bound.batch_shape


class _Bijector(distrax.Bijector):
    """A flow's bijector as Distrax has them."""

    def __init__(self, bound: Bound) -> None:
        flow = bound.flow
        super().__init__(
            event_ndims_in=len(flow.latent_shape), event_ndims_out=len(flow.event_shape)
        )
        self._bound = bound

    def forward_and_log_det(self, x: Any) -> tuple[Array, Array]:
        return self._bound.forward(x)

    def inverse_and_log_det(self, y: Any) -> tuple[Array, Array]:
        return self._bound.inverse(y)


def to_distribution(density: Density, context: Any = None) -> distrax.Distribution:
    """A density as a `distrax.Distribution`.

    Args:
      density: the density.
      context: (*batch, *context_shape), for conditional flows; its batch is the distribution's.

    Raises:
      TypeError: that is no density.
      ValueError: its log_prob is a random draw, or the context is not that of the flow.
    """
    return _Distribution(Bound.of("to_distribution", density, context, "inverse"))


def to_bijector(density: Density, context: Any = None) -> distrax.Bijector:
    """The bijector of a density's flow, base to data, as a `distrax.Bijector`.

    Args:
      density: the density.
      context: (*batch, *context_shape), for conditional flows.

    Raises:
      TypeError: that is no density.
      ValueError: a direction or log_dets are random draws, or the context is not the flow's.
    """
    return _Bijector(Bound.of("to_bijector", density, context, "forward", "inverse"))


def from_bijector(
    bijector: distrax.Bijector, *, event_ndim: int = 1,
    supports: Sides | None = None,
) -> Bijector:  # fmt: skip
    """A `distrax.Bijector` as a layer. Its arrays are constants: it has no parameters.

    Args:
      bijector: forward is from the base side to the data side.
      event_ndim: axes of an event of the flow; log_dets of one that acts on fewer are summed.
      supports: of x and of y (see `jflow.functional.Support`). None for what is known of Distrax's
        own bijectors, their chains, blocks and inverses.

    Raises:
      TypeError: that is no such bijector.
      ValueError: events of other numbers of axes, or supports that are neither known nor given.
    """
    if not isinstance(bijector, distrax.Bijector):
        raise TypeError(f"from_bijector takes a distrax.Bijector; got {type(bijector).__name__}")
    check_sides("from_bijector", supports)
    check_event_ndim(bijector.event_ndims_in, bijector.event_ndims_out, event_ndim)
    return _Layer(Opaque(bijector), supports or _supports(bijector), event_ndim)


class _Layer(Foreign):
    """A Distrax bijector."""

    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x, outside = self._guarded(method, as_wide(x))
        with default_promotion():
            y, log_det = getattr(self.opaque.held, f"{method}_and_log_det")(x)
        own_ndim, ndim = self.opaque.held.event_ndims_in, self.event_ndim
        log_det = summed(jnp.asarray(log_det, x.dtype), x, own_ndim, ndim)
        return settled(method, x, y.astype(x.dtype), log_det, outside, ndim)


def _supports(bijector: Any) -> Sides:
    if isinstance(bijector, distrax.Inverse):
        x, y = _supports(bijector._bijector)
        return y, x
    if isinstance(bijector, distrax.Chain):  # which applies the last one first
        return supports_in(_supports(part) for part in reversed(bijector.bijectors))
    if isinstance(bijector, distrax.Block):
        return _supports(bijector._bijector)
    return known_sides(bijector, _ON_LINE, _SUPPORTS)
