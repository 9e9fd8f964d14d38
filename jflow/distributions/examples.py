"""What a flow can be given: examples and contexts, checked before any time is spent."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.distributions.contexts import converted, leaves
from jflow.distributions.flow import Flow
from jflow.functional.arguments import as_weights
from jflow.functional.arrays import as_host_array, as_wide
from jflow.functional.dequantization import check_integers
from jflow.functional.supports import beyond_a_turn

# Of the parts in which large arrays are looked at.
_BYTES = 4 * 2**20


def check_examples(
    name: str, flow: Flow, y: Any, context: Any = None
) -> tuple[Array | np.ndarray, Any]:
    """The examples, (N, *event), where they are; and their contexts, (N, *context_shape).

    Raises:
      TypeError: not an array, or floating where integers are wanted or the other way round.
      ValueError: no examples, a wrong shape, NaN, infinities, or integers out of range.
    """
    if not hasattr(y, "shape"):
        raise TypeError(f"{name} must be an array (N, *{flow.event_shape}); got {type(y).__name__}")
    y = y if isinstance(y, jax.Array) else _of_host(name, y)
    if y.shape[1:] != flow.event_shape or y.ndim != len(flow.event_shape) + 1:
        raise ValueError(f"{name} must have shape (N, *{flow.event_shape}); got {y.shape}")
    if y.shape[0] == 0:
        raise ValueError(f"{name} is empty: it has shape {y.shape}")
    _check_values(name, flow, y)
    return y, _check_context(name, flow, context, len(y))


def _of_host(name: str, y: Any) -> np.ndarray:
    """An array of NumPy, or the numbers of a data frame, as JAX has numbers; no copy if it is."""
    y = np.ma.asanyarray(y)
    if y.dtype.kind not in "biuf" and y.dtype.name != "bfloat16":
        first = y.ravel()[0] if y.size else None
        raise TypeError(
            f"{name} must hold numbers; got dtype {y.dtype}, such as {first!r:.40}. "
            "jflow.data.table reads tables of other kinds"
        )
    return as_host_array(name, y)


def _check_values(name: str, flow: Flow, y: Array | np.ndarray) -> None:
    if flow.integers is not None:
        floating = jnp.issubdtype(y.dtype, jnp.floating)
        if floating and any(bool(jnp.isnan(part).any()) for part in _parts(y)):
            raise ValueError(f"{name} holds NaN; it must be integers, {flow.integers}")
        check_integers(name, y, flow.integers)
    elif not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating for a flow of continuous values; got {y.dtype}. Convert it, "
            "or, for grey levels, build the flow with values=k"
        )
    elif any(not bool(jnp.isfinite(part).all()) for part in _parts(y)):
        not_finite = lambda part: (~jnp.isfinite(part)).reshape(len(part), -1).any(axis=1)  # noqa: E731
        bad = sum(int(not_finite(part).sum()) for part in _parts(y))
        raise ValueError(f"{name} holds NaN or infinities, in {bad} of {len(y)} examples")
    else:
        _check_angles(name, flow, y)


def _parts(y: Array | np.ndarray) -> Iterator[Array | np.ndarray]:
    """Rows of an array of the host, some at a time, so that nothing as large as it is made."""
    rows = len(y) if isinstance(y, jax.Array) else max(1, _BYTES * len(y) // max(y.nbytes, 1))
    return (y[first : first + rows] for first in range(0, len(y), rows))


def _check_angles(name: str, flow: Flow, y: Array | np.ndarray) -> None:
    far = sum(int(np.sum(beyond_a_turn(flow.support, p, flow.event_shape))) for p in _parts(y))
    if far:
        raise ValueError(
            f"{name} holds angles beyond [-pi, pi], in {far} of {len(y)} examples: they "
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


def only_given(name: str, example: Any) -> dict[str, Any]:
    """Of an example of a stream what a flow is given; an array alone is y.

    Raises:
      ValueError: it holds no array.
    """
    given = example if isinstance(example, dict) else {"y": example}
    if not hasattr(given.get("y"), "shape"):
        got = f"a dict of {sorted(given)}" if isinstance(example, dict) else repr(example)[:60]
        raise ValueError(
            f"examples of {name} must be arrays, or {{'y': array, 'context': array}}; got {got}. "
            "Use map() to make them so; what filter() leaves out has no place in a stream of known "
            "length"
        )
    return {part: given[part] for part in ("y", "context", "weights") if part in given}


def read_batch(name: str, flow: Flow, batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """(y, context) and weights of a batch of a stream, checked."""
    y, context, weights = batch["y"], batch.get("context"), batch.get("weights")
    check_batch(name, flow, y, context)
    if weights is not None:
        weights = as_weights(f"weights of {name}", weights, len(y), some=False)
    return (y, context), weights
