"""Planar, radial and Sylvester maps: the identity plus an update of low rank, and their inverses.

Each function takes the numbers of one map and points z (..., D), and returns the image (..., D) and
log|det| (...). All are invertible whatever the numbers: every slope is 1e-3 or more.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arrays import align
from jflow.functional.roots import invert_increasing

_LEAST = 1e-3
# Maps that must be undone are not rounded as GPUs and TPUs round products by default.
_EXACT = lax.Precision.HIGHEST

Map = Callable[[Any, Array], tuple[Array, Array]]


def above_minus_one(raw: Array) -> Array:
    """-1 + 1e-3 or more; 0 at 0, and close to `raw` above."""
    return (1 - _LEAST) * (jax.nn.softplus(raw + math.log(math.e - 1)) - 1)


class Planar(NamedTuple):
    """Numbers of y = z + u tanh(w z + b): w (D,), raw u (D,), b ()."""

    w: Array
    u: Array
    b: Array


def planar(p: Planar, z: Array) -> tuple[Array, Array]:
    """y = z + u tanh(w z + b), log|det| = log(1 + u w sech^2(w z + b)).

    u is moved along w until u w > -1 (Rezende and Mohamed, 2015, appendix A.1).
    """
    u, slope = _planar_update(p)
    a = _dot(z, p.w) + p.b
    return z + jnp.tanh(a)[..., None] * align(u, z), _bend(slope, a)[1]


def planar_inverse(p: Planar, y: Array) -> tuple[Array, Array]:
    """z = y - u tanh(a), where a + u w tanh(a) = w y + b is one equation of one unknown."""
    u, slope = _planar_update(p)
    a, log_det = _straighten(slope, _dot(y, p.w) + p.b)
    return y - jnp.tanh(a)[..., None] * align(u, y), log_det


def _planar_update(p: Planar) -> tuple[Array, Array]:
    """u with u w > -1, and u w."""
    length, product = jnp.sum(jnp.square(p.w)), jnp.sum(p.w * p.u)
    slope = above_minus_one(product)
    length = jnp.maximum(length, jnp.finfo(p.w.dtype).tiny ** 0.5)
    return p.u + (slope - product) / length * p.w, slope


def _bend(slope: Array, a: Array) -> tuple[Array, Array]:
    """a + slope tanh(a), and its log-derivative."""
    decay = jnp.exp(-2 * jnp.abs(a))
    return a + slope * jnp.tanh(a), jnp.log1p(slope * 4 * decay / jnp.square(1 + decay))


def _straighten(slope: Array, v: Array) -> tuple[Array, Array]:
    """The inverse of `_bend` in a, and its log-derivative."""
    reach = lax.stop_gradient(jnp.abs(slope))
    fixed = lax.stop_gradient(v)
    return invert_increasing(_bend, slope, v, fixed - reach, fixed + reach)


class Radial(NamedTuple):
    """Numbers of y = z + k a (z - centre) / (a + r): centre (D,), raw a (), raw k ()."""

    centre: Array
    a: Array
    k: Array


def radial(p: Radial, z: Array) -> tuple[Array, Array]:
    """y = c + (z - c) (1 + k a h), h = 1 / (a + r), r = |z - c|, with a > 0 and k > -1.

    log|det| = (D - 1) log(1 + k a h) + log(1 + k a^2 h^2)   (Rezende and Mohamed, 2015, eq. 14)
    """
    a, k = jax.nn.softplus(p.a) + _LEAST, above_minus_one(p.k)
    away = z - align(p.centre, z)
    share = a / (a + _length(away))
    return align(p.centre, z) + (1 + k * share)[..., None] * away, _radial_log_det(z, k, share)


def radial_inverse(p: Radial, y: Array) -> tuple[Array, Array]:
    """In closed form: with R = |y - c|, r solves r^2 + (a (1 + k) - R) r - a R = 0."""
    a, k = jax.nn.softplus(p.a) + _LEAST, above_minus_one(p.k)
    away = y - align(p.centre, y)
    distance = _length(away)
    linear = a * (1 + k) - distance
    root = jnp.sqrt(jnp.square(linear) + 4 * a * distance)
    # The form of the solution that adds numbers of one sign.
    added = root + jnp.abs(linear)
    r = jnp.where(linear > 0, 2 * a * distance / added, added / 2)
    share = a / (a + r)
    z = align(p.centre, y) + away / (1 + k * share)[..., None]
    return z, -_radial_log_det(y, k, share)


def _radial_log_det(z: Array, k: Array, share: Array) -> Array:
    return (z.shape[-1] - 1) * jnp.log1p(k * share) + jnp.log1p(k * jnp.square(share))


def _length(x: Array) -> Array:
    """|x| over the last axis, with gradient zero at zero."""
    square = jnp.sum(jnp.square(x), axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


class Sylvester(NamedTuple):
    """Numbers of y = z + Q R tanh(S Q^T z + b).

    Attributes:
      basis: Q^T (M, D), with orthonormal rows.
      upper: the strict upper triangle of R is read, (M, M).
      inner: the strict upper triangle of S is read, (M, M).
      slopes: raw products of the diagonals of R and S, (M,).
      rates: logs of the diagonal of S, (M,).
      b: (M,).
    """

    basis: Array
    upper: Array
    inner: Array
    slopes: Array
    rates: Array
    b: Array


def sylvester(p: Sylvester, z: Array) -> tuple[Array, Array]:
    """y = z + Q R tanh(S Q^T z + b), R and S upper triangular.

    log|det| = sum_i log(1 + r_ii s_ii sech^2(a_i)), a = S Q^T z + b   (van den Berg et al., 2018,
    eqs. 11-15), where r_ii s_ii > -1.
    """
    slopes, r, s = _triangles(p)
    a = _dot(_dot(z, p.basis.T), s.T) + align(p.b, z)
    _, log_det = _bend(align(slopes, a), a)
    return z + _dot(_dot(jnp.tanh(a), r.T), p.basis), jnp.sum(log_det, axis=-1)


def sylvester_inverse(p: Sylvester, y: Array) -> tuple[Array, Array]:
    """Solves Q^T y = v + R tanh(S v + b) from the last row up, one unknown at a time."""
    slopes, r, s = _triangles(p)
    known = _dot(y, p.basis.T)

    def row(carry: tuple[Array, Array], at: Any) -> Any:
        v, h = carry
        i, r_i, s_i, slope, rate, b = at
        # What later unknowns contribute; this one's own are still zero.
        shift = _dot(v, s_i) + b
        rest = known[..., i] - _dot(h, r_i)
        a, log_det = _straighten(slope, rate * rest + shift)
        h_i = jnp.tanh(a)
        v = v.at[..., i].set((a - shift) / rate)
        return (v, h.at[..., i].set(h_i)), log_det

    index = jnp.arange(p.b.shape[0], dtype=jnp.int32)
    rates = jnp.diagonal(s)
    start = (jnp.zeros_like(known), jnp.zeros_like(known))
    at = (index, r, s, slopes, rates, p.b)
    (_, h), log_dets = lax.scan(row, start, at, reverse=True)
    return y - _dot(_dot(h, r.T), p.basis), jnp.sum(log_dets, axis=0)


def _triangles(p: Sylvester) -> tuple[Array, Array, Array]:
    """The products of the diagonals, R, and S."""
    slopes = above_minus_one(p.slopes)
    rates = jnp.exp(3 * jnp.tanh(p.rates / 3))
    r = jnp.triu(p.upper, 1) + jnp.diag(slopes / rates)
    return slopes, r, jnp.triu(p.inner, 1) + jnp.diag(rates)


def _dot(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=_EXACT)


class ConvFlow(NamedTuple):
    """Numbers of y_i = x_i + u_i tanh(sum_k w_k x_i+k d + b_i).

    Attributes:
      log_w: log of w_0, ().
      w: w_1, ..., w_K-1, (K - 1,).
      slopes: raw u_i w_0, (D,).
      b: (D,).
    """

    log_w: Array
    w: Array
    slopes: Array
    b: Array


def conv_flow(p: ConvFlow, dilation: int, x: Array) -> tuple[Array, Array]:
    """y_i = x_i + u_i tanh(a_i), a_i = sum_k w_k x_i+k d + b_i, zero beyond the end, u_i w_0 > -1.

    The Jacobian is triangular: log|det| = sum_i log(1 + u_i w_0 sech^2(a_i))   (Zheng et al., 2017)
    """
    first, slopes = _first_tap(p)
    later = jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, dilation * p.w.shape[0]),))
    a = first * x + align(p.b, x)
    for k in range(1, p.w.shape[0] + 1):
        a = a + p.w[k - 1] * later[..., k * dilation : k * dilation + x.shape[-1]]
    _, log_det = _bend(align(slopes, a), a)
    return x + align(slopes, x) / first * jnp.tanh(a), jnp.sum(log_det, axis=-1)


def conv_flow_inverse(p: ConvFlow, dilation: int, y: Array) -> tuple[Array, Array]:
    """From the last numbers back, `dilation` of them at once, each one equation of one unknown."""
    first, slopes = _first_tap(p)
    size = y.shape[-1]
    steps = -(-size // dilation)
    real = jnp.arange(steps * dilation, dtype=jnp.int32).reshape(steps, dilation) < size

    def blocks(a: Array) -> Array:
        padded = jnp.pad(a, ((0, 0),) * (a.ndim - 1) + ((0, steps * dilation - size),))
        return jnp.moveaxis(padded.reshape(*a.shape[:-1], steps, dilation), -2, 0)

    def block(later: Array, at: Any) -> tuple[Array, tuple[Array, Array]]:
        y, slope, b, real = at
        shift = jnp.tensordot(p.w, later, 1) + align(b, y)
        a, log_det = _straighten(jnp.broadcast_to(align(slope, y), y.shape), first * y + shift)
        inside = jnp.broadcast_to(real.reshape((1,) * (y.ndim - 1) + (-1,)), y.shape)
        x = jnp.where(inside, (a - shift) / first, 0)
        return jnp.concatenate([x[None], later[:-1]]), (x, jnp.where(inside, log_det, 0))

    start = jnp.zeros((p.w.shape[0], *y.shape[:-1], dilation), y.dtype)
    at = (blocks(y), blocks(slopes), blocks(p.b), real)
    _, (x, log_dets) = lax.scan(block, start, at, reverse=True)
    shape = (*y.shape[:-1], steps * dilation)
    x, log_dets = (jnp.moveaxis(a, 0, -2).reshape(shape) for a in (x, log_dets))
    return x[..., :size], jnp.sum(log_dets, axis=-1)


def _first_tap(p: ConvFlow) -> tuple[Array, Array]:
    """w_0 > 0, and the slopes u_i w_0 > -1."""
    return jnp.exp(3 * jnp.tanh(p.log_w / 3)), above_minus_one(p.slopes)
