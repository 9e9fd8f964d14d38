"""Block neural autoregressive flows, as functions of their weights.

Every hidden layer has `a` units for each of D features; weights between units of one feature are
positive, units see those of features before with any weights, and those of later features not at
all. With tanh, and a multiple of input i added, output i is an increasing function of input i, onto
the line, given the inputs before.

Reference: De Cao, Titov, Aziz, 2019, https://arxiv.org/abs/1904.04676
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arrays import align
from jflow.functional.autoregressive import Causal, ScalarMap, Step
from jflow.functional.masked import masked_product
from jflow.functional.masked_steps import rows, set_rows
from jflow.functional.roots import invert_increasing

_EXACT = lax.Precision.HIGHEST


class Column(NamedTuple):
    """A feature's own part of the network, given the features before; or of all features.

    Units lead, since there are few of them: loops go over the batch.

    Attributes:
      log_diagonals: logs of its own weights in each layer, ([D,] inputs, outputs).
      shifts: what those before, biases and context contribute, (outputs, *batch[, D]).
      log_gate: log of the slope of what is added to its output, ([D]).
    """

    log_diagonals: tuple[Array, ...]
    shifts: tuple[Array, ...]
    log_gate: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockNet(Causal):
    """A network bound to its weights; a pytree.

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

    def __call__(self, u: Array) -> Column:
        shifts, values = [], u[None]
        for i, (kernel, log_diagonal) in enumerate(
            zip(self.kernels, self.log_diagonals, strict=True)
        ):
            nothing = jnp.zeros_like(log_diagonal)
            before = _between(kernel, nothing, jnp.moveaxis(values, 0, -1))
            shifts.append(jnp.moveaxis(before + self._added(i, before), -1, 0))
            if i + 1 < len(self.kernels):
                values = jnp.tanh(_own(log_diagonal, values) + shifts[-1])
        return Column(self.log_diagonals, tuple(shifts), self.log_gates)

    def _added(self, layer: int, like: Array) -> Array:
        """Biases, and what the context adds."""
        bias = align(self.biases[layer], like)
        return bias if layer or self.context is None else bias + self.context

    def start(self, like: Array) -> tuple[Any, Step]:
        features, batch = like.shape[-1], like.shape[:-1]
        count, dtype = math.prod(batch), like.dtype
        kernels = [_seen_by_each(kernel) for kernel in self.kernels]
        added = [self._added(i, jnp.zeros((*batch, 1, 1), dtype)) for i in range(len(kernels))]
        added = [jnp.moveaxis(a.reshape(-1, *a.shape[-2:]), 0, -1) for a in added]
        inputs, outputs = zip(*(kernel.shape[1::2] for kernel in self.kernels), strict=True)

        def step(cache: Any, i: Array, before: Array) -> tuple[Any, Column]:
            values, shifts = cache  # units lead: those of feature 0, of feature 1, ...
            last = jnp.maximum(i - 1, 0)
            of_last = [rows(s, last * n, n) for s, n in zip(shifts, outputs, strict=True)]
            own = _units(self._column(last, of_last), before.reshape(count))
            values = [
                set_rows(z, z_i, last * n) for z, z_i, n in zip(values, own, inputs, strict=True)
            ]
            new = [
                jnp.matmul(kernel[i], z, precision=_EXACT) + add[i]
                for kernel, z, add in zip(kernels, values, added, strict=True)
            ]
            shifts = [set_rows(s, n, i * len(n)) for s, n in zip(shifts, new, strict=True)]
            shaped = [n.reshape(len(n), *batch) for n in new]
            return (values, shifts), self._column(i, shaped)

        empty = lambda n: jnp.zeros((features * n, count), dtype)  # noqa: E731
        return ([*map(empty, inputs)], [*map(empty, outputs)]), step

    def _column(self, i: Array, shifts: list[Array]) -> Column:
        diagonals = tuple(diagonal[i] for diagonal in self.log_diagonals)
        return Column(diagonals, tuple(shifts), self.log_gates[i])


def _seen_by_each(kernel: Array) -> Array:
    """A kernel as each feature reads it, (D, outputs, D inputs), zero where it does not."""
    features, inputs, _, outputs = kernel.shape
    earlier = np.tril(np.ones((features, features), bool), -1).T[:, None, :, None]
    masked = jnp.where(jnp.broadcast_to(jnp.asarray(earlier), kernel.shape), kernel, 0)
    return jnp.moveaxis(masked.reshape(features * inputs, features, outputs), 0, -1)


