"""Masked networks: outputs of feature i depend on the features before it alone."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.functional.arrays import wide_dtype
from jflow.functional.masked import MaskedNet, Weights
from jflow.functional.masked_steps import MaskedFunction
from jflow.nets.layers import HIDDEN_GAIN, Net, aligned_context, checked_widths


@dataclass(frozen=True)
class MADE(Net):
    """Makes masked autoencoders for distribution estimation, for `MaskedAutoregressive`.

    Hidden units are sorted by degree, in groups whose sizes differ by one at most. A layer with
    fewer units than features has units of some degrees only, which makes the dependence on the
    features coarser. Units of degree 0 see the context alone. The last layer starts at zero.
    With dtype="bfloat16" the two directions of a flow agree to that precision only.
    Dropout acts where all features are evaluated at once, not in a feature-by-feature inverse.

    Attributes:
      hidden: the widths of the hidden layers.
      residual: whether every second hidden layer adds what the layer two before has; widths of
        those must be equal. See `ResidualMADE`.
      direct: whether outputs have a part that is linear in the D features x and the C numbers c of
        the context (the paper's direct connections), A x / sqrt(D) + B c / sqrt(C). With them,
        features that are nearly linear functions of each other are learned soon; the roots, not in
        the paper, keep a step of an optimiser from moving outputs by more where inputs are many.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: no hidden layers, a width below 1, or residual layers of different widths.

    Reference: Germain et al., 2015, https://arxiv.org/abs/1502.03509
    """

    makes: ClassVar[str] = "causal functions"

    hidden: tuple[int, ...] = (256, 256)
    residual: bool = False
    direct: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", checked_widths("MADE", self.hidden))
        if not self.hidden:
            raise ValueError("MADE: hidden must hold one width or more; got ()")
        if self.residual and (len(self.hidden) % 2 == 0 or len(set(self.hidden[::2])) > 1):
            raise ValueError(
                "MADE: with residual, hidden must be an odd number of widths, with equal first, "
                f"third, ... ones; got {self.hidden}"
            )

    def __call__(self, outputs: int) -> "MaskedWeights":
        """The network with that many outputs for each feature."""
        return MaskedWeights(outputs, self)


def ResidualMADE(hidden: int = 256, blocks: int = 2, **options: Any) -> MADE:
    """A `MADE` of residual blocks of two layers each, h + W_2 a(W_1 a(h) + b_1) + b_2.

    Args:
      hidden: width of all layers.
      blocks: how many blocks.
      options: further fields of `MADE`.

    Reference: Nash and Durkan, 2019, section 4, https://arxiv.org/abs/1904.05626
    """
    return MADE((hidden,) * (1 + 2 * blocks), residual=True, **options)


class MaskedWeights(nn.Module):
    """The parameters of a MADE, called for a number of features.

    Attributes:
      outputs: numbers for each feature.
      config: the MADE.
      graph: (D, D), whose entry i, j tells whether feature i depends on feature j < i; None for
        all of those. Every hidden layer then needs a unit for each feature.

    Raises:
      ValueError: (on call) layers that are too narrow for a graph.
    """

    outputs: int
    config: MADE
    graph: tuple[tuple[bool, ...], ...] | None = None

    @nn.compact
    def __call__(self, x: Array, context: Array | None) -> MaskedFunction:
        """The network bound to its weights, for x (*batch, D)."""
        config, features = self.config, x.shape[-1]
        dtype, param_dtype = config.of(x)
        if self.graph is not None and min(config.hidden) < features:
            raise ValueError(
                f"MADE: with a graph, hidden must be widths of {features} or more, a unit for each "
                f"feature; got {config.hidden}"
            )
        net = MaskedNet(
            features,
            self.outputs,
            config.hidden,
            config.act,
            config.residual,
            context is not None,
            self.graph,
        )
        kernels, biases, inputs = [], [], features
        for i, units in enumerate(config.hidden):
            # By all inputs, not only those that a unit sees: few inputs make it no steeper.
            init = nn.initializers.variance_scaling(HIDDEN_GAIN, "fan_in", "truncated_normal")
            kernels.append(self.param(f"kernel_{i}", init, (inputs, units), param_dtype))
            biases.append(self.param(f"bias_{i}", nn.initializers.zeros, (units,), param_dtype))
            inputs = units
        zeros, last = nn.initializers.zeros, (self.outputs, features)
        kernels.append(self.param("kernel_last", zeros, (inputs, *last), param_dtype))
        biases.append(self.param("bias_last", zeros, last, param_dtype))
        direct = None
        if config.direct:
            direct = self.param("kernel_direct", zeros, (features, *last), param_dtype)
            direct = direct / math.sqrt(features)
        contexts = self._contexts(x, context, param_dtype)
        weights = Weights(tuple(kernels), tuple(biases), contexts[0], direct, contexts[1])
        weights = Weights(*(_cast(part, dtype) for part in weights))
        dropped = config.dropout > 0 and self.has_rng("dropout")
        key = self.make_rng("dropout") if dropped else None
        return MaskedFunction(net, weights, key, config.dropout)

    def _contexts(
        self, x: Array, context: Array | None, dtype: Any
    ) -> tuple[Array | None, Array | None]:
        """What the context adds to the first hidden layer, and to the outputs."""
        if context is None:
            return None, None
        context = aligned_context(context, x.shape[:-1]).astype(wide_dtype(x.dtype))
        lecun = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        first = self._product("kernel_context", context, lecun, self.config.hidden[:1], dtype)
        if not self.config.direct:
            return first, None
        last, zeros = (self.outputs, x.shape[-1]), nn.initializers.zeros
        context = context / math.sqrt(context.shape[-1])
        return first, self._product("kernel_direct_context", context, zeros, last, dtype)

    def _product(
        self, name: str, context: Array, init: Any, shape: tuple[int, ...], dtype: Any
    ) -> Array:
        inputs = context.shape[-1]
        kernel = self.param(name, init, (inputs, *shape), dtype).reshape(inputs, -1)
        product = jnp.matmul(context, kernel.astype(context.dtype), precision="highest")
        return product.reshape(*product.shape[:-1], *shape)


def _cast(part: Any, dtype: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(array.astype(dtype) for array in part)
    return None if part is None else part.astype(dtype)
