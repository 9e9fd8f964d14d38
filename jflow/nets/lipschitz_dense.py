"""DenseNets with a Lipschitz constant below 1."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide
from jflow.nets.contraction import Contraction, Network, affine
from jflow.nets.lipschitz_layers import Norms


@dataclass(frozen=True)
class LipschitzDenseNet(Contraction):
    """Makes contracting DenseNets, of vectors or images: each layer's outputs join its inputs.

        h_0 = x,   h_i+1 = (a_i h_i, b_i act(W_i h_i + b)),   g(x) = W h_n,    a_i^2 + b_i^2 = 1

    a_i and b_i are positive and learned, so that each layer has Lipschitz constant at most 1, and
    g at most `coefficient`.

    Attributes:
      growth: outputs of a layer, before the activation.
      depth: n.
      kernel_size: of the convolutions of images, odd; None for vectors. The last is 1x1.
      coefficient, activation, iterations: see `Contraction`.

    Reference: Perugachi-Diaz, Tomczak, Bhulai, i-DenseNets, 2021, https://arxiv.org/abs/2102.02694
    """

    growth: int = 64
    depth: int = 3
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("LipschitzDenseNet", growth=self.growth, depth=self.depth)
        size = self.kernel_size
        if size is not None and not (isinstance(size, Integral) and size > 0 and size % 2 == 1):
            raise ValueError(f"LipschitzDenseNet: kernel_size must be odd, or None; got {size!r}")

    @property
    def lipschitz(self) -> float:
        return self.coefficient

    @property
    def event_ndim(self) -> int:
        return 1 if self.kernel_size is None else 3

    def __call__(self, features: int) -> nn.Module:
        return _Dense(self, features)


class _Dense(Network):
    features: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Partial:
        x, config = as_wide(x), self.config
        shape = x.shape[x.ndim - config.event_ndim :]
        size = () if config.kernel_size is None else (config.kernel_size,) * 2
        norms = Norms(config.coefficient, iterations=config.iterations)
        layers, slopes, shares = [], [], []
        for i in range(config.depth):
            layers.append(self.layer(f"layer_{i}", config.growth, size, (shape, x.dtype), norms))
            slopes.append(self.slope(i, x))
            share = self.param(f"shares_{i}", nn.initializers.zeros, (2,), x.dtype)
            shares.append(share.astype(x.dtype))
            shape = (*shape[:-1], shape[-1] + config.growth * config.act.widening)
        last = (1, 1) if size else ()
        layers.append(self.layer("last", self.features, last, (shape, x.dtype), norms))
        first = self.by_context(x, context, config.growth)
        return Partial(self._evaluate, layers, slopes, shares, first)

    @nn.nowrap
    def _evaluate(
        self, layers: Any, slopes: Any, shares: Any, first: Array | None, x: Array
    ) -> Array:
        for i, (slope, share) in enumerate(zip(slopes, shares, strict=True)):
            new = affine(x, *layers[i])
            if i == 0 and first is not None:
                new = new + first
            new = self.config.act(new, slope)
            share = jax.nn.softplus(share)
            share = share / jnp.sqrt(jnp.sum(jnp.square(share)))
            x = jnp.concatenate([share[0] * x, share[1] * new], axis=-1)
        return affine(x, *layers[-1])
