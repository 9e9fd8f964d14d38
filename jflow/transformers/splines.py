"""Piecewise polynomial transforms of an interval."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional import splines
from jflow.functional.arrays import clip_rounding
from jflow.transformers.base import DirectionKind, Transformer
from jflow.transformers.interval import OnInterval, check_bins


@dataclass(frozen=True)
class LinearSpline(OnInterval):
    """Piecewise linear: on [0, 1], with K equal bins, b = floor(K x) and shares phi of y.

        y = sum_{k <= b} phi_k + (K x - b) phi_{b+1},    log(dy/dx) = log(K phi_{b+1})

    params: K logits of phi, zero at the identity; phi = minimum + (1 - K minimum) softmax. The
    log-derivative jumps at knots.

    Attributes:
      bins: K.
      minimum: the smallest phi; in (0, 1 / K).
      bound, tails: the interval; see `RationalQuadraticSpline`.

    Reference: Prince, Understanding deep learning, 2023, eq. 16.12 (with indices from 1); Mueller
    et al., 2019, section 4.1, https://arxiv.org/abs/1808.03856
    """

    bins: int = 8
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bins("LinearSpline", self.bins, 2, self.minimum)

    @property
    def num_params(self) -> int:
        return self.bins

    def _on_unit(self, x: Array, params: Array) -> tuple[Array, Array]:
        return splines.linear(x, splines.shares(params, self.minimum))

    def _on_unit_inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return splines.linear_inverse(y, splines.shares(params, self.minimum))


@dataclass(frozen=True)
class SquareRootBins(Transformer):
    """Square roots in K equal bins of [0, 1], with b = floor(K x) and shares phi.

        y = sum_{k <= b} sqrt(phi_k) + sqrt((K x - b) phi_{b+1})
        log(dy/dx) = log(K / 2) + log(phi_{b+1}) / 2 - log(K x - b) / 2

    Maps [0, 1] onto [0, sum sqrt(phi)]: the codomain depends on the parameters, and `codomain` is
    the largest, [0, sqrt(K)]. A y above the sum has log-derivative -inf. The slope is infinite at
    the left end of each bin, where the log-derivative is large but finite here. No parameters make
    it the identity. An exercise, rather than a layer to stack.

    params: K logits of phi = minimum + (1 - K minimum) softmax.

    Attributes:
      bins: K.
      minimum: the smallest phi; in (0, 1 / K).

    Reference: Prince, Understanding deep learning, 2023, problem 16.9 (with indices from 1)
    """

    bins: int = 8
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        check_bins("SquareRootBins", self.bins, 1, self.minimum)

    @property
    def num_params(self) -> int:
        return self.bins

    @property
    def domain(self) -> tuple[float, float]:
        return (0.0, 1.0)

    @property
    def codomain(self) -> tuple[float, float]:
        return (0.0, math.sqrt(self.bins) * (1 + 1e-6))  # room for rounding

    @property
    def closed(self) -> bool:
        return True

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return splines.square_root(x, splines.shares(params, self.minimum))

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        phi = splines.shares(params, self.minimum)
        # A little beyond the last knot is rounding, further is outside of this function's range.
        end = jnp.sum(jnp.sqrt(phi), axis=-1)
        outside = y > end * (1 + 8 * jnp.finfo(y.dtype).eps)
        x, log_det = splines.square_root_inverse(jnp.where(outside, end / 2, y), phi)
        return clip_rounding(x, 0, 1), jnp.where(outside, -jnp.inf, log_det)


@dataclass(frozen=True)
class QuadraticSpline(OnInterval):
    """Piecewise quadratic: the integral of a density that is linear between K + 1 vertices v.

        y = y_k + w_k (v_k t + (v_k+1 - v_k) t^2 / 2),   t = (x - x_k) / w_k in [0, 1]
        log(dy/dx) = log((1 - t) v_k + t v_k+1)

    params: K logits of the widths w, then logits of the vertices: all K + 1 with tails=None;
    with linear tails the inner K - 1, and both ends are 1, so that the density is continuous.
    Zero params are the identity.

    Attributes:
      bins: K; 2 or more.
      minimum: the smallest w (as a share) and v; in (0, 1 / K).
      bound, tails: the interval; see `RationalQuadraticSpline`.

    Reference: Mueller et al., Neural importance sampling, 2019, section 4.2,
    https://arxiv.org/abs/1808.03856
    """

    bins: int = 8
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bins("QuadraticSpline", self.bins, 2, self.minimum)

    @property
    def num_params(self) -> int:
        return 2 * self.bins + (1 if self.tails is None else -1)

    def _on_unit(self, x: Array, params: Array) -> tuple[Array, Array]:
        return splines.quadratic(x, *self._widths_and_vertices(params))

    def _on_unit_inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return splines.quadratic_inverse(y, *self._widths_and_vertices(params))

    def _widths_and_vertices(self, params: Array) -> tuple[Array, Array]:
        """The vertices are scaled, where they are free, so that the area is 1."""
        logits = params[..., self.bins :]
        widths = splines.shares(params[..., : self.bins], self.minimum)
        v = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        left, right = widths[..., :1], widths[..., -1:]
        if self.tails is None:
            weights = jnp.concatenate([left, widths[..., :-1] + widths[..., 1:], right], axis=-1)
            v = v / jnp.sum(weights * v / 2, axis=-1, keepdims=True)
        else:
            weights = widths[..., :-1] + widths[..., 1:]
            rest = 1 - (left + right) / 2
            v = v * rest / jnp.sum(weights * v / 2, axis=-1, keepdims=True)
            end = jnp.ones_like(left)
            v = jnp.concatenate([end, v, end], axis=-1)
        return widths, self.minimum + (1 - self.minimum) * v


@dataclass(frozen=True)
class CubicSpline(OnInterval):
    """Piecewise cubic, with K bins of widths w and heights h and Steffen's slopes at inner knots.

    The derivative is continuous. With linear tails the slope at both ends is 1 (or the largest
    that keeps the function increasing, 3 h / w of the bin, if that is less).

    params: K logits of w, K of h, and, with tails=None, two that set the slopes at the ends,
    between 0 and 3 h / w. Zero params are the identity. The inverse is iterative: the cubic
    formula cancels in float32.

    Attributes:
      bins: K; 2 or more.
      minimum: the smallest w and h, as shares; in (0, 1 / K).
      bound, tails: the interval; see `RationalQuadraticSpline`.

    Reference: Durkan et al., Cubic-spline flows, 2019, https://arxiv.org/abs/1906.02145
    """

    bins: int = 8
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bins("CubicSpline", self.bins, 2, self.minimum)

    @property
    def num_params(self) -> int:
        return 2 * self.bins + (2 if self.tails is None else 0)

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    def _on_unit(self, x: Array, params: Array) -> tuple[Array, Array]:
        return splines.cubic(x, *self._shape(params))

    def _on_unit_inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return splines.cubic_inverse(y, *self._shape(params))

    def _shape(self, params: Array) -> tuple[Array, Array, Array, Array]:
        widths = splines.shares(params[..., : self.bins], self.minimum)
        heights = splines.shares(params[..., self.bins : 2 * self.bins], self.minimum)
        largest = [3 * heights[..., k] / widths[..., k] for k in (0, -1)]
        if self.tails is None:
            third = math.log(1 / 2)  # the logit of 1/3
            ends = [params[..., 2 * self.bins + i] + third for i in (0, 1)]
            slopes = [m * jax.nn.sigmoid(end) for m, end in zip(largest, ends, strict=True)]
        else:
            slopes = [jnp.minimum(m, 1) for m in largest]
        return widths, heights, slopes[0], slopes[1]
