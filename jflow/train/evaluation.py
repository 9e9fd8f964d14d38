"""Means over data sets, with their standard errors."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jflow.distributions import Density, Flow
from jflow.functional.arguments import as_key
from jflow.functional.dequantization import check_importance_weighted
from jflow.train.arrays import Examples, check_examples
from jflow.train.objective import example_losses
from jflow.train.sharding import Placement, place

_STATIC = ("flow", "samples", "dimensions", "placement", "importance_weighted")

# Of the batches that one call of a program is given.
_ROWS, _BYTES = 64, 16 * 2**20


@dataclass(frozen=True)
class Estimate:
    """A mean over examples.

    Attributes:
      mean: in nats; of whole numbers, such as grey levels, in bits per dimension.
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
    context: Any = None,
    *,
    key: Array | int,
    samples: int = 1,
    dimensions: int | None = None,
    importance_weighted: bool = False,
    batch_size: int = 256,
    mesh: Mesh | None = None,
) -> Estimate:
    """Mean -log p(y) in nats, or mean bits per dimension of whole numbers, batch by batch.

    Args:
      density: what to evaluate.
      y: (N, *event).
      context: (N, *context_shape), or a dict of such, for a conditional flow.
      key: for noise, such as that of dequantization. Equal keys give equal noise.
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
    check_importance_weighted(importance_weighted, density.flow.bijector.log_det_kinds)
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

    Many batches are one call of one program, whatever the number of examples: what is missing of a
    batch, or of the batches of a call, is filled up with the last example, and left out.
    """
    parts, count = [], len(examples)
    size = min(batch_size, placement.rounded(count))
    wanted = -(-count // size)
    rows = _rows_of_a_call(examples, size)
    for first in range(0, wanted, rows):
        index = np.arange(first * size, (first + rows) * size).reshape(rows, size)
        batches = examples.take(np.minimum(index, count - 1))
        part = _losses(
            variables,
            *placement.batch((batches.y, batches.context), axis=1),
            *placement.replicate((np.int32(first), np.int32(min(rows, wanted - first)))),
            key,
            flow=flow,
            samples=samples,
            dimensions=dimensions,
            placement=placement,
            importance_weighted=importance_weighted,
        )
        parts.append(np.asarray(part, np.float64).ravel())
    return np.concatenate(parts)[:count]


def _rows_of_a_call(examples: Examples, size: int) -> int:
    """How many batches a call is given: up to `_ROWS`, in up to `_BYTES`."""
    one = examples.take(np.zeros(1, np.int32))
    each = size * sum(leaf.nbytes for leaf in jax.tree.leaves((one.y, one.context)))
    return max(1, min(_ROWS, _BYTES // each))


def largest_drift(density: Density, batch: Examples) -> float:
    """How far off the inputs of reversible layers are that backward passes compute, at most."""
    return float(_drift(density.variables, batch.y, batch.context, flow=density.flow))


@partial(jax.jit, static_argnames="flow")
def _drift(variables: Any, y: Array, context: Any, *, flow: Flow) -> Array:
    rngs = {"noise": jax.random.key(0)}
    _, reports = flow.apply(  # type: ignore[misc]
        variables, y, context, method="log_prob", mutable=["solver"], rngs=rngs
    )
    found: Any = flatten_dict(reports["solver"])  # type: ignore[index]
    drifts = [value for path, value in found.items() if path[-1] == "drift"]
    return jnp.max(jnp.stack([jnp.max(value).astype(jnp.float32) for value in drifts]))


@partial(jax.jit, static_argnames=_STATIC)
def _losses(
    variables: Any,
    y: Array,
    context: Any,
    first: Array,
    count: Array,
    key: Array,
    *,
    flow: Flow,
    samples: int,
    dimensions: int | None,
    placement: Placement,
    importance_weighted: bool,
) -> Array:
    """(rows, size), of the first `count` rows; the first of all is number `first`."""

    def batch(i: Any) -> Array:
        losses, _ = example_losses(
            flow,
            variables,
            y[i],
            jax.tree.map(lambda part: part[i], context),
            jax.random.fold_in(key, first + i),
            training=False,
            samples=samples,
            dimensions=dimensions,
            importance_weighted=importance_weighted,
        )
        return placement.whole(losses)

    empty = jnp.zeros(y.shape[:2], jax.eval_shape(batch, 0).dtype)
    return lax.fori_loop(0, count, lambda i, losses: losses.at[i].set(batch(i)), empty)
