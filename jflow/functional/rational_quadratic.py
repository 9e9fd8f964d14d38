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
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arrays import clip_rounding

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
        return 3 * self.bins + {"fixed": -1, "free": 1, "tied": 0}[self.edges]

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
        logits, first = self._blocks(jnp.swapaxes(params, -1, -2))
        cell = _select(self, search, lax.stop_gradient(x), logits)
        left = cell.left if first is None else jnp.where(cell.bin == 0, first, cell.left)
        return formula(x, cell._replace(left=self._slope(left), right=self._slope(cell.right)))

    def _blocks(self, params: Array) -> tuple[Array, Array | None]:
        """Logits as (*lead, 3, K, n), and that of the first slope, unless it is the last one."""
        first = None
        if self.edges == "fixed":
            params = jnp.pad(params, [(0, 0)] * (params.ndim - 2) + [(0, 1), (0, 0)])
            first = jnp.zeros_like(params[..., 0, :])
        elif self.edges == "free":
            params, first = lax.split(params, [3 * self.bins, 1], axis=params.ndim - 2)
            first = first[..., 0, :]
        shape = (*params.shape[:-2], 3, self.bins, params.shape[-1])
        return params.reshape(shape), first

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


def _forward(x: Array, cell: Cell) -> tuple[Array, Array]:
    s = cell.height / cell.width
    t = clip_rounding((x - cell.x) / cell.width, 0, 1)
    y = cell.y + cell.height * (s * t * t + cell.left * t * (1 - t)) / _denominator(cell, s, t)
    return y, _log_slope(cell, s, t)


def _inverse(y: Array, cell: Cell) -> tuple[Array, Array]:
    s = cell.height / cell.width
    r = clip_rounding((y - cell.y) / cell.height, 0, 1)
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


# The rest finds each x's bin. Arrays of all bins are (*lead, 3, K, n), with the blocks widths,
# heights, slopes; of one bin (*lead, 3, n). Everything about bins costs K times what a formula
# above costs, so it is written for few passes over memory: masked sums, unrolled over bins, and
# one explicit derivative.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _select(family: RationalQuadratic, search: int, x: Array, logits: Array) -> Cell:
    """The cell of each x, whose bin is searched in block `search`."""
    return _cell(family, _find(family, search, x, logits))


@_select.defjvp
def _select_jvp(family: RationalQuadratic, search: int, primals: Any, tangents: Any) -> Any:
    x, logits = primals
    found = _find(family, search, x, logits)
    cell = _cell(family, found)
    scale = (family.high - family.low) * (1 - family.bins * family.minimum)
    bins = jnp.arange(family.bins, dtype=jnp.int32).reshape(-1, 1)

    def block(sums: Any, at: Any) -> Any:
        # With shares p = e / total: dp_own = p_own (dl_own - sum p dl), and so for those below.
        tangent, index, part, total, own, other = at
        is_slope, bin_ = index == 2, found.bin[..., None, :]
        k = bins.reshape((1,) * (bin_.ndim - 2) + bins.shape)
        is_own = k == bin_
        is_other = jnp.where(is_slope, (k + 1) % family.bins == bin_, k < bin_)
        p = jnp.where(is_slope, 1, part / total[..., None, :] * scale)
        own_mean = jnp.where(is_slope, 0, own / total)[..., None, :]
        other_mean = jnp.where(is_slope, 0, other / total)[..., None, :]
        by_own = jnp.sum(p * (is_own.astype(p.dtype) - own_mean) * tangent, -2)
        by_other = jnp.sum(p * (is_other.astype(p.dtype) - other_mean) * tangent, -2)
        return [
            [other + jnp.where(index == i, by_other, 0), own + jnp.where(index == i, by_own, 0)]
            for i, (other, own) in enumerate(sums)
        ], None

    def by_block(a: Array) -> Array:
        return jnp.moveaxis(a, -3 if a.ndim == logits.ndim else -2, 0)

    parts = [by_block(a) for a in (found.parts, found.total, found.own, found.other)]
    zero, index = jnp.zeros_like(x), jnp.arange(3, dtype=jnp.int32)
    sums = _over_blocks(block, [[zero, zero]] * 3, (by_block(tangents[1]), index, *parts))
    (x, width), (y, height), (left, right) = sums
    return cell, Cell(x, width, y, height, left, right, jnp.zeros_like(cell.bin))


def _over_blocks(block: Callable[..., Any], sums: Any, blocks: Any) -> Any:
    """Adds up over the three blocks, in a loop.

    XLA would otherwise fuse what all bins share into the code of each bin, and compute it once for
    each of them.
    """
    if jax.__version_info__ >= (0, 10, 0):
        return lax.scan(block, sums, blocks)[0]
    for i in range(3):  # before JAX 0.10 such a loop cannot be transposed; this is slower
        sums, _ = block(sums, jax.tree.map(lambda a, i=i: a[i], blocks))
    return sums


class _Found(NamedTuple):
    parts: Array  # exp of logits of widths and heights; logits of slopes
    total: Array  # sums of parts over bins
    bin: Array  # the index of the bin, (*lead, n)
    own: Array  # the bin's part; of slopes, the one at its right
    other: Array  # the sum of parts of bins below; of slopes, the one at its left (cyclic)


def _find(family: RationalQuadratic, search: int, x: Array, logits: Array) -> _Found:
    bins, minimum = family.bins, family.minimum
    is_slope = np.arange(3).reshape(3, 1) == 2
    clipped = jnp.clip(logits, -_LARGEST, _LARGEST)
    parts = jnp.where(np.broadcast_to(is_slope[..., None], logits.shape), logits, jnp.exp(clipped))
    each = [parts[..., k, :] for k in range(bins)]
    total = functools.reduce(jnp.add, each)
    searched = total[..., search, :]
    share = (x - family.low) / (family.high - family.low)
    sum_, bin_ = jnp.zeros_like(x), jnp.zeros_like(x)
    for k in range(1, bins):
        sum_ = sum_ + each[k - 1][..., search, :]
        above = (share - minimum * k) * searched >= (1 - bins * minimum) * sum_
        bin_ = bin_ + above.astype(x.dtype)
    # Exact, and keeps XLA from repeating the search wherever the bin is used.
    bin_ = ((bin_ * searched + 0.5 * searched) / searched).astype(jnp.int32)
    at, slope = bin_[..., None, :], jnp.broadcast_to(is_slope, each[0].shape)
    own, other = jnp.zeros_like(total), jnp.zeros_like(total)
    for k, part in enumerate(each):
        own = jnp.where(jnp.broadcast_to(at == k, part.shape), part, own)
        taken = jnp.where(slope, at == (k + 1) % bins, at > k)
        other = other + jnp.where(taken, part, 0)
    return _Found(parts, total, bin_, own, other)


def _cell(family: RationalQuadratic, found: _Found) -> Cell:
    width, minimum = family.high - family.low, family.minimum
    scale = 1 - family.bins * minimum
    index = found.bin.astype(found.total.dtype)

    def place(block: int) -> tuple[Array, Array]:
        total, own, other = (a[..., block, :] for a in (found.total, found.own, found.other))
        low = (other * scale + (index * minimum) * total) / total
        return family.low + width * low, width * ((own * scale + minimum * total) / total)

    slopes = found.other[..., 2, :], found.own[..., 2, :]
    return Cell(*place(0), *place(1), *slopes, index)
