"""Data that fits in memory: its checks, its split, its order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.distributions import Flow
from jflow.distributions.contexts import converted, leaves
from jflow.functional.arrays import as_wide, check_fits
from jflow.functional.dequantization import check_integers
from jflow.functional.supports import beyond_a_turn


@dataclass(frozen=True)
class Examples:
    """Examples and, for conditional flows, their contexts; checked.

    Attributes:
      y: (rows, *event).
      context: (rows, *context_shape), a dict of such, or None.
      places: (N,), which rows are the examples; None for all. So the parts of a data set share its
        arrays.
    """

    y: Array
    context: Any = None
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y if self.places is None else self.places)

    def rows(self, index: Any) -> Any:
        """In which rows the examples of those numbers are."""
        return index if self.places is None else self.places[index]

    def take(self, index: Any) -> "Examples":
        """The examples of those numbers, in arrays of their own."""
        index = self.rows(index)
        return Examples(*jax.tree.map(lambda array: array[index], (self.y, self.context)))

    def head(self, count: int) -> "Examples":
        """The first so many examples, or all."""
        return self.take(np.arange(min(count, len(self))))


def check_examples(name: str, flow: Flow, y: Any, context: Any = None) -> Examples:
    """Refuses data that a flow cannot be trained on, before any time is spent.

    Raises:
      TypeError: not an array, or floating where integers are wanted or the other way round.
      ValueError: no examples, a wrong shape, NaN, infinities, or integers out of range.
    """
    if is_stream(y):
        y, context = _read(y)
    if not hasattr(y, "shape"):
        raise TypeError(f"{name} must be an array (N, *{flow.event_shape}); got {type(y).__name__}")
    y = y if isinstance(y, jax.Array) else _of_host(name, y)
    if y.shape[1:] != flow.event_shape or y.ndim != len(flow.event_shape) + 1:
        raise ValueError(f"{name} must have shape (N, *{flow.event_shape}); got {y.shape}")
    if y.shape[0] == 0:
        raise ValueError(f"{name} is empty: it has shape {y.shape}")
    _check_values(name, flow, y)
    return Examples(y, _check_context(name, flow, context, len(y)))


def is_stream(data: Any) -> bool:
    """Whether it is a `grain.MapDataset`, without an import of Grain."""
    return hasattr(data, "to_iter_dataset")


def only_given(example: Any) -> dict[str, Any]:
    """Of an example of a stream what a flow is given: y and context. An array alone is y."""
    if not isinstance(example, dict):
        return {"y": example}
    return {name: example[name] for name in ("y", "context") if name in example}


def _read(stream: Any) -> tuple[np.ndarray, Any]:
    """All examples of a stream."""
    examples = [only_given(stream[i]) for i in range(len(stream))]
    whole = jax.tree.map(lambda *parts: np.stack(parts), *examples)
    return whole["y"], whole.get("context")


def _of_host(name: str, y: Any) -> Array:
    """An array of NumPy, or the numbers of a data frame, in this machine's byte order."""
    y = np.ma.asanyarray(y)
    if y.dtype.kind not in "biuf" and y.dtype.name != "bfloat16":
        first = y.ravel()[0] if y.size else None
        raise TypeError(
            f"{name} must hold numbers; got dtype {y.dtype}, such as {first!r:.40}. "
            "jflow.data.table reads tables of other kinds"
        )
    if np.ma.is_masked(y):
        raise ValueError(
            f"{name} has {np.ma.count_masked(y)} masked values; fill or leave them out"
        )
    check_fits(name, y)
    # Not jnp.asarray, which on its way holds them twice.
    return jax.device_put(np.asarray(y).astype(y.dtype.newbyteorder("="), copy=False))


