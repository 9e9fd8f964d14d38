"""Monotone rational-quadratic splines, elementwise and fast.

With the knots (x_k, y_k), slopes d_k, bins of width w and height h, s = h / w, t = (x - x_k) / w
and u = 1 - t,

    y = y_k + h (s t^2 + d_k t u) / q,    q = s (t^2 + u^2) + (d_k + d_k+1) t u
    dy/dx = s^2 (d_k+1 t^2 + 2 s t u + d_k u^2) / q^2

which are eqs. 4-5 of Durkan et al., 2019, rearranged so that every term is positive. So is the
inverse (their eqs. 6-8): with r = (y - y_k) / h and g = d_k (1 - r) - d_k+1 r,

    t : u = 2 s r : g + sqrt(g^2 + 4 s^2 r (1 - r))

whose root is of a sum of squares, and whose sum is computed without cancellation for g < 0.

Reference: Durkan et al., Neural spline flows, 2019, https://arxiv.org/abs/1906.04032
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arrays import clip_rounding, pinned

# Logits are clipped here, far beyond where the smallest bin width flattens them.
_LARGEST = 30.0


@dataclass(frozen=True)
class RationalQuadratic:
    """A family of splines of [low, high] onto itself.

    Their parameters are K logits of widths, K of heights, then of slopes: those of the K - 1
    inner knots; if edges is "free", those of the right and the left end; if "tied", one for both.

    Attributes:
      bins: K.
      low, high: the interval.
      minimum: the smallest width and height, as a share of the interval; below 1 / K.
      min_slope: the smallest slope.
      edges: whether the slopes at both ends are "fixed" at 1, "free", or "tied": one for both.
    """

    bins: int
    low: float
    high: float
    minimum: float
    min_slope: float
    edges: Literal["fixed", "free", "tied"]

    @property
    def num_params(self) -> int:
        """How many parameters each scalar takes."""
        return 2 * self.bins + self._slopes

    @property
    def _slopes(self) -> int:
        return self.bins + {"fixed": -1, "free": 1, "tied": 0}[self.edges]

    def forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        """y and log(dy/dx) of x (...) in [low, high], with params (..., num_params)."""
        return self._apply(_forward, 0, x, params)

    def inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        """x and log(dx/dy) of y (...) in [low, high]."""
        return self._apply(_inverse, 1, y, params)

    def _apply(
        self, formula: Callable[..., Any], search: int, x: Array, params: Array
    ) -> tuple[Array, Array]:
        if x.ndim == 0:
            y, log_det = self._apply(formula, search, x[None], params[None])
            return y[0], log_det[0]

        def spline(x: Array, params: Array) -> tuple[Array, Array]:
            *logits, first = self._blocks(jnp.swapaxes(params, -1, -2))
            cell = _select(self, search, lax.stop_gradient(x), tuple(logits))
            left = cell.left if first is None else jnp.where(cell.bin == 0, first, cell.left)
            cell = cell._replace(left=self._slope(left), right=self._slope(cell.right))
            return formula(x, cell, self._unit)

        # To compute it twice is faster than to store what its derivative reads.
        return jax.checkpoint(spline, prevent_cse=False)(x, params)

    def _blocks(self, params: Array) -> tuple[Any, ...]:
        """Logits of widths, heights and slopes, (*lead, K, n) each.

        Then that of the slope at the lower end, (*lead, n); None where it is the last of the rest.
        """
        sizes = [self.bins, self.bins, self._slopes]
        widths, heights, slopes = lax.split(params, sizes, axis=-2)
        first = None
        if self.edges == "fixed":
            end = jnp.zeros_like(slopes[..., :1, :])
            slopes, first = jnp.concatenate([slopes, end], axis=-2), end[..., 0, :]
        elif self.edges == "free":
            slopes, first = lax.split(slopes, [self.bins, 1], axis=-2)
            first = first[..., 0, :]
        return widths, heights, slopes, first

    def _unit(self, t: Array, x: Array) -> Array:
        """t in [0, 1], without rounding errors at the ends of the interval, if x may be there."""
        if self.edges != "free":
            return clip_rounding(t, 0, 1)
        return pinned(t, x, self.low, self.high)

    def _slope(self, logit: Array) -> Array:
        """Positive, and 1 for a logit of zero."""
        return self.min_slope + jax.nn.softplus(logit + math.log(math.expm1(1 - self.min_slope)))


class Cell(NamedTuple):
    """The bin that each x is in, and the slopes (or their logits) at its two sides."""

    x: Array
    width: Array
    y: Array
    height: Array
    left: Array
    right: Array
    bin: Array  # its index, as a float


def _forward(x: Array, cell: Cell, unit: Callable[..., Array]) -> tuple[Array, Array]:
    s = cell.height / cell.width
    t = unit((x - cell.x) / cell.width, x)
    y = cell.y + cell.height * (s * t * t + cell.left * t * (1 - t)) / _denominator(cell, s, t)
    return y, _log_slope(cell, s, t)


def _inverse(y: Array, cell: Cell, unit: Callable[..., Array]) -> tuple[Array, Array]:
    s = cell.height / cell.width
    r = unit((y - cell.y) / cell.height, y)
    g = cell.left * (1 - r) - cell.right * r
    v = 4 * s * s * r * (1 - r)
    root = jnp.sqrt(g * g + v)
    falling = g < 0
    b = jnp.where(falling, v / (root + jnp.abs(g)), g + root)
    a = 2 * s * r
    t = a / (a + b)
    return cell.x + cell.width * t, -_log_slope(cell, s, t)


def _denominator(cell: Cell, s: Array, t: Array) -> Array:
    u = 1 - t
    return s * (t * t + u * u) + (cell.left + cell.right) * t * u


def _log_slope(cell: Cell, s: Array, t: Array) -> Array:
    u = 1 - t
    slope = cell.right * t * t + 2 * s * t * u + cell.left * u * u
    return jnp.log(slope) + 2 * (jnp.log(s) - jnp.log(_denominator(cell, s, t)))


# The rest finds each x's bin. Arrays of all bins are (*lead, K, n), of one bin (*lead, n). What is
# done for all bins costs K times what a formula above costs, so it is written for few passes over
# memory: masked sums, and one explicit derivative. Sums over a few bins are unrolled, which is
# faster; those over many are reductions, lest programs grow with K.
#
# Each division is in its place. XLA:CPU fuses what a sum over bins reads, or in reverse what every
# bin gets, into the code of each bin, and computes it once for every one, unless it ends in a
# division. Hence `_settled`, too.

_FEW = 32  # bins, the most that are unrolled

Logits = tuple[Array, Array, Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _select(family: RationalQuadratic, search: int, x: Array, logits: Logits) -> Cell:
    """The cell of each x, whose bin is searched among widths (0) or heights (1)."""
    return _find(family, search, x, logits)[0]


@_select.defjvp
def _select_jvp(family: RationalQuadratic, search: int, primals: Any, tangents: Any) -> Any:
    x, logits = primals
    cell, (widths, heights) = _find(family, search, x, logits)
    scale = (family.high - family.low) * (1 - family.bins * family.minimum)
    bin_ = cell.bin.astype(np.int32)[..., None, :]
    k = _numbers(widths.each)

    def summed(values: Array, where: Array) -> Array:
        return jnp.sum(jnp.where(jnp.broadcast_to(where, values.shape), values, 0), axis=-2)

    def place(part: _Part, tangent: Array) -> tuple[Array, Array]:
        """With shares e / total: d(e_own / total) = (de_own - (e_own / total) dtotal) / total."""
        each, size = part.each * tangent, part.total / scale
        whole = jnp.sum(each, axis=-2)
        low = (summed(each, k < bin_) - part.below * whole) / size
        return low, (summed(each, k == bin_) - part.own * whole) / size

    left = _settled(summed(tangents[1][2], (k + 1) % family.bins == bin_), widths.total)
    right = _settled(summed(tangents[1][2], k == bin_), widths.total)
    x, width = place(widths, tangents[1][0])
    y, height = place(heights, tangents[1][1])
    return cell, Cell(x, width, y, height, left, right, jnp.zeros_like(cell.bin))


def _settled(x: Array, positive: Array) -> Array:
    """x, as the result of a division."""
    return x / (positive / positive)


class _Part(NamedTuple):
    """Widths or heights: exp(logits) of each bin, their sum, and its share in and below x's bin."""

    each: Array
    total: Array
    own: Array
    below: Array


