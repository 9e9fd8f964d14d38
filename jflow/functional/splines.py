"""Piecewise polynomials of one variable, elementwise: increasing maps of [0, 1] onto itself.

Bins lie along the last axis: x and y are (...), and widths, heights and so on (..., K). Results
are pairs of the value and the log-derivative of the direction that is computed.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.arrays import pinned
from jflow.functional.roots import invert_increasing

Pair = tuple[Array, Array]


def shares(logits: Array, minimum: float) -> Array:
    """minimum + (1 - K minimum) softmax(logits): K positive numbers that sum to 1."""
    return minimum + (1 - logits.shape[-1] * minimum) * jax.nn.softmax(logits, axis=-1)


def linear(x: Array, phi: Array) -> Pair:
    """y = sum_{k <= b} phi_k + (K x - b) phi_{b+1}, b = floor(K x): density K phi_{b+1}.

    Reference: Prince, Understanding deep learning, 2023, eq. 16.12, indices counted from 1.
    """
    bins = phi.shape[-1]
    mask = _mask(x, jnp.linspace(0, 1, bins + 1, dtype=x.dtype)[1:-1])
    own, below, index = _picks(mask, phi)
    return below + (bins * x - index) * own, jnp.log(bins * own)


def linear_inverse(y: Array, phi: Array) -> Pair:
    """The inverse of `linear`: x = (b + (y - sum_{k <= b} phi_k) / phi_{b+1}) / K."""
    bins = phi.shape[-1]
    mask = _mask(y, jnp.cumsum(phi, axis=-1)[..., :-1])
    own, below, index = _picks(mask, phi)
    return (index + (y - below) / own) / bins, -jnp.log(bins * own)


def square_root(x: Array, phi: Array) -> Pair:
    """y = sum_{k <= b} sqrt(phi_k) + sqrt((K x - b) phi_{b+1}), b = floor(K x).

    Maps [0, 1] onto [0, sum sqrt(phi)]. Its slope is infinite at the left end of every bin.

    Reference: Prince, Understanding deep learning, 2023, problem 16.9, indices counted from 1.
    """
    bins = phi.shape[-1]
    mask = _mask(x, jnp.linspace(0, 1, bins + 1, dtype=x.dtype)[1:-1])
    root, below, index = _picks(mask, jnp.sqrt(phi))
    inside = bins * x - index
    log_det = jnp.log(root) + math.log(bins / 2) - _log_positive(inside) / 2
    return below + root * _sqrt(inside), log_det


def square_root_inverse(y: Array, phi: Array) -> Pair:
    """The inverse of `square_root`: K x - b is the square of the bin's share of y."""
    bins = phi.shape[-1]
    roots = jnp.sqrt(phi)
    mask = _mask(y, jnp.cumsum(roots, axis=-1)[..., :-1])
    root, below, index = _picks(mask, roots)
    share = (y - below) / root
    log_det = math.log(2 / bins) + _log_positive(share) - jnp.log(root)
    return (index + share * share) / bins, log_det


def quadratic(x: Array, widths: Array, vertices: Array) -> Pair:
    """The integral of the density that is linear between its K + 1 vertices v.

    With t = (x - x_k) / w_k:  y = y_k + w_k (v_k t + (v_k+1 - v_k) t^2 / 2).

    Reference: Mueller et al., Neural importance sampling, 2019,
    https://arxiv.org/abs/1808.03856
    """
    mask = _mask(x, jnp.cumsum(widths, axis=-1)[..., :-1])
    left, right = _pick(mask, vertices[..., :-1]), _pick(mask, vertices[..., 1:])
    width, start, _ = _picks(mask, widths)
    _, below, _ = _picks(mask, _areas(widths, vertices))
    t = pinned((x - start) / width, x)
    y = below + width * t * (left * (2 - t) + right * t) / 2
    return y, jnp.log(left * (1 - t) + right * t)


def quadratic_inverse(y: Array, widths: Array, vertices: Array) -> Pair:
    """The inverse of `quadratic`.

    With r in [0, 1], y's share of its bin's area A, the density at x is
    v = sqrt(v_k^2 (1 - r) + v_k+1^2 r), and t = 2 r A / (w_k (v_k + v)).
    """
    areas = _areas(widths, vertices)
    mask = _mask(y, jnp.cumsum(areas, axis=-1)[..., :-1])
    left, right = _pick(mask, vertices[..., :-1]), _pick(mask, vertices[..., 1:])
    _, start, _ = _picks(mask, widths)
    area, below, _ = _picks(mask, areas)
    r = pinned((y - below) / area, y)
    density = jnp.sqrt(left * left * (1 - r) + right * right * r)
    return start + 2 * r * area / (left + density), -jnp.log(density)


