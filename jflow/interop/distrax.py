"""Distrax, both ways.

    distribution = to_distribution(density)            # a distrax.Distribution
    bijector = to_bijector(density)                    # a distrax.Bijector
    distrax.Transformed(some_base, bijector)
    layer = from_bijector(distrax.Tanh())              # a layer of jflow

The first two hold variables, and may be made inside of `jax.grad` of a loss.
"""

from importlib.util import find_spec
from typing import Any

if find_spec("distrax") is None:
    raise ImportError("jflow.interop.distrax needs distrax: pip install 'jflow[interop]'")

import distrax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors import Bijector
from jflow.bijectors.base import Direction
from jflow.distributions import Density
from jflow.distributions.base import default_promotion
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Interval, Support
from jflow.interop.bound import Bound
from jflow.interop.foreign import Foreign, Opaque, check_sides, settled, summed, supports_in

__all__ = ["from_bijector", "to_bijector", "to_distribution"]

_LINE = Interval()
# Where the bijectors live that are not of the line onto the line, or said of themselves.
_SUPPORTS: dict[str, tuple[Support, Support]] = {
    "Tanh": (_LINE, Interval(-1.0, 1.0)),
    "Sigmoid": (_LINE, Interval(0.0, 1.0)),
    "GumbelCDF": (_LINE, Interval(0.0, 1.0)),
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
    supports: tuple[Support, Support] | None = None,
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
    if not bijector.event_ndims_in == bijector.event_ndims_out <= event_ndim:
        raise ValueError(
            f"from_bijector: events have {event_ndim} axes; the bijector takes events of "
            f"{bijector.event_ndims_in} axes to such of {bijector.event_ndims_out}"
        )
    return _Layer(Opaque(bijector), supports or _supports(bijector), event_ndim)


class _Layer(Foreign):
    """A Distrax bijector."""

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("forward", x)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("inverse", y)

    def _run(self, direction: Direction, x: Array) -> tuple[Array, Array]:
        x, outside = self._guarded(direction, as_wide(x))
        with default_promotion():
            y, log_det = getattr(self.opaque.held, f"{direction}_and_log_det")(x)
        own_ndim, ndim = self.opaque.held.event_ndims_in, self.event_ndim
        log_det = summed(jnp.asarray(log_det, x.dtype), x, own_ndim, ndim)
        return settled(direction, x, y.astype(x.dtype), log_det, outside, ndim)


def _supports(bijector: Any) -> tuple[Support, Support]:
    if isinstance(bijector, distrax.Inverse):
        x, y = _supports(bijector._bijector)
        return y, x
    if isinstance(bijector, distrax.Chain):  # which applies the last one first
        return supports_in(_supports(part) for part in reversed(bijector.bijectors))
    if isinstance(bijector, distrax.Block):
        return _supports(bijector._bijector)
    name = type(bijector).__name__
    if name in _ON_LINE:
        return _LINE, _LINE
    if name in _SUPPORTS:
        return _SUPPORTS[name]
    raise ValueError(
        f"from_bijector: where {name} takes numbers from, and to, is not known; say so by "
        "supports=(of x, of y), such as (Interval(), Interval(0.0, math.inf))"
    )
