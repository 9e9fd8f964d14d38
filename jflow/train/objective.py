"""What training minimises."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from jflow.distributions import Flow
from jflow.functional.dequantization import discrete_bits_per_dim


def unit(flow: Flow) -> str:
    """In what `example_losses` are: "bits_per_dim" for grey levels, else "nll" (nats)."""
    return "nll" if flow.values is None else "bits_per_dim"


def example_losses(
    flow: Flow,
    variables: Mapping[str, Any],
    y: Array,
    context: Array | None,
    key: Array,
    *,
    training: bool,
    samples: int = 1,
    dimensions: int | None = None,
) -> Array:
    """-log p(y) of each example, (batch,); for grey levels, its dequantized bits per dimension.

    Training switches dropout on, and uses one draw of the dequantization noise a step.
    """
    noise, trace, dropout = jax.random.split(key, 3)
    rngs = {"trace": trace, "dropout": dropout} if training else {"trace": trace}

    def log_prob(y: Array) -> Array:
        return flow.apply(variables, y, context, method="log_prob", rngs=rngs)  # type: ignore[return-value]

    if flow.values is None:
        return -log_prob(y)
    return discrete_bits_per_dim(
        log_prob, y, noise, flow.values, flow.event_shape, dimensions, samples
    )
