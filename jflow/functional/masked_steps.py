"""Masked networks, unit by unit: what the slow direction of autoregressive flows asks for.

Step i computes the units of degree i alone, so that all steps cost about one evaluation.
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.autoregressive import Back, Causal, Step
from jflow.functional.masked import MaskedNet, Weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MaskedFunction(Causal):
    """A masked network bound to its weights.

    Attributes:
      net: its shape.
      weights: what it computes with.
      key: of what is dropped, where all features are computed at once; or None.
      dropout: the share of hidden values that is dropped.
    """

    net: MaskedNet = field(metadata={"static": True})
    weights: Weights
    key: Array | None = None
    dropout: float = field(default=0.0, metadata={"static": True})

    def __call__(self, u: Array, alter: Any = None) -> Array:
        if alter is None and self.key is not None:
            alter = partial(self._dropped, self.key)
        _, params = self.net.states(self.weights, u, alter)
        return jnp.swapaxes(params, -1, -2).astype(u.dtype)

    def without_dropout(self) -> "MaskedFunction":
        return replace(self, key=None)

    def careful(self, u: Array) -> Array:
        # Zero kernels do not protect from an infinite unit: 0 times infinity is NaN.
        return self(u, lambda values, _: jnp.where(jnp.isfinite(values), values, 0))

    def _dropped(self, key: Array, values: Array, layer: int) -> Array:
        key = jax.random.fold_in(key, layer)
        kept = jax.random.bernoulli(key, 1 - self.dropout, values.shape)
        return jnp.where(kept, values / max(1 - self.dropout, 1e-9), 0)

    def start(self, like: Array) -> tuple[Any, Step]:
        net, batch = self.net, like.shape[:-1]
        count, dtype = math.prod(batch), self.weights.kernels[0].dtype
        read, (starts, sizes) = _columns(net, self.weights, count), _groups(net)
        starts = jnp.asarray(starts)

        def step(cache: Any, i: Array, before: Array) -> Any:
            u, states, values = cache
            u = set_rows(u, before.reshape(1, count).astype(dtype), jnp.maximum(i - 1, 0))
            states, values = _grow(net, read, sizes, i, starts[i], u, states, values)
            params = _product(read.kernels[-1][i], values[-1]) + read.last[i]
            if read.direct is not None:
                params = params + _product(read.direct[i], u)
            params = params.T.reshape(*batch, net.outputs).astype(before.dtype)
            return (u, states, values), params

        empty = [jnp.zeros((units, count), dtype) for units in net.hidden]
        return (jnp.zeros((net.features, count), dtype), empty, empty), step

    def finish(self, u: Array) -> tuple[Array, Any, Back]:
        """The units of one degree at a time; products are read, not added to all that is before."""
        net, batch, count = self.net, u.shape[:-1], math.prod(u.shape[:-1])
        states, params = net.states(self.weights, u)
        slopes = [jax.jvp(net.activation, (s,), (jnp.ones_like(s),))[1] for s in states]
        slopes = [s.reshape(count, s.shape[-1]).T for s in slopes]
        flat = lambda k: jnp.swapaxes(k, -1, -2).reshape(len(k), -1)  # noqa: E731
        kernels, direct = list(net.masked(self.weights)), net.masked_direct(self.weights)
        kernels[-1], direct = flat(kernels[-1]), None if direct is None else flat(direct)
        starts, sizes = _groups(net)
        starts = jnp.asarray(starts)

        def back(cotangents: Any, i: Array, of_params: Array) -> tuple[Any, Array]:
            units, params = cotangents
            of_params = of_params.reshape(count, net.outputs).T.astype(params.dtype)
            params = set_rows(params, of_params, i * net.outputs)
            units = _shrink(net, kernels, slopes, sizes, starts[i], units, params)
            before = jnp.maximum(i - 1, 0)
            reached = _product(kernels[0][before], units[0])
            if direct is not None:
                reached = reached + _product(direct[before], params)
            return (units, params), reached.reshape(batch).astype(u.dtype)

        dtype = kernels[0].dtype
        empty = [jnp.zeros((units, count), dtype) for units in net.hidden]
        nothing = (empty, jnp.zeros((net.features * net.outputs, count), dtype))
        return jnp.moveaxis(params, -1, 0).astype(u.dtype), nothing, back


class _Columns(NamedTuple):
    """A network's weights as steps read them, a few units at a time: units lead.

    Attributes:
      kernels: masked, (units, inputs), and the last, (D, outputs, units).
      biases: (units, 1) each.
      first: what is added to the first hidden layer: its bias and the context's part, (units, N).
      last: what is added to the outputs: (D, outputs, 1), or (D, outputs, N) if the context has a
        part in it.
      direct: from inputs to outputs, masked, (D, outputs, inputs); or None.
    """

    kernels: tuple[Array, ...]
    biases: tuple[Array, ...]
    first: Array
    last: Array
    direct: Array | None


def _grow(
    net: MaskedNet,
    read: _Columns,
    sizes: list[int],
    i: Array,
    start: Array,
    u: Array,
    states: list[Array],
    values: list[Array],
) -> tuple[list[Array], list[Array]]:
    """Computes the units of degree i in every hidden layer.

    A slice may reach into the next group, whose inputs are not there yet: those units count as
    zero, since an infinite one would spoil products with kernels that are zero.
    """
    states, values, inputs = list(states), list(values), u
    for layer, size in enumerate(sizes):
        at = start[layer]
        added = read.first if layer == 0 else read.biases[layer]
        state = _product(rows(read.kernels[layer], at, size), inputs) + rows(added, at, size)
        if net.skips(layer):
            state = state + rows(states[layer - 2], at, size)
        degrees = jnp.asarray(net.degrees[layer + 1][:, None], jnp.int32)
        ready = rows(degrees, at, size) <= i
        state = jnp.where(jnp.broadcast_to(ready, state.shape), state, 0)
        states[layer] = set_rows(states[layer], state, at)
        values[layer] = set_rows(values[layer], net.activation(state), at)
        inputs = values[layer]
    return states, values


def _shrink(
    net: MaskedNet,
    kernels: list[Array],
    slopes: list[Array],
    sizes: list[int],
    start: Array,
    units: list[Array],
    params: Array,
) -> list[Array]:
    """Computes the cotangents of units of one degree in every hidden layer, the last one first."""
    units = list(units)
    for layer in reversed(range(len(sizes))):
        at, size = start[layer], sizes[layer]
        after = params if layer == len(sizes) - 1 else units[layer + 1]
        cotangent = _product(rows(kernels[layer + 1], at, size), after)
        cotangent = cotangent * rows(slopes[layer], at, size)
        if layer + 2 < len(sizes) and net.skips(layer + 2):
            cotangent = cotangent + rows(units[layer + 2], at, size)
        units[layer] = set_rows(units[layer], cotangent, at)
    return units


def _columns(net: MaskedNet, weights: Weights, batch: int) -> _Columns:
    """Rearranges weights for evaluation on `batch` examples."""
    masked = net.masked(weights)
    kernels = (*(kernel.T for kernel in masked[:-1]), masked[-1].T)
    biases = tuple(bias[:, None] for bias in weights.biases[:-1])
    first = jnp.broadcast_to(biases[0], (net.hidden[0], batch))
    if weights.context is not None:
        first = first + weights.context.reshape(-1, net.hidden[0]).T
    last, direct = weights.biases[-1].T[..., None], net.masked_direct(weights)
    if weights.direct_context is not None:
        last = last + weights.direct_context.reshape(-1, net.outputs, net.features).T
    return _Columns(kernels, biases, first, last, None if direct is None else direct.T)


def _groups(net: MaskedNet) -> tuple[np.ndarray, list[int]]:
    """Where the units of each degree 0, ..., D - 1 begin in each hidden layer, (D, layers), and
    the largest number of units of one degree, for each layer.

    Slices of that length at those places cover each group, and reach into the next one where
    the group is smaller.
    """
    hidden = net.degrees[1:-1]
    starts = [np.searchsorted(degrees, np.arange(net.features)) for degrees in hidden]
    sizes = [int(np.bincount(degrees).max()) for degrees in hidden]
    return np.stack(starts, axis=1).astype(np.int32), sizes


def rows(x: Array, start: Array, size: int) -> Array:
    """x[start : start + size], for a traced start."""
    return lax.dynamic_slice_in_dim(x, start, size, axis=0)


def set_rows(x: Array, values: Array, start: Array) -> Array:
    """x with x[start : start + len(values)] replaced."""
    return lax.dynamic_update_slice_in_dim(x, values, start, axis=0)


def _product(a: Array, b: Array) -> Array:
    """The matrix product, to full precision on every device."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
