"""Families of invertible matrices: how each is parameterised, applied and undone."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.fft import dct, idct
from jax.scipy.linalg import expm

from jflow.functional import transforms
from jflow.functional.orthogonal import reflect
from jflow.functional.triangular import solve_rows


class Matrix(NamedTuple):
    """An invertible D x D matrix W, by what it does to rows (N, D).

    Attributes:
      times: x to x W.
      solve: x to x W^-1.
      log_det: log|det W|.
      formed: whether W, or its inverse, is better formed once where there are more than D rows.
    """

    times: Callable[[Array], Array]
    solve: Callable[[Array], Array]
    log_det: Array
    formed: bool = True


class Store(Protocol):
    """Where a family finds what it is made of, by name."""

    size: int
    dtype: Any
    rank: int

    def param(self, name: str, init: Any, shape: tuple[int, ...]) -> Array:
        """A trained parameter; `init(key, shape, dtype)` gives its first value."""
        ...

    def drawn(self, draw: Callable[[Array], dict[str, Array]], *constants: str) -> dict[str, Array]:
        """Arrays drawn together from one key; those named are not trained."""
        ...


def _dot(x: Array, y: Array) -> Array:
    # What must be undone may not be rounded, as GPUs and TPUs round products by default.
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


_ZEROS = nn.initializers.zeros


def _small(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return 0.1 / math.sqrt(shape[-1]) * jax.random.normal(key, shape, dtype)


def diagonal(store: Store) -> Matrix:
    """diag(e^s)."""
    log_scale = store.param("log_scale", _ZEROS, (store.size,))[None]
    return Matrix(
        lambda x: x * jnp.exp(log_scale),
        lambda x: x * jnp.exp(-log_scale),
        jnp.sum(log_scale),
        formed=False,
    )


def _triangular(store: Store, lower: bool) -> Matrix:
    log_scale = store.param("log_scale", _ZEROS, (store.size,))
    kernel = store.param("kernel", _small, (store.size, store.size))
    matrix = jnp.tril(kernel, -1) if lower else jnp.triu(kernel, 1)
    matrix = matrix + jnp.diag(jnp.exp(log_scale))
    return Matrix(
        lambda x: _dot(x, matrix),
        lambda x: solve_rows(matrix, x, lower=lower),
        jnp.sum(log_scale),
    )


def lower(store: Store) -> Matrix:
    """Lower triangular, with e^s on the diagonal."""
    return _triangular(store, lower=True)


def upper(store: Store) -> Matrix:
    """Upper triangular, with e^s on the diagonal."""
    return _triangular(store, lower=False)


def plu(store: Store) -> Matrix:
    """P L (U + diag(sign e^s)), starting as a random rotation."""
    f = store.drawn(lambda key: _random_plu(key, store.size, store.dtype), "sign", "order")
    eye = jnp.eye(store.size, dtype=store.dtype)
    low = jnp.tril(f["lower"], -1) + eye
    up = jnp.triu(f["upper"], 1)
    up = up + jnp.diag(f["sign"].astype(store.dtype) * jnp.exp(f["log_scale"]))
    order = f["order"]
    rows = jnp.argsort(order)

    def solve(x: Array) -> Array:
        return solve_rows(low, solve_rows(up, x, lower=False), lower=True)[:, rows]

    return Matrix(lambda x: _dot(_dot(x[:, order], low), up), solve, jnp.sum(f["log_scale"]))


def _random_plu(key: Array, size: int, dtype: jnp.dtype) -> dict[str, Array]:
    """The factors of a random rotation W: W[order] = L U."""
    rotation = jax.random.orthogonal(key, size, dtype=dtype)
    lu, _, order = jax.lax.linalg.lu(rotation)
    diagonal = jnp.diag(lu)
    return {
        "lower": jnp.tril(lu, -1),
        "upper": jnp.triu(lu, 1),
        "log_scale": jnp.log(jnp.abs(diagonal)),
        "sign": jnp.sign(diagonal),
        "order": order,
    }


def dense(store: Store) -> Matrix:
    """V diag(e^s), where the columns of V have length 1."""
    kernel = store.param("kernel", nn.initializers.orthogonal(), (store.size, store.size))
    log_scale = store.param("log_scale", _ZEROS, (store.size,))
    log_lengths = jnp.log(jnp.linalg.norm(kernel, axis=0))
    # Scales go to the vectors: a matrix that is made anew for its product is computed many times.
    scale = jnp.exp(log_scale - log_lengths)[None]
    return Matrix(
        lambda x: _dot(x, kernel) * scale,
        lambda x: jnp.linalg.solve(kernel.T, (x / scale).T).T,
        jnp.linalg.slogdet(kernel)[1] + jnp.sum(log_scale - log_lengths),
    )


def householder(store: Store) -> Matrix:
    """A product of `rank` reflections: orthogonal."""
    vectors = store.param("vectors", nn.initializers.normal(1.0), (store.rank, store.size))
    return Matrix(
        lambda x: reflect(vectors, x),
        lambda x: reflect(vectors, x, inverse=True),
        jnp.zeros((), store.dtype),
    )


def qr(store: Store) -> Matrix:
    """Q R: a product of reflections, and an upper triangle with e^s on its diagonal."""
    q, r = householder(store), upper(store)
    return Matrix(lambda x: r.times(q.times(x)), lambda x: q.solve(r.solve(x)), r.log_det)


def _skew(store: Store) -> Array:
    kernel = jnp.tril(store.param("kernel", _small, (store.size, store.size)), -1)
    return kernel - kernel.T


def cayley(store: Store) -> Matrix:
    """(I - A) (I + A)^-1 of a skew-symmetric A: a rotation."""
    skew, eye = _skew(store), jnp.eye(store.size, dtype=store.dtype)
    return Matrix(
        lambda x: jnp.linalg.solve((eye + skew).T, _dot(x, eye - skew).T).T,
        lambda x: jnp.linalg.solve((eye - skew).T, _dot(x, eye + skew).T).T,
        jnp.zeros((), store.dtype),
    )


def exponential(store: Store) -> Matrix:
    """exp(A) of a skew-symmetric A: a rotation."""
    matrix = expm(_skew(store))
    return Matrix(
        lambda x: _dot(x, matrix), lambda x: _dot(x, matrix.T), jnp.zeros((), store.dtype)
    )


def low_rank(store: Store) -> Matrix:
    """(I + U^T M U) diag(e^s), with M = K K^T + B - B^T of size `rank`.

    The symmetric part of the bracket is I + (K^T U)^T (K^T U): its singular values are 1 or more.
    """
    rank = store.rank
    u = store.param("u", nn.initializers.variance_scaling(1.0, "fan_out", "normal"),
                    (rank, store.size))  # fmt: skip
    k = store.param("k", lambda key, shape, dtype: 0.1 * jnp.eye(*shape, dtype=dtype), (rank, rank))
    b = store.param("b", _ZEROS, (rank, rank))
    log_scale = store.param("log_scale", _ZEROS, (store.size,))
    m = _dot(k, k.T) + jnp.tril(b, -1) - jnp.tril(b, -1).T
    inner = jnp.eye(rank, dtype=store.dtype) + _dot(_dot(u, u.T), m)

    def solve(x: Array) -> Array:
        x = x * jnp.exp(-log_scale)[None]
        return x - _dot(jnp.linalg.solve(inner.T, _dot(_dot(x, u.T), m).T).T, u)

    log_det = jnp.linalg.slogdet(inner)[1] + jnp.sum(log_scale)
    times = lambda x: (x + _dot(_dot(_dot(x, u.T), m), u)) * jnp.exp(log_scale)[None]  # noqa: E731
    return Matrix(times, solve, log_det, formed=False)


def circulant(store: Store) -> Matrix:
    """Rows are one row, rotated: diagonal after a Fourier transform, with entries e^(s + i phi)."""
    size = store.size
    log_scale = store.param("log_scale", _ZEROS, (size // 2 + 1,))
    phase = store.param("phase", _ZEROS, ((size - 1) // 2,))
    # The entries at frequency 0, and at half of an even size, are real.
    phase = jnp.pad(phase, (1, size // 2 - (size - 1) // 2))
    size_of = jnp.exp(log_scale)
    entries = lax.complex(size_of * jnp.cos(phase), size_of * jnp.sin(phase))[None]
    counts = np.full(size // 2 + 1, 2.0)
    counts[0] = 1
    if size % 2 == 0:
        counts[-1] = 1
    return Matrix(
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * entries, size),
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x) / entries, size),
        jnp.sum(jnp.asarray(counts, store.dtype) * log_scale),
        formed=False,
    )


def butterfly(store: Store) -> Matrix:
    """log2(D) levels of D / 2 rotations of pairs, as in fast Fourier transforms, then diag(e^s)."""
    levels = max(1, (store.size - 1).bit_length())
    angles = store.param(
        "angles", nn.initializers.uniform(2 * math.pi), (levels, 2 ** (levels - 1))
    )
    log_scale = store.param("log_scale", _ZEROS, (store.size,))[None]
    return Matrix(
        lambda x: transforms.butterfly(angles, x) * jnp.exp(log_scale),
        lambda x: transforms.butterfly(angles, x * jnp.exp(-log_scale), inverse=True),
        jnp.sum(log_scale),
        formed=False,
    )


def cosine(store: Store) -> Matrix:
    """The orthonormal discrete cosine transform (type II). No parameters."""
    return Matrix(
        lambda x: dct(x, norm="ortho"),
        lambda x: idct(x, norm="ortho"),
        jnp.zeros((), store.dtype),
        formed=False,
    )


def haar(store: Store) -> Matrix:
    """The orthonormal Haar wavelet transform of 2^m numbers. No parameters."""
    return Matrix(
        transforms.haar,
        lambda x: transforms.haar(x, inverse=True),
        jnp.zeros((), store.dtype),
        formed=False,
    )


FAMILIES: dict[str, Callable[[Store], Matrix]] = {
    "diagonal": diagonal,
    "lower": lower,
    "upper": upper,
    "plu": plu,
    "dense": dense,
    "qr": qr,
    "householder": householder,
    "cayley": cayley,
    "expm": exponential,
    "low_rank": low_rank,
    "circulant": circulant,
    "butterfly": butterfly,
    "dct": cosine,
    "haar": haar,
}
WITH_RANK = ("householder", "low_rank")
