"""Masked networks for autoregressive flows (MADE), as functions of their weights.

Feature i = 0, 1, ... has degree i + 1 as an input, and degree i as an output. A unit of degree d
sees what has degree d or less, so output i depends on features 0, ..., i - 1 alone. Units are
sorted by degree: all masks are block-triangular, and a product computes its blocks only.

Reference: Germain et al., MADE, 2015, https://arxiv.org/abs/1502.03509
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.convolution import matmul_last

# Both ways of evaluating a network must agree to rounding, or inverses are not inverses.
_EXACT = lax.Precision.HIGHEST
# Products are cut into at most this many blocks of at least that many columns.
_BLOCKS, _COLUMNS = 4, 64


class Weights(NamedTuple):
    """What a masked network computes with; a pytree.

    Attributes:
      kernels: one for each hidden layer, (inputs, units), and the last, (units, outputs, D).
      biases: (units,) each, and the last, (outputs, D).
      context: what the context adds to the first hidden layer, (*batch, units) or, for one
        context of all, (1, ..., 1, units); or None.
      direct: from the inputs to the outputs, (D, outputs, D); or None.
      direct_context: what the context adds to the outputs, (*batch, outputs, D) or, for one
        context of all, (1, ..., 1, outputs, D); or None.
    """

    kernels: tuple[Array, ...]
    biases: tuple[Array, ...]
    context: Array | None
    direct: Array | None = None
    direct_context: Array | None = None


@dataclass(frozen=True)
class MaskedNet:
    """The shape of a masked network.

    The pre-activations s of its hidden layers and its outputs are

        s_0 = W_0 x + C context + b_0,   s_l = W_l a(s_l-1) + b_l [+ s_l-2],
        W a(s_last) + b [+ A x + B context]

    with the masks above on every W and A, the first bracket in every second layer if `residual`,
    and the last where there is `Weights.direct`.

    Attributes:
      features: D, the inputs.
      outputs: numbers for each feature.
      hidden: units of the hidden layers, 1 or more layers.
      activation: a.
      residual: whether every second layer adds what the layer two before has.
      context: whether there is a context. Units of degree 0, which see nothing else, exist then
        only (or where there is a single feature).
    """

    features: int
    outputs: int
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    residual: bool = False
    context: bool = False

    @cached_property
    def degrees(self) -> tuple[np.ndarray, ...]:
        """Degrees of the inputs, of the units of each hidden layer, and of the outputs.

        Groups of units of one degree differ in size by one at most. A layer with fewer units
        than degrees has one unit for some of them, evenly spread, the smallest and the largest
        included (a single unit has the largest).
        """
        features = np.arange(self.features)
        lowest = 0 if self.context or self.features == 1 else 1
        groups = self.features - lowest

        def layer(units: int) -> np.ndarray:
            if units < groups:
                spread = np.linspace(self.features - 1, lowest, units)[::-1]
                return np.round(spread).astype(int)
            return lowest - 1 - (-groups * np.arange(1, units + 1) // units)

        hidden = [layer(units) for units in self.hidden]
        return (features + 1, *hidden, features)

    def skips(self, layer: int) -> bool:
        """Whether hidden layer `layer` adds the pre-activation of the layer two before."""
        return self.residual and layer >= 2 and layer % 2 == 0

    def mask(self, layer: int) -> np.ndarray:
        """Of kernel `layer`, (inputs, units): which inputs each unit sees."""
        return self.degrees[layer][:, None] <= self.degrees[layer + 1]

    def masked(self, weights: Weights) -> tuple[Array, ...]:
        """All kernels with what is not seen set to zero."""
        masks = [self.mask(i) for i in range(len(weights.kernels))]
        masks[-1] = masks[-1][:, None, :]
        return tuple(map(_masked, masks, weights.kernels))

    def masked_direct(self, weights: Weights) -> Array | None:
        """What leads from inputs to outputs, if anything, with what is not seen set to zero."""
        if weights.direct is None:
            return None
        return _masked(self.degrees[0][:, None, None] <= self.degrees[-1], weights.direct)

    def states(
        self, weights: Weights, x: Array, drop: Callable[[Array], Array] = lambda h: h
    ) -> tuple[list[Array], Array]:
        """Pre-activations of all hidden layers, (*batch, units), and outputs (*batch, outputs, D).

        Args:
          weights: of the network.
          x: (*batch, D).
          drop: applied to the activations of every hidden layer.
        """
        states: list[Array] = []
        values = x.astype(weights.kernels[0].dtype)
        for i in range(len(self.hidden)):
            state = self._product(i, values, weights.kernels[i][:, None, :])[..., 0, :]
            # In the order in which `columns` adds, for equal roundings.
            added = _like(weights.biases[i], state)
            if i == 0 and weights.context is not None:
                added = added + weights.context
            state = state + added
            if self.skips(i):
                state = state + states[i - 2]
            states.append(state)
            values = drop(self.activation(state))
        outputs = self._product(len(self.hidden), values, weights.kernels[-1])
        added = _like(weights.biases[-1], outputs)
        if weights.direct_context is not None:
            added = added + weights.direct_context
        outputs = outputs + added
        if weights.direct is not None:
            seen, seeing = self.degrees[0], self.degrees[-1]
            x = x.astype(outputs.dtype)
            outputs = outputs + triangular_product(seen, seeing, x, weights.direct)
        return states, outputs

    def _product(self, layer: int, values: Array, kernel: Array) -> Array:
        return triangular_product(self.degrees[layer], self.degrees[layer + 1], values, kernel)


def _masked(mask: np.ndarray, kernel: Array) -> Array:
    return jnp.where(jnp.broadcast_to(jnp.asarray(mask), kernel.shape), kernel, 0)


def triangular_product(seen: np.ndarray, seeing: np.ndarray, values: Array, kernel: Array) -> Array:
    """values (*batch, n) times the masked kernel (n, p, m): (*batch, p, m), block by block.

    Args:
      seen: degrees of the n inputs, sorted.
      seeing: degrees of the m outputs, sorted; each sees the inputs of its degree or less.
      values: the inputs.
      kernel: the weights before the mask.
    """

    # Under checkpoint the backward pass keeps values and kernel, not the blocks cut from them.
    @partial(jax.checkpoint, prevent_cse=False)
    def product(values: Array, kernel: Array) -> Array:
        _, p, m = kernel.shape
        blocks = max(1, min(_BLOCKS, m, p * m // _COLUMNS))
        edges = [m * i // blocks for i in range(blocks + 1)]
        parts = []
        for start, stop in pairwise(edges):
            rows = int(np.searchsorted(seen, seeing[stop - 1], side="right"))
            mask = jnp.asarray(seen[:rows, None] <= seeing[start:stop])[:, None, :]
            block = kernel[:rows, :, start:stop]
            block = jnp.where(jnp.broadcast_to(mask, block.shape), block, 0)
            flat = block.reshape(rows, p * (stop - start))
            product = matmul_last(values[..., :rows], flat, precision=_EXACT)
            parts.append(product.reshape(*values.shape[:-1], p, stop - start))
        return jnp.concatenate(parts, axis=-1)

    return product(values, kernel)


def _like(bias: Array, x: Array) -> Array:
    return bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


class Columns(NamedTuple):
    """A network's weights as `solve` reads them, a few units at a time: units lead.

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


def columns(net: MaskedNet, weights: Weights, batch: int) -> Columns:
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
    return Columns(kernels, biases, first, last, None if direct is None else direct.T)


def groups(net: MaskedNet) -> tuple[np.ndarray, list[int]]:
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


def product(a: Array, b: Array) -> Array:
    """The matrix product, to full precision on every device."""
    return jnp.matmul(a, b, precision=_EXACT)


def slopes(net: MaskedNet, states: list[Array]) -> list[Array]:
    """a'(s) for every pre-activation."""
    return [jax.jvp(net.activation, (s,), (jnp.ones_like(s),))[1] for s in states]


def flatten(x: Array) -> Array:
    """(*batch, n) as (n, N)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).T


def unflatten(x: Array, batch: tuple[int, ...]) -> Any:
    """(n, N) as (*batch, n)."""
    return x.T.reshape(*batch, x.shape[0])
