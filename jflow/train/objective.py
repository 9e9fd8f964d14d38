"""What training minimises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.distributions import Flow
from jflow.functional.dequantization import averaged, bits
from jflow.train.arrays import Examples
from jflow.train.loop import MOVING, Moving

_LOSSES = "losses"


def unit(flow: Flow) -> str:
    """In what `example_losses` are: "bits_per_dim" for whole numbers, else "nll" (nats)."""
    return "nll" if flow.integers is None else "bits_per_dim"


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
    """-log p(y) of each example, (batch,), in nats; of whole numbers, in bits per dimension.

    Where log p depends on noise, it is averaged over `samples` draws. Training switches dropout on,
    adds what layers have sown into the collection "losses" (`module.sow("losses", name, penalty)`),
    and returns the new values of collections that move with the data.
    """
    noise, dropout = jax.random.split(key)
    moving = [*(name for name in MOVING if name in variables), _LOSSES] if training else []

    def log_prob(noise: Array) -> tuple[Array, Moving]:
        rngs = {"noise": noise, "dropout": dropout} if training else {"noise": noise}
        given: Any = {"method": "log_prob", "rngs": rngs}
        if not moving:
            return flow.apply(variables, y, context, **given), {}  # type: ignore[return-value]
        return flow.apply(variables, y, context, mutable=moving, **given)

    samples = samples if flow.bijector.needs_key("inverse") else 1
    value, moved = averaged(log_prob, noise, samples, importance_weighted)
    penalty, moved = _sown(moved)
    if flow.integers is None:
        return penalty - value, moved
    return penalty + bits(value, flow.event_shape, dimensions), moved


def _sown(moved: Moving) -> tuple[Any, Moving]:
    """The sum of the collection "losses", and the other collections."""
    terms = [jnp.sum(term) for term in jax.tree.leaves(moved.get(_LOSSES, {}))]
    return sum(terms), {name: tree for name, tree in moved.items() if name != _LOSSES}


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
        moving = [*(name for name in MOVING if name in variables), _LOSSES]
        log_weights, moved = self._log_weights(variables, contexts, index, key, moving)
        penalty, moved = _sown(moved)
        return penalty - jnp.mean(log_weights), moved

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
            method="sample_jointly",
            rngs=rngs,
            mutable=moving,
        )
        log_p = self.target(y) if context is None else self.target(y, context)
        return log_p.astype(log_q.dtype) - log_q, moved  # type: ignore[operator, union-attr]
