"""Rational-quadratic splines, on an interval, on the line and on the circle."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jflow.functional.arrays import wrap_angles
from jflow.functional.rational_quadratic import RationalQuadratic
from jflow.functional.supports import Circle, Support
from jflow.transformers.base import Transformer
from jflow.transformers.interval import OnInterval, check_bins


@dataclass(frozen=True)
class RationalQuadraticSpline(OnInterval):
    """A rational-quadratic spline with K bins, smooth and with a closed-form inverse.

    In a bin of slope s = h / w between knots of slopes d_k and d_k+1, with t = (x - x_k) / w:

        y = y_k + h (s t^2 + d_k t (1 - t)) / (s + (d_k + d_k+1 - 2 s) t (1 - t))

    params: K logits of widths, K of heights, and logits of slopes: of the K - 1 inner knots, and,
    with tails=None, of the right and the left end. With linear tails the slope at both ends is 1,
    so that the density is continuous. Zero params are the identity. Logits of widths and heights
    are clipped at +-30, where their gradients stay, so that training finds the way back.

    Attributes:
      bins: K; 2 or more.
      bound: with linear tails, the interval is [-bound, bound], and outside is the identity.
      tails: "linear", or None for a map of [0, 1] onto itself, and nothing outside.
      minimum: the smallest width and height of a bin, as shares; in (0, 1 / K).
      min_slope: the smallest slope at a knot; in (0, 1).

    Reference: Durkan et al., Neural spline flows, 2019, eqs. 4-8, https://arxiv.org/abs/1906.04032
    """

    bins: int = 8
    minimum: float = 1e-3
    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)

    @property
    def num_params(self) -> int:
        return self._family.num_params

    @property
    def _family(self) -> RationalQuadratic:
        low, high, edges = (0.0, 1.0, "free") if self.tails is None else (-1.0, 1.0, "fixed")
        if self.tails:
            low, high = -self.bound, self.bound
        return RationalQuadratic(self.bins, low, high, self.minimum, self.min_slope, edges)

    def _on_unit(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self._family.forward(x, params)

    def _on_unit_inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self._family.inverse(y, params)

    def _to_unit(self, x: Array) -> tuple[Array, Array]:
        # The family has the interval itself, which spares two roundings.
        inside = jnp.abs(x) < self.bound
        return inside, jnp.where(inside, x, 0)

    def _from_unit(self, x: Array) -> Array:
        return x


@dataclass(frozen=True)
class CircularSpline(Transformer):
    """A rational-quadratic spline of the circle: angles in [-pi, pi), whose ends are one point.

    The slope at both ends is one parameter, so the density is continuous on the circle. The point
    pi stays where it is: compose with `CircularShift` to move it. An angle outside of [-pi, pi)
    is taken around the circle first. The base must live on the circle, too, such as
    `jflow.VonMises`.

    params: K logits of widths, K of heights, K of slopes at the right ends of bins. Zero params
    are the identity.

    Attributes:
      bins: K; 2 or more.
      minimum: the smallest width and height of a bin, as shares; in (0, 1 / K).
      min_slope: the smallest slope at a knot; in (0, 1).

    Reference: Rezende et al., Normalizing flows on tori and spheres, 2020, section 2.1.2,
    https://arxiv.org/abs/2002.02428
    """

    bins: int = 8
    minimum: float = 1e-3
    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        _check(self)

    @property
    def num_params(self) -> int:
        return self._family.num_params

    @property
    def supports(self) -> tuple[Support, Support]:
        return Circle(), Circle()

    @property
    def _family(self) -> RationalQuadratic:
        return RationalQuadratic(self.bins, -math.pi, math.pi, self.minimum, self.min_slope, "tied")

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self._family.forward(wrap_angles(x), params)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self._family.inverse(wrap_angles(y), params)


@dataclass(frozen=True)
class CircularShift(Transformer):
    """A rotation of the circle: y = x + t, taken around the circle into [-pi, pi). log_det is 0.

    params: (t,), an angle.

    Reference: Rezende et al., 2020, section 2.1.2, https://arxiv.org/abs/2002.02428
    """

    @property
    def num_params(self) -> int:
        return 1

    @property
    def supports(self) -> tuple[Support, Support]:
        return Circle(), Circle()

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return wrap_angles(x + params[..., 0]), jnp.zeros_like(x)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return wrap_angles(y - params[..., 0]), jnp.zeros_like(y)


def _check(spline: RationalQuadraticSpline | CircularSpline) -> None:
    name = type(spline).__name__
    check_bins(name, spline.bins, 2, spline.minimum)
    if not 0 < spline.min_slope < 1:
        raise ValueError(f"{name}: min_slope must be in (0, 1); got {spline.min_slope}")