def _tanh(h: Array) -> tuple[Array, Array]:
    """tanh(h), and the log of its slope."""
    decay = -2 * jnp.abs(h)
    return jnp.tanh(h), math.log(4) + decay - 2 * jnp.log1p(jnp.exp(decay))


def _fast(net: BlockNet, u: Array) -> tuple[Array, Array]:
    """v and log|dv_i/du_i| of u, (*batch, D) all."""
    values, log_slopes = u[..., None], jnp.zeros((*u.shape, 1), u.dtype)
    for i, (kernel, log_diagonal) in enumerate(zip(net.kernels, net.log_diagonals, strict=True)):
        values = _between(kernel, jnp.exp(log_diagonal), values)
        values = values + net._added(i, values)
        log_slopes = _chain(log_diagonal, log_slopes, units=-1)
        if i + 1 < len(net.kernels):
            values, bent = _tanh(values)
            log_slopes = log_slopes + bent
    gates = align(net.log_gates, u)
    return values[..., 0] + jnp.exp(gates) * u, jnp.logaddexp(log_slopes[..., 0], gates)


def _between(kernel: Array, diagonal: Array, values: Array) -> Array:
    """The product with blocks i <= j: (*batch, D, inputs) to (*batch, D, outputs)."""
    features, inputs, _, outputs = kernel.shape
    own = jnp.arange(features, dtype=jnp.int32)
    kernel = jnp.asarray(kernel).at[own, :, own, :].set(diagonal, unique_indices=True)
    degrees = np.arange(features).repeat
    flat = values.reshape(*values.shape[:-2], features * inputs)
    mask = degrees(inputs)[:, None] <= degrees(outputs)
    product = masked_product(mask, flat, kernel.reshape(features * inputs, 1, -1))
    return product.reshape(*values.shape[:-2], features, outputs)


def _own(log_diagonal: Array, values: Array, units: int = 0) -> Array:
    """The product with positive matrices, ([D,] inputs, outputs), along the axis of units."""
    forms = {0: "i...d,dio->o...d", -1: "...di,dio->...do"}
    form = forms[units] if log_diagonal.ndim == 3 else "i...,io->o..."
    return jnp.einsum(form, values, jnp.exp(log_diagonal), precision=_EXACT)


def _chain(log_diagonal: Array, log_slopes: Array, units: int = 0) -> Array:
    """log of the product of positive matrices, given the log of a vector."""
    top = lax.stop_gradient(jnp.max(log_slopes, axis=units, keepdims=True))
    return jnp.log(_own(log_diagonal, jnp.exp(log_slopes - top), units)) + top


def _backward(v: Array, column: Column) -> tuple[Array, Array]:
    """The inputs of columns whose outputs are v, and log|du/dv|."""
    zero, gate = jnp.zeros_like(v), align(column.log_gate, v)
    # From the value at zero, no slope is less than the gate's; a little more, for rounding.
    distance = 1.01 * (v - _forward(zero, column)[0]) * jnp.exp(-gate)
    low, high = jnp.minimum(distance, zero), jnp.maximum(distance, zero)
    return invert_increasing(lambda column, u: _forward(u, column), column, v, low, high)


def _forward(u: Array, column: Column) -> tuple[Array, Array]:
    """Outputs of columns, and log-slopes."""
    values, log_slopes = u[None], jnp.zeros((1, *u.shape), u.dtype)
    last = len(column.shifts) - 1
    for i, (log_diagonal, shift) in enumerate(
        zip(column.log_diagonals, column.shifts, strict=True)
    ):
        values = _own(log_diagonal, values) + shift
        log_slopes = _chain(log_diagonal, log_slopes)
        if i < last:
            values, bent = _tanh(values)
            log_slopes = log_slopes + bent
    gate = align(column.log_gate, u)
    return values[0] + jnp.exp(gate) * u, jnp.logaddexp(log_slopes[0], gate)


def _units(column: Column, u: Array) -> list[Array]:
    """What a feature's part of each layer is given, the input u (N,) first."""
    units = [u[None]]
    for log_diagonal, shift in zip(column.log_diagonals[:-1], column.shifts[:-1], strict=True):
        units.append(jnp.tanh(_own(log_diagonal, units[-1]) + shift))
    return units


MAP = ScalarMap(_forward, _backward, _fast)
