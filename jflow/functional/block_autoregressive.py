"""Block neural autoregressive flows, as functions of their weights.

Every hidden layer has `a` units for each of D features; weights between units of one feature are
positive, units see those of features before with any weights, and those of later features not at
all. With tanh, and a multiple of input i added, output i is an increasing function of input i, onto
the line, given the inputs before.

Reference: De Cao, Titov, Aziz, 2019, https://arxiv.org/abs/1904.04676
"""

import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jflow.functional.arrays import align
from jflow.functional.implicit import solved
from jflow.functional.masked import triangular_product
from jflow.functional.roots import invert_increasing

_EXACT = lax.Precision.HIGHEST


class Weights(NamedTuple):
    """What a network computes with; a pytree.

    Attributes:
      kernels: of each layer, (D, inputs, D, outputs), where inputs and outputs are those of one
        feature: 1 at first and at last, and a between. Blocks i < j are read.
      log_diagonals: logs of the blocks i = j, (D, inputs, outputs).
      biases: (D, outputs).
      log_gates: logs of the slopes of what is added to the outputs, (D,).
      context: what the context adds to the first layer, (*batch, D, a), or None.
    """

    kernels: tuple[Array, ...]
    log_diagonals: tuple[Array, ...]
    biases: tuple[Array, ...]
    log_gates: Array
    context: Array | None


def _tanh(h: Array) -> tuple[Array, Array]:
    """tanh(h), and the log of its slope."""
    decay = -2 * jnp.abs(h)
    return jnp.tanh(h), math.log(4) + decay - 2 * jnp.log1p(jnp.exp(decay))


def fast(weights: Weights, u: Array) -> tuple[Array, Array]:
    """v and log|dv_i/du_i| of u, (*batch, D) all."""
    values, log_slopes = u[..., None], jnp.zeros((*u.shape, 1), u.dtype)
    last = len(weights.kernels) - 1
    for i, (kernel, log_diagonal, bias) in enumerate(
        zip(weights.kernels, weights.log_diagonals, weights.biases, strict=True)
    ):
        values = _layer(kernel, log_diagonal, values) + align(bias, values)
        if i == 0 and weights.context is not None:
            values = values + weights.context
        log_slopes = _chain(log_diagonal, log_slopes)
        if i < last:
            values, bent = _tanh(values)
            log_slopes = log_slopes + bent
    gates = align(weights.log_gates, u)
    return values[..., 0] + jnp.exp(gates) * u, jnp.logaddexp(log_slopes[..., 0], gates)


def _layer(kernel: Array, log_diagonal: Array, values: Array) -> Array:
    """The layer's product: (*batch, D, inputs) to (*batch, D, outputs)."""
    features, inputs, _, outputs = kernel.shape
    own = jnp.arange(features, dtype=jnp.int32)
    diagonal = jnp.exp(log_diagonal)
    kernel = jnp.asarray(kernel).at[own, :, own, :].set(diagonal, unique_indices=True)
    degrees = np.arange(features).repeat
    flat = values.reshape(*values.shape[:-2], features * inputs)
    product = triangular_product(
        degrees(inputs), degrees(outputs), flat, kernel.reshape(features * inputs, 1, -1)
    )
    return product.reshape(*values.shape[:-2], features, outputs)


def _chain(log_diagonal: Array, log_slopes: Array) -> Array:
    """log of the product of positive matrices: (*batch, D, inputs) to (*batch, D, outputs)."""
    top = lax.stop_gradient(jnp.max(log_slopes, axis=-1, keepdims=True))
    shares = jnp.exp(log_slopes - top)
    product = jnp.einsum("...di,dio->...do", shares, jnp.exp(log_diagonal), precision=_EXACT)
    return jnp.log(product) + top


def slow(weights: Weights, v: Array) -> tuple[Array, Array]:
    """u and log|det du/dv| of v (*batch, D), differentiable in both modes.

    u is found feature by feature; all steps together cost about one evaluation of the network, and
    some ten to forty of each feature's own units. Derivatives are those of `solved`, by the
    Jacobian (D columns).
    """

    def divide(weights: Weights, u: Array, b: Array) -> Array:
        return solve_triangular(_jacobian(weights, u), b[..., None], lower=True)[..., 0]

    find = lambda weights, v: (_solve(weights, v), None)  # noqa: E731
    u, _ = solved(find, lambda weights, u: fast(weights, u)[0], divide, weights, v)
    return u, -jnp.sum(fast(weights, u)[1], axis=-1)