def _check_values(name: str, flow: Flow, y: Array) -> None:
    if flow.integers is not None:
        if jnp.issubdtype(y.dtype, jnp.floating) and bool(jnp.isnan(y).any()):
            raise ValueError(f"{name} holds NaN; it must be integers, {flow.integers}")
        check_integers(name, y, flow.integers)
    elif not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating for a flow of continuous values; got {y.dtype}. Convert it, "
            "or, for grey levels, build the flow with values=k"
        )
    elif not bool(jnp.isfinite(y).all()):
        bad = int((~jnp.isfinite(y)).reshape(len(y), -1).any(axis=1).sum())
        raise ValueError(f"{name} holds NaN or infinities, in {bad} of {len(y)} examples")
    else:
        _check_angles(name, flow, y)


def _check_angles(name: str, flow: Flow, y: Array | np.ndarray) -> None:
    if np.any(far := beyond_a_turn(flow.support, y, flow.event_shape)):
        raise ValueError(
            f"{name} holds angles beyond [-pi, pi], in {np.sum(far)} of {len(y)} examples: they "
            "must be in radians (np.deg2rad), brought there by jflow.functional.wrap_angles"
        )


def _check_context(name: str, flow: Flow, context: Any, count: int) -> Any:
    context = converted(context, lambda part: _floating(f"context of {name}", part))
    check_contexts(f"context of {name}", flow, context, count)
    return context


def _floating(name: str, part: Any) -> Array:
    """A part of a context in the dtype of flows, which must be able to hold its differences."""
    if isinstance(part, jax.Array):
        return as_wide(part)
    host = np.asarray(part)
    found = as_wide(_of_host(name, part))
    if host.dtype.itemsize > found.dtype.itemsize and host.ndim and host.size:
        rows = tuple(range(max(host.ndim - 1, 1)))
        with np.errstate(invalid="ignore"):  # of NaN and infinities, which are refused elsewhere
            spread = np.ptp(host, axis=rows)
            lost = np.abs(host - np.asarray(found, np.float64)).max(axis=rows) > 0.01 * spread
        if np.any(bad := lost & (spread > 0)):
            raise ValueError(
                f"{name} varies too little for its size to be told apart in {found.dtype}, in "
                f"channels {np.flatnonzero(bad)[:5].tolist()}: subtract what is common, as of "
                "dates in seconds"
            )
    return found


def check_contexts(name: str, flow: Flow, context: Any, count: int | None) -> None:
    """Refuses contexts that are not (count, *context_shape), each of them finite.

    Raises:
      ValueError: naming the part, what was wanted and what came.
    """
    if flow.context_shape is None and context is not None:
        raise ValueError(
            f"{name} is given, but the flow has none; build the flow with context_shape="
        )
    for part, shape, array in leaves(flow.context_shape, context, name):
        got = None if array is None else jnp.shape(array)
        rows = got[0] if got and count is None else count
        if array is None or got != (rows, *shape) or not rows:
            wanted = f"({'N' if count is None else count}, {str(shape)[1:].rstrip(',)')})"
            raise ValueError(f"{part} must have shape {wanted}; got {got}")
        if not bool(jnp.isfinite(array).all()):
            raise ValueError(f"{part} holds NaN or infinities")


def check_batch(name: str, flow: Flow, y: np.ndarray, context: Any) -> None:
    """The same for a batch on the host, of a stream.

    Raises:
      TypeError, ValueError: as `check_examples`.
    """
    if y.shape[1:] != flow.event_shape:
        raise ValueError(
            f"examples of {name} must have shape {flow.event_shape}; got {y.shape[1:]}"
        )
    check_contexts(f"context of {name}", flow, context, None)
    if flow.integers is not None:
        check_integers(name, y, flow.integers)
    elif y.dtype.kind != "f":
        raise TypeError(
            f"{name} must be floating for a flow of continuous values; got {y.dtype}. Convert it, "
            "or, for grey levels, build the flow with values=k"
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"{name} holds NaN or infinities")
    _check_angles(name, flow, y)


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
    order = rng.permutation(len(examples)).astype(np.int32)
    count = min(max(1, round(fraction * len(examples))), len(examples) - 1)
    return replace(examples, places=order[count:]), replace(examples, places=order[:count])


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
