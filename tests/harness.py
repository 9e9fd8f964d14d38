"""Building and running the bijectors of cases.py."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jflow
from tests.cases import CASES

BATCH = (2, 3)
# For what draws: always the same.
RNGS = {"branch": jax.random.key(3), "trace": jax.random.key(4)}


def perturbed(variables: Any, scale: float, seed: int = 7) -> Any:
    """Variables with parameters moved off their initial values, where so much is zero."""
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(seed), max(1, len(leaves)))
    moved = [
        leaf + scale * jax.random.normal(key, leaf.shape, leaf.dtype)
        for leaf, key in zip(leaves, keys, strict=False)
    ]
    return {**variables, "params": jax.tree.unflatten(tree, moved)}


class Built:
    """A case in one dtype: its variables, its points, and its two directions, compiled."""

    def __init__(self, name: str, dtype: Any):
        case = CASES[name]
        self.case, self.dtype, self.bijector = case, dtype, case.make()
        keys = iter(jax.random.split(jax.random.key(0), 8))
        self.latent_shape = self.bijector.latent_shape(case.event_shape)
        self.y = case.data(next(keys), (*BATCH, *case.event_shape), dtype)
        self.x = case.base(next(keys), (*BATCH, *self.latent_shape), dtype)
        features = case.context_features
        self.context = (
            None if features is None else jax.random.normal(next(keys), (*BATCH, features), dtype)
        )
        start = jflow.init(self.bijector, next(keys), self.y, self.context)
        variables = perturbed({"params": {}, **start}, case.scale)
        # Some bijectors have no variables at all.
        self.variables = {k: v for k, v in variables.items() if v}
        self.traces = {"forward_and_log_det": 0, "inverse_and_log_det": 0}
        self.forward = jax.jit(lambda v, x, c: self.apply("forward_and_log_det", v, x, c))
        self.inverse = jax.jit(lambda v, y, c: self.apply("inverse_and_log_det", v, y, c))

    def apply(self, method: str, variables: Any, x: Any, context: Any) -> Any:
        self.traces[method] += 1
        return self.bijector.apply(variables, x, context, method=method, rngs=RNGS)

    @property
    def constants(self) -> Any:
        return {name: v for name, v in self.variables.items() if name != "params"}

    def jacobian_log_det(self, method: str, x: jax.Array) -> np.ndarray:
        """log|det| of the autodiff Jacobian at every x of the batch."""
        event = self.latent_shape if method.startswith("forward") else self.case.event_shape
        flat = x.reshape(-1, *event)
        context = self.context
        if context is not None:
            context = context.reshape(-1, context.shape[-1])

        def one(x: Any, context: Any) -> Any:
            jacobian = jax.jacfwd(
                lambda x: self.bijector.apply(self.variables, x, context, method=method, rngs=RNGS)[
                    0
                ].ravel()
            )(x)
            return jacobian.reshape(x.size, x.size)

        jacobians = jax.jit(jax.vmap(one, in_axes=(0, None if context is None else 0)))
        jacobian = np.asarray(jacobians(flat, context), np.float64)
        return np.linalg.slogdet(jacobian)[1].reshape(BATCH)


@cache
def built(name: str, dtype_name: str) -> Built:
    return Built(name, jnp.dtype(dtype_name))
