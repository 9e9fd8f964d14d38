"""TensorFlow Probability on JAX, both ways.

    distribution = to_distribution(density)                       # a tfd.Distribution
    bijector = to_bijector(density)                               # a tfb.Bijector
    tfd.TransformedDistribution(some_base, bijector)
    tfp.mcmc.TransformedTransitionKernel(kernel, bijector)        # moves among latents
    layer = from_bijector(tfb.Softplus())                         # a layer of jflow

Here tfp is `tensorflow_probability.substrates.jax`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from tensorflow_probability.substrates import jax as tfp

from jflow.bijectors import Bijector
from jflow.bijectors.base import Direction
from jflow.distributions import Density
from jflow.distributions.base import default_promotion
from jflow.functional.arguments import as_key
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Interval
from jflow.interop.bound import Bound
from jflow.interop.foreign import (
    LINE,
    POSITIVE,
    UNIT,
    Foreign,
    Opaque,
    Sides,
    check_event_ndim,
    check_sides,
    known_sides,
    settled,
    supports_in,
)

__all__ = ["from_bijector", "to_bijector", "to_distribution"]

tfb, tfd = tfp.bijectors, tfp.distributions
# Where the bijectors live that are not of the line onto the line, or said of themselves.
_SUPPORTS: dict[str, Sides] = {
    "Exp": (LINE, POSITIVE),
    "Log": (POSITIVE, LINE),
    "Tanh": (LINE, Interval(-1.0, 1.0)),
    "NormalCDF": (LINE, UNIT),
}
_ON_LINE = (
    "Identity Shift Scale ScaleMatvecDiag ScaleMatvecTriL ScaleMatvecLU Permute SinhArcsinh Sinh "
    "Householder RationalQuadraticSpline"
).split()


class _Distribution(tfd.Distribution):
    """A density as TFP has them."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        reparameterized = tfd.FULLY_REPARAMETERIZED
        if not getattr(bound.flow.base, "reparameterized", True):
            reparameterized = tfd.NOT_REPARAMETERIZED
        floats = [a.dtype for a in jax.tree.leaves(bound) if jnp.issubdtype(a.dtype, jnp.floating)]
        dtype = jnp.result_type(*floats) if floats else jax.dtypes.canonicalize_dtype(float)
        super().__init__(
            dtype=dtype, reparameterization_type=reparameterized, validate_args=False,
            allow_nan_stats=True, name="jflow",
        )  # fmt: skip

    def _event_shape(self) -> Any:
        return tfp.tf2jax.TensorShape(self._bound.flow.event_shape)

    def _batch_shape(self) -> Any:
        return tfp.tf2jax.TensorShape(self._bound.batch_shape)

    def _sample_n(self, n: int, seed: Any = None) -> Array:
        return self._bound.sample(as_key("sample", seed), (int(n),))

    def _log_prob(self, value: Array) -> Array:
        return self._bound.log_prob(value)


class _Bijector(tfb.Bijector):
    """A flow's bijector as TFP has them."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        flow = bound.flow
        super().__init__(
            forward_min_event_ndims=len(flow.latent_shape),
            inverse_min_event_ndims=len(flow.event_shape),
            name="jflow",
        )

    def _forward(self, x: Array) -> Array:
        return self._bound.forward(x)[0]

    def _inverse(self, y: Array) -> Array:
        return self._bound.inverse(y)[0]

    def _forward_log_det_jacobian(self, x: Array) -> Array:
        return self._bound.forward(x)[1]

    def _inverse_log_det_jacobian(self, y: Array) -> Array:
        return self._bound.inverse(y)[1]

    def _forward_event_shape(self, shape: Any) -> Any:
        return tfp.tf2jax.TensorShape(self._bound.flow.event_shape)

    def _inverse_event_shape(self, shape: Any) -> Any:
        return tfp.tf2jax.TensorShape(self._bound.flow.latent_shape)


def to_distribution(density: Density, context: Any = None) -> Any:
    """A density as a `tfd.Distribution`.

    Args:
      density: the density.
      context: (*batch, *context_shape), for conditional flows; its batch is the distribution's.

    Raises:
      TypeError: that is no density.
      ValueError: its log_prob is a random draw, or the context is not that of the flow.
    """
    return _Distribution(Bound.of("to_distribution", density, context, "inverse"))


def to_bijector(density: Density, context: Any = None) -> Any:
    """The bijector of a density's flow, base to data, as a `tfb.Bijector`.

    Args:
      density: the density.
      context: (*batch, *context_shape), for conditional flows.

    Raises:
      TypeError: that is no density.
      ValueError: a direction or log_dets are random draws, or the context is not the flow's.
    """
    return _Bijector(Bound.of("to_bijector", density, context, "forward", "inverse"))


def from_bijector(bijector: Any, *, event_ndim: int = 1, supports: Sides | None = None) -> Bijector:
    """A `tfb.Bijector` as a layer. Its arrays are constants: it has no parameters.

    Args:
      bijector: forward is from the base side to the data side.
      event_ndim: axes of an event of the flow; log_dets of one that acts on fewer are summed.
      supports: of x and of y (see `jflow.functional.Support`). None for what is known of the usual
        bijectors, their chains and inverses.

    Raises:
      TypeError: that is no such bijector.
      ValueError: it changes shapes, or takes larger events, or its supports are neither known nor
        given.
    """
    if not isinstance(bijector, tfb.Bijector):
        raise TypeError(f"from_bijector takes a tfb.Bijector; got {type(bijector).__name__}")
    check_sides("from_bijector", supports)
    least, most = bijector.forward_min_event_ndims, bijector.inverse_min_event_ndims
    check_event_ndim(least, most, event_ndim)
    return _Layer(Opaque(bijector), supports or _supports(bijector), event_ndim)


class _Layer(Foreign):
    """A TFP bijector."""

    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x, outside = self._guarded(method, as_wide(x))
        bijector, ndim = self.opaque.held, self.event_ndim
        given = x.astype(bijector.dtype or x.dtype)
        with default_promotion():
            y = getattr(bijector, method)(given)
            log_det = getattr(bijector, f"{method}_log_det_jacobian")(given, event_ndims=ndim)
        log_det = jnp.broadcast_to(jnp.asarray(log_det, x.dtype), outside.shape)
        return settled(method, x, y.astype(x.dtype), log_det, outside, ndim)


def _supports(bijector: Any) -> Sides:
    name = type(bijector).__name__
    if name in ("Invert", "_Invert"):
        x, y = _supports(bijector.bijector)
        return y, x
    if name in ("Chain", "_Chain"):  # which applies the last one first
        return supports_in(_supports(part) for part in reversed(bijector.bijectors))
    if name == "Sigmoid":
        if bijector.low is None:
            return LINE, UNIT
        return LINE, Interval(float(bijector.low), float(bijector.high))
    if name == "Softplus":
        return LINE, Interval(float(bijector.low or 0.0), math.inf)
    return known_sides(bijector, _ON_LINE, _SUPPORTS)
