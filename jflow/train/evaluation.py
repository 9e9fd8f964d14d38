"""Means over data sets, with their standard errors."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jflow.distributions import Density, Flow
from jflow.functional.arguments import as_key
from jflow.functional.dequantization import dequantize
from jflow.train.arrays import Examples, check_examples
from jflow.train.objective import example_losses
from jflow.train.sharding import Placement, place

_STATIC = ("flow", "samples", "dimensions", "placement", "importance_weighted")


@dataclass(frozen=True)
class Estimate:
    """A mean over examples.

    Attributes:
      mean: in nats, or in bits per dimension for grey levels.
      standard_error: of the mean, over examples: their standard deviation / sqrt(N).
      examples: one value each, (N,).
    """

    mean: float
    standard_error: float
    examples: np.ndarray

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.standard_error:.4f}"


def evaluate(
    density: Density,
    y: ArrayLike,
    context: ArrayLike | None = None,
    *,
    key: Array | int,
    samples: int = 1,
    dimensions: int | None = None,
    importance_weighted: bool = False,
    batch_size: int = 256,
    mesh: Mesh | None = None,
) -> Estimate:
    """Mean -log p(y) in nats, or mean bits per dimension for grey levels, batch by batch.

    Args:
      density: what to evaluate.
      y: (N, *event).
      context: (N, C), for a conditional flow.
      key: for dequantization noise and estimated log_dets. Equal keys give equal noise.
      samples: draws of the dequantization noise for each example.
      dimensions: of bits per dimension, if not the event's size; see `Density.bits_per_dim`.
      importance_weighted: for grey levels, whether to average over the draws inside the logarithm:
        a tighter bound; see `Density.bits_per_dim`.
      batch_size: examples at a time. The last batch may be smaller, and weighs accordingly.
      mesh: of devices that share the examples of a batch; see `fit`.

    Raises:
      TypeError, ValueError: as for `fit`, on data that do not fit the flow.
    """
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples and batch_size must be 1 or more; got {samples}, {batch_size}")
    key = as_key("evaluate", key)
    examples = check_examples("y", density.flow, y, context)
    losses = all_losses(
        density.flow,
        density.variables,
        examples,
        key,
        samples,
        dimensions,
        batch_size,
        place(mesh, batch_size),
        importance_weighted,
    )
    error = float(np.std(losses, ddof=1) / math.sqrt(len(losses))) if len(losses) > 1 else math.inf
    return Estimate(float(np.mean(losses)), error, losses)


def all_losses(
    flow: Flow,
    variables: Any,
    examples: Examples,
    key: Array,
    samples: int,
    dimensions: int | None,
    batch_size: int,
    placement: Placement = Placement(),  # noqa: B008, it is constant
    importance_weighted: bool = False,
) -> np.ndarray:
    """`example_losses` of all examples, in their order, as float64.

    The last batch is filled up with the last example, so that all are of one shape.
    """
    parts, count = [], len(examples)
    size = min(batch_size, placement.rounded(count))
    for i, start in enumerate(range(0, count, size)):
        batch = examples.take(np.minimum(np.arange(start, start + size), count - 1))
        part = _losses(
            variables,
            *placement.batch((batch.y, batch.context)),
            jax.random.fold_in(key, i),
            flow=flow,
            samples=samples,
            dimensions=dimensions,
            placement=placement,
            importance_weighted=importance_weighted,
        )
        parts.append(np.asarray(part, np.float64))
    return np.concatenate(parts)[:count]


def largest_drift(density: Density, batch: Examples) -> float:
    """How far off the inputs of reversible layers are that backward passes compute, at most."""
    return float(_drift(density.variables, batch.y, batch.context, flow=density.flow))


@partial(jax.jit, static_argnames="flow")
def _drift(variables: Any, y: Array, context: Array | None, *, flow: Flow) -> Array:
    y = y if flow.values is None else dequantize(jax.random.key(0), y, flow.values)
    _, reports = flow.apply(variables, y, context, method="log_prob", mutable=["solver"])  # type: ignore[misc]
    found: Any = flatten_dict(reports["solver"])  # type: ignore[index]
    drifts = [value for path, value in found.items() if path[-1] == "drift"]
    return jnp.max(jnp.stack([jnp.max(value).astype(jnp.float32) for value in drifts]))


@partial(jax.jit, static_argnames=_STATIC)
def _losses(
    variables: Any,
    y: Array,
    context: Array | None,
    key: Array,
    *,
    flow: Flow,
    samples: int,
    dimensions: int | None,
    placement: Placement,
    importance_weighted: bool,
) -> Array:
    losses, _ = example_losses(
        flow,
        variables,
        y,
        context,
        key,
        training=False,
        samples=samples,
        dimensions=dimensions,
        importance_weighted=importance_weighted,
    )
    return placement.whole(losses)