def _jacobian(weights: Weights, u: Array) -> Array:
    """dv/du, (*batch, D, D)."""
    columns = jnp.eye(u.shape[-1], dtype=u.dtype)
    push = lambda du: jax.jvp(lambda u: fast(weights, u)[0], (u,), (du,))[1]  # noqa: E731
    return jax.vmap(lambda column: push(jnp.broadcast_to(column, u.shape)), out_axes=-1)(columns)


def _solve(weights: Weights, v: Array) -> Array:
    """u of v, feature by feature."""
    features, layers = v.shape[-1], len(weights.kernels)
    count = math.prod(v.shape[:-1])
    rows = v.reshape(count, features)
    earlier = jnp.tril(jnp.ones((features, features), bool), -1).T
    read, widths = [], []
    for kernel in weights.kernels:
        widths.append(kernel.shape[1])
        seen = jnp.broadcast_to(earlier[:, None, :, None], kernel.shape)
        masked = jnp.where(seen, kernel, 0).reshape(features * widths[-1], features, -1)
        read.append(jnp.moveaxis(masked, 1, 0))
    added = [jnp.broadcast_to(bias, (count, *bias.shape)) for bias in weights.biases]
    if weights.context is not None:
        added[0] = added[0] + weights.context.reshape(-1, *added[0].shape[1:])

    def step(values: list[Array], at: Any) -> tuple[list[Array], Array]:
        i, v_i, kernels, diagonals, add, gate = at
        shifts = [
            jnp.matmul(z.reshape(count, math.prod(z.shape[1:])), kernel, precision=_EXACT) + b
            for z, kernel, b in zip(values, kernels, add, strict=True)
        ]
        u_i = _root((diagonals, shifts, gate), v_i)
        own = _column((diagonals, shifts, gate), u_i)[0]
        values = [z.at[:, i].set(value) for z, value in zip(values, own[:layers], strict=True)]
        return values, u_i

    start = [jnp.zeros((count, features, width), v.dtype) for width in widths]
    added = [jnp.moveaxis(a, 1, 0) for a in added]
    index, diagonals = jnp.arange(features, dtype=jnp.int32), list(weights.log_diagonals)
    at = (index, rows.T, read, diagonals, added, weights.log_gates)
    return lax.scan(step, start, at)[1].T.reshape(v.shape)


# Of one feature, given those before: blocks, what those before contribute, and the gate.
_Column: TypeAlias = tuple[list[Array], list[Array], Array]


def _root(column: _Column, v: Array) -> Array:
    """The input of one feature's column whose output is v, (N,)."""
    value = lambda column, u: _column(column, u)[1:]  # noqa: E731
    zero = jnp.zeros_like(v)
    # From the value at zero, no slope is less than the gate's; a little more, for rounding.
    distance = 1.01 * (v - value(column, zero)[0]) * jnp.exp(-column[2])
    low, high = jnp.minimum(distance, zero), jnp.maximum(distance, zero)
    return invert_increasing(value, column, v, low, high)[0]


def _column(column: _Column, u: Array) -> tuple[list[Array], Array, Array]:
    """Units of one feature, its output, and its log-slope."""
    diagonals, shifts, gate = column
    values, log_slopes, units = u[:, None], jnp.zeros((*u.shape, 1), u.dtype), []
    for i, (diagonal, shift) in enumerate(zip(diagonals, shifts, strict=True)):
        units.append(values)
        values = jnp.matmul(values, jnp.exp(diagonal), precision=_EXACT) + shift
        log_slopes = _chain(diagonal[None], log_slopes[:, None])[:, 0]
        if i < len(diagonals) - 1:
            values, bent = _tanh(values)
            log_slopes = log_slopes + bent
    return units, values[:, 0] + jnp.exp(gate) * u, jnp.logaddexp(log_slopes[:, 0], gate)
