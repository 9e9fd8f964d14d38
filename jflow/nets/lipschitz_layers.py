"""Dense layers and convolutions whose operator norm stays below a coefficient."""

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arrays import wide_dtype
from jflow.functional.convolution import conv2d
from jflow.functional.operator_norms import closed_form_norm, has_closed_form, power_iteration
from jflow.nets.reports import report

# Relative change of the norm at which power iterations stop: in evaluation, and in training, where
# parameters move at every step and the vectors follow them.
_TOLERANCE = 4e-6
_TRAINING_TOLERANCE = 1e-3
# The iterations may end that much below the norm (see `power_iteration`).
_MARGIN = math.sqrt(_TOLERANCE) / 2
_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Norms:
    """How a layer's norm is bounded.

    Attributes:
      coefficient: the bound.
      p: of the norm of what goes in.
      q: of the norm of what comes out.
      iterations: of the power method in a training step, at most.
    """

    coefficient: float
    p: float = 2.0
    q: float = 2.0
    iterations: int = 5


class LipschitzLinear(nn.Module):
    """A dense layer or a convolution W x + b with |W| at most a coefficient.

        W = K min(1, coefficient / |K|)

    The norm of a convolution is that of the operator on images of the size given, zeros outside
    included. Where it has no closed form it is found by power iterations, whose vector is kept in
    the collection "lipschitz". In training (where that collection is mutable) a few iterations
    follow the kernel, and W's norm may be above the coefficient by a percent; otherwise they go on
    until they have converged, and nothing is kept. Gradients go through the norm, not through the
    iterations.

    Attributes:
      features: outputs.
      norms: the bound.
      kernel_size: () for a dense layer; (h, w), both odd, for a convolution that keeps the size.

    Reference: Gouk et al., 2021, https://arxiv.org/abs/1804.04368; Behrmann et al., 2019, section 2.1
    """  # noqa: E501

    features: int
    norms: Norms
    kernel_size: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, event_shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        """W's kernel and b, for inputs of that event shape."""
        shape = (*self.kernel_size, event_shape[-1], self.features)
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        param_dtype = wide_dtype(dtype)
        kernel = self.param("kernel", init, shape, param_dtype).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype)
        coefficient = self.norms.coefficient
        size = self._norm(kernel, event_shape)
        kernel = kernel * (coefficient / jnp.maximum(size, coefficient))
        report(
            self,
            norm=lambda: self._measured(kernel, event_shape),
            coefficient=lambda: jnp.asarray(coefficient, kernel.dtype),
        )
        return kernel, bias.astype(dtype)

    def _norm(self, kernel: Array, event_shape: tuple[int, ...]) -> Array:
        """The norm, with a margin for iterations that end below it; in training, roughly."""
        p, q = self.norms.p, self.norms.q
        if has_closed_form(p, q):
            return closed_form_norm(kernel, p, q)
        shape = self._input_shape(event_shape)
        start = lambda: _unit(self.make_rng("params"), shape, kernel.dtype)  # noqa: E731
        kept = self.variable("lipschitz", "vector", start)
        if kept.value.shape != shape:
            raise ValueError(
                f"this layer's norm was found for inputs of shape {kept.value.shape}; got {shape}. "
                "Build and initialise a network for each size"
            )
        changes = self.is_mutable_collection("lipschitz")
        trains = changes and not self.is_initializing()
        v, u, _ = _singular_vectors(
            kernel,
            kept.value.astype(kernel.dtype),
            self.norms,
            _TRAINING_TOLERANCE if trains else _TOLERANCE,
            self.norms.iterations if trains else _MAX_ITERATIONS,
        )
        if changes:
            kept.value = v.astype(kept.value.dtype)
        return (1 + _MARGIN) * jnp.sum(u * _operator(kernel)(v))

    def _measured(self, kernel: Array, event_shape: tuple[int, ...]) -> Array:
        """The norm of W, from power iterations with a start of their own."""
        p, q = self.norms.p, self.norms.q
        if has_closed_form(p, q):
            return closed_form_norm(kernel, p, q)
        start = _unit(jax.random.key(0), self._input_shape(event_shape), kernel.dtype)
        v, u, _ = _singular_vectors(kernel, start, self.norms, _TOLERANCE, _MAX_ITERATIONS)
        return jnp.sum(u * _operator(kernel)(v))

    def _input_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of what W is applied to: one pixel, if it has no neighbours to look at."""
        return event_shape if math.prod(self.kernel_size) > 1 else event_shape[-1:]


def _unit(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    v = jax.random.normal(key, shape, dtype)
    return v / jnp.sqrt(jnp.sum(jnp.square(v)))


def _operator(kernel: Array) -> Any:
    """W on one input, not of a batch."""
    if kernel.ndim == 2:
        return lambda v: jnp.matmul(v, kernel, precision="highest")
    if kernel.shape[:2] == (1, 1):
        return lambda v: jnp.matmul(v, kernel[0, 0], precision="highest")
    return lambda v: conv2d(v[None], kernel)[0]


def _singular_vectors(
    kernel: Array, start: Array, norms: Norms, tolerance: float, max_iterations: int
) -> tuple[Array, Array, Array]:
    kernel, start = lax.stop_gradient((kernel, start))
    operator = _operator(kernel)
    return power_iteration(
        operator,
        lambda u: jax.vjp(operator, start)[1](u)[0],
        start,
        norms.p,
        norms.q,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
