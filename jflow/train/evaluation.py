"""Means of an objective over data sets, with their standard errors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from jflow.data.batches import Arrays, Batch, Source
from jflow.data.sources import as_stream
from jflow.data.streams import Stream
from jflow.distributions import Density, Flow
from jflow.distributions.examples import as_weights, check_examples, only_given, read_batch
from jflow.functional.arguments import as_key
from jflow.functional.dequantization import check_importance_weighted
from jflow.functional.sharding import Placement, place
from jflow.train.objectives import MaximumLikelihood, Objective
from jflow.train.pairs import Pairs


@dataclass(frozen=True)
class Estimate:
    """A mean over examples.

    Attributes:
      mean: in nats; of whole numbers, such as grey levels, in bits per dimension.
      standard_error: of the mean, over examples: their standard deviation / sqrt(N); with weights
        w, sqrt(sum w^2 (loss - mean)^2) / sum w, times sqrt(n / (n - 1)) of n that are above 0.
      examples: one value each, (N,).
    """

    mean: float
    standard_error: float
    examples: np.ndarray

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.standard_error:.4f}"


def evaluate(
    density: Density,
    y: Any,
    context: Any = None,
    *,
    key: Array | int,
    weights: Any = None,
    samples: int = 1,
    dimensions: int | None = None,
    importance_weighted: bool = False,
    batch_size: int = 256,
    mesh: Mesh | None = None,
) -> Estimate:
    """Mean -log p(y) in nats, or mean bits per dimension of whole numbers, batch by batch.

    Args:
      density: what to evaluate.
      y: (N, *event); or a stream, which is read as it is needed; see `fit`.
      context: (N, *context_shape), or a dict of such, for a conditional flow.
      key: for noise, such as that of dequantization. Equal keys give equal noise.
      weights: (N,), of the examples in the mean, zero or more; None for equal ones.
      samples: draws of the noise for each example, where log p depends on it.
      dimensions: of bits per dimension, if not the event's size; see `Density.bits_per_dim`.
      importance_weighted: whether to average over the draws inside the logarithm: a tighter bound;
        see `Density.bits_per_dim`.
      batch_size: examples at a time. The last batch may be smaller, and weighs accordingly.
      mesh: of devices that share the examples of a batch; see `fit`.

    Raises:
      TypeError, ValueError: as for `fit`, on data that do not fit the flow.
    """
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples and batch_size must be 1 or more; got {samples}, {batch_size}")
    if not isinstance(density, Density):
        raise TypeError(
            "evaluate: density must be a Density; of images and tables, give density.density, and "
            f"data as the flow sees them; got {type(density).__name__}"
        )
    check_importance_weighted(importance_weighted, density.flow.bijector.log_det_kinds)
    objective = MaximumLikelihood(
        density.flow,
        dimensions=dimensions,
        samples=samples,
        importance_weighted=importance_weighted,
    )
    source = of_flow("y", density.flow, y, context, batch_size=batch_size)
    given = weights if weights is None else as_weights("weights", weights, len(source))
    placement = place(mesh, batch_size)
    found = all_losses(
        objective, density.variables, source, as_key("evaluate", key), batch_size, placement
    )
    losses, of_stream = found  # type: ignore[misc]
    return _estimate(losses, of_stream if given is None else given)


def of_flow(
    name: str, flow: Flow, data: Any, context: Any = None, weights: Any = None, *,
    batch_size: int, workers: int = 0,
) -> Arrays | Stream:  # fmt: skip
    """The source of what a flow is given, checked: batches (y, context).

    Raises:
      TypeError, ValueError: they do not fit the flow.
    """
    if isinstance(data, Pairs):
        if context is not None:
            raise ValueError(f"the context of pairs is {name}.context; leave out context=")
        return Arrays(data.checked(name, flow), batch_size, weights)
    stream = as_stream(name, data)
    if stream is None:
        values = check_examples(name, flow, data, context)
        if weights is not None:
            weights = as_weights("weights", weights, len(values[0]))
        return Arrays(values, batch_size, weights)
    for what, given in (("context", context), ("weights", weights)):
        if given is not None:
            raise ValueError(
                f"the {what} of a stream is in its examples: "
                "{'y': ..., 'context': ..., 'weights': ...}"
            )
    if len(stream):
        only_given(name, stream[0])  # before any time is spent
    read = lambda batch: Batch(*read_batch(name, flow, batch))  # noqa: E731
    return Stream(stream.map(partial(only_given, name)), batch_size, read, workers)


def _estimate(losses: np.ndarray, weights: np.ndarray | None) -> Estimate:
    w = np.ones(len(losses)) if weights is None else weights / weights.mean()
    w, counted = w[w > 0], losses[w > 0]
    mean, count = float(np.sum(w * counted) / np.sum(w)), len(w)
    spread = math.sqrt(np.sum((w * (counted - mean)) ** 2)) / np.sum(w)
    error = spread * math.sqrt(count / (count - 1)) if count > 1 else math.inf
    return Estimate(mean, error, losses)


def all_losses(
    objective: Objective,
    variables: Any,
    source: Source,
    key: Array,
    batch_size: int,
    placement: Placement = Placement(),  # noqa: B008, it is constant
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The losses of all examples, in their order, as float64, and their weights, if any.

    Many batches are one call of one program, whatever the number of examples: what is missing of a
    batch, or of the batches of a call, is filled up with the last example, and left out.

    Returns:
      None if `stop`, which is asked between calls, says so.
    """
    parts: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    few = 1 << max(0, len(source) - 1).bit_length()  # so that few sizes are compiled
    size, first = min(batch_size, placement.rounded(few)), 0
    for batches, count in source.in_order(size):
        wanted = np.int32(-(-count // size))
        numbers = placement.replicate((np.int32(first), wanted))
        values = placement.batch(batches.values, axis=1)
        losses = _losses(variables, values, *numbers, key, objective=objective, placement=placement)
        parts.append(np.asarray(losses, np.float64).ravel()[:count])
        if batches.weights is not None:
            weights.append(np.asarray(batches.weights, np.float64).ravel()[:count])
        first += int(wanted)
        if stop():
            return None
    return np.concatenate(parts), np.concatenate(weights) if weights else None


@partial(jax.jit, static_argnames=("objective", "placement"))
def _losses(
    variables: Any, values: Any, first: Array, count: Array, key: Array, *,
    objective: Objective, placement: Placement,
) -> Array:  # fmt: skip
    """(rows, size), of the first `count` rows; the first of all is number `first`."""

    def batch(i: Any) -> Array:
        part = jax.tree.map(lambda array: array[i], values)
        own = jax.random.fold_in(key, first + i)
        return placement.whole(objective.losses(variables, part, own, training=False)[0])

    shape = jax.tree.leaves(values)[0].shape[:2]
    empty = jnp.zeros(shape, jax.eval_shape(batch, 0).dtype)
    return lax.fori_loop(0, count, lambda i, losses: losses.at[i].set(batch(i)), empty)