def cubic(x: Array, widths: Array, heights: Array, first: Array, last: Array) -> Pair:
    """A cubic in each bin, with Steffen's slopes at the inner knots.

    The inner slopes are 2 min(s_k-1, s_k, p_k / 2), where s = h / w and
    p_k = (s_k-1 w_k + s_k w_k-1) / (w_k-1 + w_k).

    Args:
      x: (...).
      widths: (..., K).
      heights: (..., K).
      first: the slope at 0, in (0, 3 s_1).
      last: the slope at 1, in (0, 3 s_K).

    References: Durkan et al., Cubic-spline flows, 2019, https://arxiv.org/abs/1906.02145; Steffen,
    Astronomy and Astrophysics 239, 1990
    """
    mask = _mask(x, jnp.cumsum(widths, axis=-1)[..., :-1])
    cell = _cubic_cell(mask, widths, heights, first, last)
    width, start, below = cell[0], cell[1], cell[3]
    value, log_slope = _hermite(cell, pinned((x - start) / width, x))
    return below + value, log_slope


def cubic_inverse(y: Array, widths: Array, heights: Array, first: Array, last: Array) -> Pair:
    """The inverse of `cubic`, by `invert_increasing` within a bin.

    There is a closed form, but in float32 the cubic formula cancels.
    """
    mask = _mask(y, jnp.cumsum(heights, axis=-1)[..., :-1])
    cell = _cubic_cell(mask, widths, heights, first, last)
    width, start, below = cell[0], cell[1], cell[3]

    def within(cell: Any, t: Array) -> Pair:
        value, log_slope = _hermite(cell, t)
        return value, log_slope + jnp.log(cell[0])

    rest = y - below
    rest = rest + jax.lax.stop_gradient(jnp.clip(rest, 0, cell[2]) - rest)
    t, _ = invert_increasing(within, cell, rest, jnp.zeros_like(y), jnp.ones_like(y))
    # Where the slope at an end is nearly zero, many t round to that end.
    t = pinned(t, y)
    return start + width * t, -_hermite(cell, t)[1]


def _cubic_cell(
    mask: Array, widths: Array, heights: Array, first: Array, last: Array
) -> tuple[Array, ...]:
    """Width, left end, height and lower end of the bin, and the slopes at its ends."""
    s = heights / widths
    s0, s1, w0, w1 = s[..., :-1], s[..., 1:], widths[..., :-1], widths[..., 1:]
    p = (s0 * w1 + s1 * w0) / (w0 + w1)
    inner = 2 * jnp.minimum(jnp.minimum(s0, s1), p / 2)
    slopes = jnp.concatenate([first[..., None], inner, last[..., None]], axis=-1)
    width, start, _ = _picks(mask, widths)
    height, below, _ = _picks(mask, heights)
    left, right = _pick(mask, slopes[..., :-1]), _pick(mask, slopes[..., 1:])
    return width, start, height, below, left, right


def _hermite(cell: tuple[Array, ...], t: Array) -> Pair:
    """Rise in the bin at t in [0, 1], and the log-slope; the slope's Bernstein form."""
    width, _, height, _, left, right = cell
    s, u = height / width, 1 - t
    rise = left * t * u * u - right * t * t * u + s * t * t * (3 - 2 * t)
    slope = left * u * u + 2 * (3 * s - left - right) * t * u + right * t * t
    return width * rise, _log_positive(slope)


def _areas(widths: Array, vertices: Array) -> Array:
    return widths * (vertices[..., :-1] + vertices[..., 1:]) / 2


def _mask(x: Array, inner_knots: Array) -> Array:
    """(..., K): whether x is in each bin; the first and last reach to infinity."""
    shape = (*x.shape, inner_knots.shape[-1])
    inner_knots = inner_knots.reshape((1,) * (len(shape) - inner_knots.ndim) + inner_knots.shape)
    above = jnp.broadcast_to(x[..., None] >= inner_knots, shape)
    edge = jnp.ones((*x.shape, 1), bool)
    return jnp.concatenate([edge, above], -1) & ~jnp.concatenate([above, ~edge], -1)


def _pick(mask: Array, values: Array) -> Array:
    """Each x's own value: a masked sum, which is faster than a gather."""
    return jnp.sum(jnp.where(mask, values, 0), axis=-1)


def _picks(mask: Array, values: Array) -> tuple[Array, Array, Array]:
    """Each x's own value, the sum of those of bins below, and how many there are below."""
    index = jnp.argmax(mask, axis=-1)
    below = jnp.arange(mask.shape[-1]).reshape((1,) * index.ndim + (-1,)) < index[..., None]
    total = jnp.sum(jnp.where(below, values, 0), axis=-1)
    return _pick(mask, values), total, index.astype(values.dtype)


def _log_positive(x: Array) -> Array:
    """log(x), for x that only rounding may make zero or negative."""
    return jnp.log(jnp.maximum(x, _least(x)))


def _sqrt(x: Array) -> Array:
    """The square root of x >= 0, with a finite slope at 0."""
    return jnp.sqrt(jnp.maximum(x, _least(x)))


def _least(x: Array) -> float:
    """Below any rounding error of numbers in [0, 1]; its inverse square does not overflow."""
    return float(jnp.finfo(x.dtype).eps) ** 2
