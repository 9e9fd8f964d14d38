"""Block neural autoregressive flows."""

import math
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.autoregressive import Jacobi, Solves
from jflow.bijectors.base import Direction, DirectionKind
from jflow.bijectors.one_method import OneMethod
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.block_autoregressive import MAP, BlockNet
from jflow.functional.roots import tolerance
from jflow.nets.layers import aligned_context


class BlockAutoregressive(Solves, OneMethod):
    """Block neural autoregressive flow (BNAF): one network, increasing in each feature.

        inverse   x_i = f_i(y_i; y_<i, context)      one pass: fast likelihoods

    f is a network whose hidden layers have `units` units for each feature, with positive weights
    between units of one feature. The log-slope of output i is that of a product of positive
    matrices. A learned multiple of y_i is added to output i (a gate), so that f_i maps the line
    onto the line and the density is normalised: the outputs alone, of tanh units, are bounded.

    forward goes feature by feature, with a bracketed Newton iteration for each; its gradients are
    those of the implicit function theorem. `Invert(BlockAutoregressive())` has fast samples.

    Attributes:
      units: a, hidden units for each feature.
      layers: hidden layers.
      solver: how forward is computed: None for feature by feature, or `Jacobi`.

    Raises:
      ValueError: `units` or `layers` below 1.

    Reference: De Cao, Titov, Aziz, 2019, https://arxiv.org/abs/1904.04676
    """

    event_ndim = 1
    units: int = 8
    layers: int = 2
    solver: Jacobi | None = None

    def __post_init__(self) -> None:
        check_counts("BlockAutoregressive", units=self.units, layers=self.layers)
        super().__post_init__()

    @nn.compact
    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[x.ndim - 1 :])
        features = x.shape[-1]
        widths = (1, *(self.units,) * self.layers, 1)
        kernels, log_diagonals, biases = [], [], []
        for i, (a, b) in enumerate(pairwise(widths)):
            kernels.append(self._param(f"kernel_{i}", _small, (features, a, features, b), x))
            # Slopes of the first layer differ, for features of several sizes. Logs are stored
            # divided by 4: they have far to go, and optimisers move all parameters alike.
            spread = nn.initializers.truncated_normal(0.1 if i == 0 else 0.02)
            diagonal = self._param(f"log_diagonal_{i}", spread, (features, a, b), x)
            log_diagonals.append(4 * diagonal + (0.5 if i == 0 else -math.log(a)))
            spread = nn.initializers.uniform(4.0) if i < self.layers else nn.initializers.zeros
            centre = 2.0 if i < self.layers else 0.0
            biases.append(self._param(f"bias_{i}", spread, (features, b), x) - centre)
        by_context = None
        if context is not None:
            context = aligned_context(context, x.shape[:-1]).astype(x.dtype)
            init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
            shape = (context.shape[-1], features * self.units)
            kernel = self._param("kernel_context", init, shape, x)
            by_context = jnp.matmul(context, kernel, precision="highest")
            by_context = by_context.reshape(*context.shape[:-1], features, self.units)
        gates = 4 * self._param("log_gate", nn.initializers.zeros, (features,), x) - 1
        net = BlockNet(tuple(kernels), tuple(log_diagonals), tuple(biases), gates, by_context)
        if method == "inverse":
            y, log_slopes = MAP.all(net, x)
            return y, jnp.sum(log_slopes, axis=-1)
        return self._solved(MAP, net, x, (context, 1))

    def _param(self, name: str, init: Any, shape: tuple[int, ...], x: Array) -> Array:
        return self.param(name, init, shape, x.dtype).astype(x.dtype)

    @property
    def forward_kind(self) -> DirectionKind:
        return "iterative"

    @property
    def tolerance(self) -> float:
        return max(tolerance(jnp.float32), self.solver.tolerance if self.solver else 0.0)


def _small(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Weights between features, of which a unit of feature i reads those of i others."""
    features, inputs, _, _ = shape
    return jax.random.normal(key, shape, dtype) / math.sqrt(features * inputs)
