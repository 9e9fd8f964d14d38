"""The programs of a library in JAX, given its log_prob and sample."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.peers.cases import LEARNING_RATE, Case, batch
from benchmarks.peers.worker import Program


class Parts(NamedTuple):
    """A flow as pure functions.

    Attributes:
      params: what is trained.
      rest: other arrays.
      log_prob: (params, rest, y) to (batch,).
      sample: (params, rest, key, count) to (count, *shape).
      note: how it was set up.
    """

    params: Any
    rest: Any
    log_prob: Callable[..., Any]
    sample: Callable[..., Any]
    note: str


def programs(case: Case, parts: Parts) -> tuple[dict[str, Callable[[], Program]], dict[str, Any]]:
    """Makers of the compiled programs, and what there is to tell."""
    y, about = jnp.asarray(batch(case)), {}
    about["parameters"] = sum(v.size for v in jax.tree.leaves(parts.params))
    about["note"], about["version"] = parts.note, f"jax {jax.__version__}"

    def train() -> Program:
        return _train(parts, y, about)

    def log_prob() -> Program:
        run = jax.jit(parts.log_prob)
        return lambda: jax.block_until_ready(run(parts.params, parts.rest, y))

    def sample() -> Program:
        run = jax.jit(partial(parts.sample, count=case.batch))
        key = jax.random.key(0)
        return lambda: jax.block_until_ready(run(parts.params, parts.rest, key=key))

    def per_example() -> Program:
        def norm(params: Any, rest: Any, y: jax.Array) -> jax.Array:
            grad = jax.grad(lambda params: jnp.sum(parts.log_prob(params, rest, y[None])))(params)
            return optax.tree.norm(grad)

        run = jax.jit(jax.vmap(norm, (None, None, 0)))
        return lambda: jax.block_until_ready(run(parts.params, parts.rest, y))

    makers = {"train": train, "log_prob": log_prob, "sample": sample, "per example": per_example}
    return makers, about


def _train(parts: Parts, y: jax.Array, about: dict[str, Any]) -> Program:
    optimizer = optax.adam(LEARNING_RATE)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, rest: Any, y: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return -jnp.mean(parts.log_prob(params, rest, y))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    params = jax.tree.map(lambda v: v + 0, parts.params)
    state = [params, optimizer.init(params)]
    compiled = step.lower(*state, parts.rest, y).compile()
    analysis: Any = compiled.memory_analysis()
    about["temporary_mb"] = analysis.temp_size_in_bytes / 1e6

    def once() -> None:
        *state[:], value = compiled(*state, parts.rest, y)
        if not jnp.isfinite(value):
            raise FloatingPointError("the loss is not finite")

    return once
