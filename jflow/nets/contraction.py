"""What networks with a Lipschitz constant below 1 share."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.functional.convolution import conv2d, matmul_last
from jflow.nets.layers import Dense, Dtypes, aligned_context, context_of_pixels
from jflow.nets.lipschitz_activations import ACTIVATIONS, LipschitzActivation
from jflow.nets.lipschitz_layers import LipschitzLinear, Norms


@dataclass(frozen=True, kw_only=True)
class Contraction:
    """Makes networks g with |g(x) - g(y)|_p <= lipschitz |x - y|_p, lipschitz below 1.

    Called with the number of outputs it gives a Flax module, which is called with x and context,
    for their shapes, and returns g: a function of x alone, and a pytree that holds its weights.
    Norms are bounded there, once, however often g is evaluated.

    Attributes:
      coefficient: what each layer's norm is at most, in (0, 1).
      activation: "lip_swish", "clip_swish" (twice as many weights), "sine", "elu" or "group_sort".
      iterations: of the power method in a training step, at most.

    Raises:
      ValueError: a coefficient outside of (0, 1), or an unknown activation.
    """

    makes: ClassVar[str] = "contractions"

    coefficient: float = 0.98
    activation: str = "lip_swish"
    iterations: int = 5

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 < self.coefficient < 1:
            raise ValueError(
                f"{name}: coefficient, the norm of a layer, must be in (0, 1), or the network does "
                f"not contract; got {self.coefficient}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"{name}: activation must be one of {', '.join(ACTIVATIONS)}; "
                f"got {self.activation!r}"
            )
        check_counts(name, iterations=self.iterations)

    @property
    @abstractmethod
    def lipschitz(self) -> float:
        """A bound on the Lipschitz constant of g."""

    @property
    def norm(self) -> float:
        """The p of the norm in which g contracts."""
        return 2.0

    @property
    def event_ndim(self) -> int:
        """How many trailing axes g acts on: 1 for vectors, 3 for images."""
        return 1

    @abstractmethod
    def __call__(self, features: int) -> nn.Module:
        """The network with that many outputs."""

    @property
    def act(self) -> LipschitzActivation:
        """The activation."""
        return ACTIVATIONS[self.activation]


class Network(nn.Module):
    """What the modules share: layers by name."""

    config: Any

    def layer(self, name: str, features: int, kernel: Any, shape: Any, norms: Norms) -> Any:
        """Kernel and bias of one layer."""
        return LipschitzLinear(features, norms, kernel, name=name)(*shape)

    def slope(self, i: int, x: Array) -> Array | None:
        """The learned number of an activation: positive, at first 0.97 (softplus(0.5))."""
        if not self.config.act.has_slope:
            return None
        start = nn.initializers.constant(0.5)
        return jax.nn.softplus(self.param(f"slope_{i}", start, (), x.dtype).astype(x.dtype))

    def by_context(self, x: Array, context: Array | None, width: int) -> Array | None:
        """What the context adds to the first layer."""
        if context is None:
            return None
        if self.config.event_ndim == 1:
            context = aligned_context(context, x.shape[:-1])
        else:
            context = context_of_pixels(context, x)
        return Dense(width, Dtypes(), gain=0.1, name="context")(context.astype(x.dtype))


def affine(x: Array, kernel: Array, bias: Array) -> Array:
    """W x + b, for a dense kernel (C, F) or one of a convolution (h, w, C, F)."""
    if kernel.ndim == 2:
        y = matmul_last(x, kernel)
    else:
        flat = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
        y = conv2d(flat, kernel).reshape(*x.shape[:-1], kernel.shape[-1])
    return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
