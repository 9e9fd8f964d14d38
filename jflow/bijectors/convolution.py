"""Invertible convolutions."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jflow.bijectors.base import Bijector
from jflow.functional.arrays import as_wide, batch_shape
from jflow.functional.convolution import matmul_last

_KINDS = ("plu", "dense")


class Conv1x1(Bijector):
    """Mixes the channels of an image by one invertible matrix at every pixel (Glow).

        inverse   x[i, j] = y[i, j] W         log_det = +height width log|det W|
        forward   y[i, j] = x[i, j] W^-1      log_det = -height width log|det W|

    With event_ndim=1 it mixes the features of a vector, x = y W.

    W starts as a random rotation. W^-1 is formed once, by triangular solves (of the
    LU factors, for "dense").

    Attributes:
      kind: how W is parameterised. "plu": W = P L (U + diag(sign e^s)), where P and the signs
        are fixed, L is unit lower and U strictly upper triangular, and log|det W| = sum(s)
        (Glow, eqs. 10-11). "dense": W = V diag(e^s), where the columns of V have length 1, and
        log|det W| = sum(s) + log|det V|. In both, s are the parameters, so no scale
        e^s reaches zero; "plu" cannot become singular, "dense" can, where columns align.

      event_ndim: 3 for images, 1 for vectors.

    Raises:
      ValueError: an unknown `kind`, or an event with another number of axes.

    Reference: Kingma and Dhariwal, Glow, 2018, section 3.2, https://arxiv.org/abs/1807.03039
    """

    kind: Literal["plu", "dense"] = "plu"
    event_ndim: Literal[1, 3] = 3

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Conv1x1: kind must be one of {_KINDS}; got {self.kind!r}")
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._mix(x, inverse=False)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._mix(y, inverse=True)

    @nn.compact
    def _mix(self, x: Array, *, inverse: bool) -> tuple[Array, Array]:
        x = as_wide(x)
        event_shape = x.shape[x.ndim - self.event_ndim :]
        self.latent_shape(event_shape)
        make = self._plu if self.kind == "plu" else self._dense
        matrix, log_det = make(x.shape[-1], x.dtype, inverse)
        log_det = math.prod(event_shape[:-1]) * log_det
        # GPU and TPU round products of float32 by default, and then W^-1 W is not the identity.
        return matmul_last(x, matrix, precision=lax.Precision.HIGHEST), jnp.broadcast_to(
            log_det, batch_shape(x, self.event_ndim)
        )

    def _plu(self, channels: int, dtype: jnp.dtype, inverse: bool) -> tuple[Array, Array]:
        # The key matters at init only; later Flax asks the initialisers for shapes alone.
        key = self.make_rng("params") if self.is_initializing() else jax.random.key(0)

        def param(name: str) -> Array:
            return self.param(name, lambda _: _random_plu(key, channels, dtype)[name]).astype(dtype)

        def constant(name: str) -> Array:
            start = lambda: _random_plu(key, channels, dtype)[name]  # noqa: E731
            return self.variable("constants", name, start).value

        eye, log_scale = jnp.eye(channels, dtype=dtype), param("log_scale")
        lower = jnp.tril(param("lower"), -1) + eye
        upper = jnp.triu(param("upper"), 1)
        upper = upper + jnp.diag(constant("sign").astype(dtype) * jnp.exp(log_scale))
        rows = jnp.argsort(constant("order"))
        if inverse:
            matrix = jnp.matmul(lower, upper, precision=lax.Precision.HIGHEST)
            return matrix[rows], jnp.sum(log_scale)
        lower_inverse = solve_triangular(lower, eye, lower=True, unit_diagonal=True)
        return solve_triangular(upper, lower_inverse)[:, rows], -jnp.sum(log_scale)

    def _dense(self, channels: int, dtype: jnp.dtype, inverse: bool) -> tuple[Array, Array]:
        kernel = self.param("kernel", nn.initializers.orthogonal(), (channels, channels), dtype)
        log_scale = self.param("log_scale", nn.initializers.zeros, (channels,), dtype)
        kernel, log_scale = kernel.astype(dtype), log_scale.astype(dtype)
        directions = kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)
        matrix = directions * jnp.exp(log_scale)[None, :]
        log_det = jnp.linalg.slogdet(directions)[1] + jnp.sum(log_scale)
        return (matrix, log_det) if inverse else (jnp.linalg.inv(matrix), -log_det)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._expect_event_ndim(event_shape, self.event_ndim)
        return event_shape


def _random_plu(key: Array, channels: int, dtype: jnp.dtype) -> dict[str, Array]:
    """The factors of a random rotation W: W[order] = L U."""
    rotation = jax.random.orthogonal(key, channels, dtype=dtype)
    lu, _, order = jax.lax.linalg.lu(rotation)
    diagonal = jnp.diag(lu)
    return {
        "lower": jnp.tril(lu, -1),
        "upper": jnp.triu(lu, 1),
        "log_scale": jnp.log(jnp.abs(diagonal)),
        "sign": jnp.sign(diagonal),
        "order": order,
    }
