"""Data that fits in memory: its checks, its split, its order."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jflow.distributions import Flow
from jflow.functional.dequantization import check_levels


@dataclass(frozen=True)
class Examples:
    """Examples and, for conditional flows, their contexts; checked.

    Attributes:
      y: (N, *event).
      context: (N, C) or None.
    """

    y: Array
    context: Array | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Array | np.ndarray) -> "Examples":
        """The examples at those places."""
        return Examples(self.y[index], None if self.context is None else self.context[index])


def check_examples(
    name: str, flow: Flow, y: ArrayLike, context: ArrayLike | None = None
) -> Examples:
    """Refuses data that a flow cannot be trained on, before any time is spent.

    Raises:
      TypeError: not an array, or floating where grey levels are wanted or the other way round.
      ValueError: no examples, a wrong shape, NaN, infinities, or levels out of range.
    """
    if not hasattr(y, "shape"):
        raise TypeError(f"{name} must be an array (N, *{flow.event_shape}); got {type(y).__name__}")
    y = jnp.asarray(y)
    if y.shape[1:] != flow.event_shape or y.ndim != len(flow.event_shape) + 1:
        raise ValueError(f"{name} must have shape (N, *{flow.event_shape}); got {y.shape}")
    if y.shape[0] == 0:
        raise ValueError(f"{name} is empty: it has shape {y.shape}")
    _check_values(name, flow, y)
    return Examples(y, _check_context(name, flow, context, len(y)))


def _check_values(name: str, flow: Flow, y: Array) -> None:
    if flow.values is not None:
        if jnp.issubdtype(y.dtype, jnp.floating) and bool(jnp.isnan(y).any()):
            raise ValueError(f"{name} holds NaN; grey levels are integers 0..{flow.values - 1}")
        check_levels(name, y, flow.values)
    elif not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating for a flow without grey levels; got {y.dtype}. Convert it, "
            "or build the flow with values=k"
        )
    elif not bool(jnp.isfinite(y).all()):
        bad = int((~jnp.isfinite(y)).reshape(len(y), -1).any(axis=1).sum())
        raise ValueError(f"{name} holds NaN or infinities, in {bad} of {len(y)} examples")


def _check_context(name: str, flow: Flow, context: ArrayLike | None, count: int) -> Array | None:
    if flow.context_features is None:
        if context is not None:
            raise ValueError(
                f"context is given with {name}, but the flow has none; build it with "
                "context_features=C"
            )
        return None
    wanted = (count, flow.context_features)
    if context is None or jnp.shape(context) != wanted:
        got = None if context is None else jnp.shape(context)
        raise ValueError(f"context of {name} must have shape {wanted}; got {got}")
    context = jnp.asarray(context, jax.dtypes.canonicalize_dtype(float))
    if not bool(jnp.isfinite(context).all()):
        raise ValueError(f"context of {name} holds NaN or infinities")
    return context


def split(
    examples: Examples, fraction: float, rng: np.random.Generator
) -> tuple[Examples, Examples]:
    """A random split into training and validation examples, at least one of each.

    Raises:
      ValueError: `fraction` is not in (0, 1), or there are fewer than two examples.
    """
    if not 0 < fraction < 1 or len(examples) < 2:
        raise ValueError(
            f"validation must be a fraction in (0, 1) of two or more examples; got {fraction} "
            f"of {len(examples)}"
        )
    order = rng.permutation(len(examples))
    count = min(max(1, round(fraction * len(examples))), len(examples) - 1)
    return examples.take(order[count:]), examples.take(order[:count])


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of indices: one random order of all examples after the other.

    Batches are all of the same size, so some span two of these orders.
    """
    pending = np.empty(0, np.int32)
    while True:
        while len(pending) < size:
            pending = np.concatenate([pending, rng.permutation(count).astype(np.int32)])
        yield pending[:size]
        pending = pending[size:]
