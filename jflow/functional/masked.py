"""Masked networks for autoregressive flows (MADE), as functions of their weights.

Feature i = 0, 1, ... has degree i + 1 as an input, and degree i as an output. A unit of degree d
sees what has degree d or less, so output i depends on features 0, ..., i - 1 alone. Units are
sorted by degree: all masks are block-triangular, and a product computes its blocks only.

Reference: Germain et al., MADE, 2015, https://arxiv.org/abs/1502.03509
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

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
      graph: (D, D), whose entry i, j tells whether feature i depends on feature j < i; None for
        all of those. A unit of degree d then sees what feature d depends on.
    """

    features: int
    outputs: int
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]
    residual: bool = False
    context: bool = False
    graph: tuple[tuple[bool, ...], ...] | None = None

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

    @cached_property
    def masks(self) -> tuple[np.ndarray, ...]:
        """Of each kernel, (inputs, units): which inputs each unit sees."""
        masks = [np.less_equal(seen[:, None], seeing) for seen, seeing in pairwise(self.degrees)]
        if self.graph is None:
            return tuple(masks)
        parents = np.array(self.graph, bool)
        # A unit sees those that see nothing but what it may see.
        within = (parents.astype(np.float32) @ ~parents.T) == 0
        of_units = zip(masks[1:], pairwise(self.degrees[1:]), strict=True)
        return (
            parents[self.degrees[1]].T,
            *(mask & within[np.ix_(seen, seeing)] for mask, (seen, seeing) in of_units),
        )

    @cached_property
    def direct_mask(self) -> np.ndarray:
        """Of what leads from inputs to outputs, (D, D)."""
        if self.graph is not None:
            return np.asarray(self.graph).T
        return np.less_equal(self.degrees[0][:, None], self.degrees[-1])

    def masked(self, weights: Weights) -> tuple[Array, ...]:
        """All kernels with what is not seen set to zero."""
        *masks, last = self.masks
        return tuple(map(_masked, (*masks, last[:, None, :]), weights.kernels))

    def masked_direct(self, weights: Weights) -> Array | None:
        """What leads from inputs to outputs, if anything, with what is not seen set to zero."""
        if weights.direct is None:
            return None
        return _masked(self.direct_mask[:, None, :], weights.direct)

    def states(
        self, weights: Weights, x: Array, alter: Callable[[Array, int], Array] | None = None
    ) -> tuple[list[Array], Array]:
        """Pre-activations of all hidden layers, (*batch, units), and outputs (*batch, outputs, D).

        Args:
          weights: of the network.
          x: (*batch, D).
          alter: what hidden values become, given them and the number of their layer.
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
            values = self.activation(state)
            values = values if alter is None else alter(values, i)
        outputs = self._product(len(self.hidden), values, weights.kernels[-1])
        added = _like(weights.biases[-1], outputs)
        if weights.direct_context is not None:
            added = added + weights.direct_context
        outputs = outputs + added
        if weights.direct is not None:
            x = x.astype(outputs.dtype)
            outputs = outputs + masked_product(self.direct_mask, x, weights.direct)
        return states, outputs

    def _product(self, layer: int, values: Array, kernel: Array) -> Array:
        return masked_product(self.masks[layer], values, kernel)


def _masked(mask: np.ndarray, kernel: Array) -> Array:
    return jnp.where(jnp.broadcast_to(jnp.asarray(mask), kernel.shape), kernel, 0)


def masked_product(mask: np.ndarray, values: Array, kernel: Array) -> Array:
    """values (*batch, n) times the masked kernel (n, p, m): (*batch, p, m), block by block.

    Args:
      mask: (n, m), which inputs each output sees. Where it is triangular, later outputs seeing
        more, blocks of it that are zero are not computed.
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
            seen = np.flatnonzero(mask[:, start:stop].any(axis=1))
            rows = int(seen.max(initial=-1)) + 1
            block = _masked(mask[:rows, None, start:stop], kernel[:rows, :, start:stop])
            flat = block.reshape(rows, p * (stop - start))
            product = matmul_last(values[..., :rows], flat, precision=_EXACT)
            parts.append(product.reshape(*values.shape[:-1], p, stop - start))
        return jnp.concatenate(parts, axis=-1)

    return product(values, kernel)


def _like(bias: Array, x: Array) -> Array:
    return bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)
