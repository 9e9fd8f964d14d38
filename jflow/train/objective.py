"""What training minimises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.distributions import Flow
from jflow.functional.dequantization import discrete_bits_per_dim
from jflow.train.arrays import Examples
from jflow.train.loop import MOVING, Moving


def unit(flow: Flow) -> str:
    """In what `example_losses` are: "bits_per_dim" for grey levels, else "nll" (nats)."""
    return "nll" if flow.values is None else "bits_per_dim"


def example_losses(
    flow: Flow,
    variables: Mapping[str, Any],
    y: Array,
    context: Any,
    key: Array,
    *,
    training: bool,
    samples: int = 1,
    dimensions: int | None = None,
    importance_weighted: bool = False,
) -> tuple[Array, Moving]:
    """-log p(y) of each example, (batch,); for grey levels, its dequantized bits per dimension.

    Training switches dropout on, uses one draw of the dequantization noise a step, and returns the
    new values of collections that move with the data.
    """
    noise, own, dropout = jax.random.split(key, 3)
    moving = [name for name in MOVING if name in variables] if training else []

    def log_prob(y: Array, own: Array) -> tuple[Array, Moving]:
        rngs = {"noise": own, "dropout": dropout} if training else {"noise": own}
        given: Any = {"method": "log_prob", "rngs": rngs}
        if not moving:
            return flow.apply(variables, y, context, **given), {}  # type: ignore[return-value]
        return flow.apply(variables, y, context, mutable=moving, **given)

    if flow.values is None:
        value, moved = log_prob(y, own)
        return -value, moved
    return discrete_bits_per_dim(
        log_prob,
        y,
        noise,
        flow.values,
        flow.event_shape,
        dimensions,
        samples,
        importance_weighted,
    )


@dataclass(frozen=True)
class MaximumLikelihood:
    """The mean of `example_losses` over a batch.

    Attributes:
      flow: the architecture.
      dimensions: of bits per dimension; see `example_losses`.
      augment: what is done to the examples of each batch, from a key; None for nothing.
    """

    flow: Flow
    dimensions: int | None = None
    augment: Callable[[Array, Array], Array] | None = None

    def __call__(
        self, variables: Any, examples: Any, index: Array, key: Array
    ) -> tuple[Array, Moving]:
        """The loss on the batch at `index` of examples (y, context), and what moves with it."""
        batch = Examples(*examples).take(index)
        y = batch.y if self.augment is None else self.augment(jax.random.fold_in(key, 1), batch.y)
        losses, moved = example_losses(
            self.flow,
            variables,
            y,
            batch.context,
            key,
            training=True,
            dimensions=self.dimensions,
        )
        return jnp.mean(losses), moved


@dataclass(frozen=True)
class ReverseKL:
    """E_q[log q(y) - log p(y)] over samples of the flow q: KL(q || p) up to p's normaliser.

    Attributes:
      flow: q.
      target: log p, up to a constant: (n, *event) to (n,); with contexts, of (y, context).
    """

    flow: Flow
    target: Callable[..., Array]

    def __call__(
        self, variables: Any, contexts: Any, index: Array, key: Array
    ) -> tuple[Array, Moving]:
        """The loss of one sample for each entry of `index`, the contexts to sample for."""
        moving = [name for name in MOVING if name in variables]
        log_weights, moved = self._log_weights(variables, contexts, index, key, moving)
        return -jnp.mean(log_weights), moved

    def log_weights(self, variables: Any, contexts: Any, index: Array, key: Array) -> Array:
        """log p(y) - log q(y) of the samples, (n,)."""
        return self._log_weights(variables, contexts, index, key, [])[0]

    def _log_weights(
        self, variables: Any, contexts: Any, index: Array, key: Array, moving: list[str]
    ) -> tuple[Array, Moving]:
        context = jax.tree.map(lambda part: part[index], contexts)
        rngs = {"noise": jax.random.fold_in(key, 1)}
        (y, log_q), moved = self.flow.apply(  # type: ignore[misc]
            variables,
            key,
            index.shape,
            context,
            method="sample_and_log_prob",
            rngs=rngs,
            mutable=moving,
        )
        log_p = self.target(y) if context is None else self.target(y, context)
        return log_p.astype(log_q.dtype) - log_q, moved  # type: ignore[operator, union-attr]