def _find(
    family: RationalQuadratic, search: int, x: Array, logits: Logits
) -> tuple[Cell, tuple[_Part, _Part]]:
    bins, minimum = family.bins, family.minimum
    each = [jnp.exp(jnp.clip(block, -_LARGEST, _LARGEST)) for block in logits[:2]]
    totals = [_sum(block, lambda _, part: part) for block in each]
    searched = totals[search]
    share = (x - family.low) / (family.high - family.low)

    def above(k: Any, end: Array, share: Array, searched: Array) -> Array:
        high = (share - minimum * k) * searched >= (1 - bins * minimum) * end
        return high.astype(x.dtype)

    bin_ = _sum_up_to(each[search], above, share, searched)
    # Exact.
    bin_ = ((bin_ * searched + 0.5 * searched) / searched).astype(jnp.int32)

    def at(shift: int) -> Callable[..., Array]:
        return lambda k, value, bin_: jnp.where(bin_ == (k + shift) % bins, value, 0)

    def below(k: Any, value: Array, bin_: Array) -> Array:
        return jnp.where(bin_ > k, value, 0)

    widths, heights = (
        _Part(block, total, _sum(block, at(0), bin_) / total, _sum(block, below, bin_) / total)
        for block, total in zip(each, totals, strict=True)
    )
    left, right = (_settled(_sum(logits[2], at(shift), bin_), searched) for shift in (1, 0))
    index = bin_.astype(x.dtype)
    places = *_place(family, index, widths), *_place(family, index, heights)
    return Cell(*places, left, right, index), (widths, heights)


