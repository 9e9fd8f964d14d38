"""The three compiled programs of a bijector's check; every property is read off their results."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.bijectors.base import Bijector

FORWARD, INVERSE = "forward_and_log_det", "inverse_and_log_det"


class NoPairError(TypeError):
    """A direction that does not return an array and a log_det."""


def run(
    bijector: Bijector, method: str, variables: Any, x: Array, context: Array | None, key: Any
) -> tuple[Array, Array]:
    """One direction, applied.

    Raises:
      NoPairError: it returned something else than two arrays.
    """
    direction: Any = "forward" if method == FORWARD else "inverse"
    rngs = {"noise": key} if bijector.needs_key(direction) else None
    result = bijector.apply(variables, x, context, method=method, rngs=rngs)
    if not (isinstance(result, tuple) and len(result) == 2):
        kind = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise NoPairError(f"{method} returned {kind}")
    return result  # type: ignore[return-value]


@dataclass
class Programs:
    """A bijector's programs, compiled when first used, each for one shape and dtype.

    `inverse` is of single points under `vmap`, with Jacobians; `forward` of a batch, with one
    tangent; `both` of a batch, both directions and the gradients of the inverse. Between them each
    direction runs on single points and on batches, in forward and in reverse mode.

    Attributes:
      bijector: what is checked.
      key: of random directions and estimates.
      traces: how often each program was traced.
    """

    bijector: Bijector
    key: Array
    traces: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inverse = jax.jit(jax.vmap(self._inverse_of_one, (None, 0, 0, None)))
        self._forward = jax.jit(self._forward_along)
        self._both = jax.jit(self._both_with_gradients)

    def inverse(self, variables: Any, y: Any, context: Any, key: Any = None) -> tuple[Any, ...]:
        """Jacobians (N, D, D), x (N, *latent) and log_dets (N,) of single points y (N, *event)."""
        return numpy_of(self._inverse(variables, y, context, self.key if key is None else key))

    def forward(self, variables: Any, x: Any, tangent: Any, context: Any) -> tuple[Any, ...]:
        """y, log_dets, and the derivative of y along `tangent`, of a batch x."""
        return numpy_of(self._forward(variables, x, tangent, context, self.key))

    def both(
        self, variables: Any, x: Any, y: Any, shared: Any, context: Any, weights: Any
    ) -> tuple[Any, ...]:
        """Both directions of a batch, and gradients of weighted sums of the inverse's results.

        The forward direction is given one context (C,) for all points, the inverse one for each.

        Returns:
          (y, log_det), (x, log_det), and the gradients by parameters and by y.
        """
        return numpy_of(self._both(variables, x, y, shared, context, weights, self.key))

    def _run(self, method: str, *arguments: Any) -> tuple[Array, Array]:
        return run(self.bijector, method, *arguments)

    def _inverse_of_one(self, variables: Any, y: Array, context: Any, key: Any) -> Any:
        self._count("inverse")

        def inverse(y: Array) -> Any:
            x, log_det = self._run(INVERSE, variables, y, context, key)
            return x.ravel(), (x, log_det)

        jacobian, (x, log_det) = jax.jacfwd(inverse, has_aux=True)(y)
        return jacobian.reshape(x.size, y.size), x, log_det

    def _forward_along(
        self, variables: Any, x: Array, tangent: Array, context: Any, key: Any
    ) -> Any:
        self._count("forward")
        y, along, log_det = jax.jvp(
            lambda x: self._run(FORWARD, variables, x, context, key), (x,), (tangent,), has_aux=True
        )
        return y, log_det, along

    def _both_with_gradients(
        self, variables: Any, x: Any, y: Any, shared: Any, context: Any, weights: Any, key: Any
    ) -> Any:
        self._count("both")
        others = {name: value for name, value in variables.items() if name != "params"}

        def loss(params: Any, y: Array) -> Any:
            result = self._run(INVERSE, {**others, "params": params}, y, context, key)
            x, log_det = result
            # Outside the support log_det is -inf, and its gradient that of a constant.
            inside = jnp.where(jnp.isneginf(log_det), jnp.zeros_like(log_det), log_det)
            return jnp.sum(weights[0] * x) + jnp.sum(weights[1] * inside), result

        gradients, latents = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], y)
        ahead = self._run(FORWARD, variables, x, shared, key) if x is not None else None
        return ahead, latents, gradients

    def _count(self, name: str) -> None:
        self.traces[name] = self.traces.get(name, 0) + 1


def numpy_of(results: Any) -> Any:
    """Results of a program as NumPy arrays, once they are there."""
    return jax.tree.map(np.asarray, jax.block_until_ready(results))