def _place(family: RationalQuadratic, index: Array, part: _Part) -> tuple[Array, Array]:
    """The lower end of the bin, and its width."""
    size, scale = family.high - family.low, 1 - family.bins * family.minimum
    low = part.below * scale + index * family.minimum
    return family.low + size * low, size * (part.own * scale + family.minimum)


def _sum(values: Array, term: Callable[..., Array], *given: Array) -> Array:
    """The sum over bins of term(k, value of bin k, *given), with given arrays (*lead, n)."""
    bins = values.shape[-2]
    if bins <= _FEW:
        terms = [term(k, values[..., k, :], *given) for k in range(bins)]
        return functools.reduce(jnp.add, terms)
    k = _numbers(values)
    return jnp.sum(term(k, values, *(array[..., None, :] for array in given)), axis=-2)


def _sum_up_to(values: Array, term: Callable[..., Array], *given: Array) -> Array:
    """The sum over k = 1..K-1 of term(k, sum of the first k values, *given)."""
    bins = values.shape[-2]
    if bins <= _FEW:
        ends = itertools.accumulate(values[..., k, :] for k in range(bins - 1))
        terms = [term(k, end, *given) for k, end in enumerate(ends, 1)]
        return functools.reduce(jnp.add, terms, jnp.zeros_like(given[0]))

    def add(k: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        end = sums[0] + lax.dynamic_index_in_dim(values, k, -2, keepdims=False)
        return end, sums[1] + term(k + 1, end, *given)

    zeros = jnp.zeros_like(given[0])
    return lax.fori_loop(0, bins - 1, add, (zeros, zeros), unroll=8)[1]


def _numbers(values: Array) -> Array:
    """0..K-1 along the axis of bins."""
    return lax.broadcasted_iota(
        np.int32, (1,) * (values.ndim - 2) + (values.shape[-2], 1), values.ndim - 2
    )
