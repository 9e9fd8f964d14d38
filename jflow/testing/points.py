"""Points, contexts and parameters to check at, drawn in NumPy so that nothing is compiled."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

# Draws points (*shape): of a generator and a shape.
Sampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

BATCH = (2, 3)
COUNT = 6
# Where formulas overflow, divide by zero, or leave their interval.
FAR = np.asarray([0.0, 50.0, -50.0, 1e6, -1e6, 1.0], np.float32)


def draw(
    name: str,
    given: ArrayLike | Sampler | None,
    random: np.random.Generator,
    event_shape: tuple[int, ...],
) -> np.ndarray:
    """Points (COUNT, *event), exact in float32: of a sampler, rows of an array, or normals.

    Raises:
      ValueError: an array that does not hold events of that shape.
    """
    shape = (COUNT, *event_shape)
    if given is None:
        points = random.standard_normal(shape)
    elif callable(given):
        points = np.asarray(given(random, shape), np.float64)
        if points.shape != shape:
            raise ValueError(f"{name} must draw points of shape {shape}; got {points.shape}")
    else:
        rows = np.asarray(given, np.float64)
        if rows.ndim != 1 + len(event_shape) or rows.shape[1:] != event_shape or not len(rows):
            raise ValueError(
                f"{name} must be points of shape (N, {str(event_shape)[1:]}, or draw them of a "
                f"generator and a shape; got {rows.shape}"
            )
        points = rows[random.choice(len(rows), COUNT, replace=len(rows) < COUNT)]
    return rounded(points)


def draw_context(
    context: ArrayLike | None, random: np.random.Generator, ndim: int
) -> np.ndarray | None:
    """Contexts (COUNT, C) among those given, (N, C) or (C,); or sequences of two axes likewise."""
    if context is None:
        return None
    rows = np.asarray(context, np.float64)
    rows = rows[None] if rows.ndim == ndim else rows
    return draw("context", rows, random, rows.shape[1:])


def far_points(event_shape: tuple[int, ...]) -> np.ndarray:
    """(COUNT, *event) of zeros, large and very large numbers, alone and together."""
    own = FAR.reshape(-1, *(1,) * len(event_shape))
    return np.resize(FAR, (COUNT, *event_shape)) + own


def moved(
    variables: Mapping[str, Any], scale: float, random: np.random.Generator
) -> dict[str, Any]:
    """Variables with parameters moved off their first values, at which layers may be identities."""
    params = jax.device_get(variables.get("params", {}))
    step = lambda leaf: leaf + leaf.dtype.type(scale) * _normal(random, leaf)  # noqa: E731
    return {**variables, "params": jax.tree.map(step, params)}


def rounded_variables(variables: dict[str, Any]) -> dict[str, Any]:
    """Variables with values that float32 holds exactly: both precisions see the same."""
    return jax.tree.map(lambda leaf: rounded(np.asarray(leaf)), variables)


def in_dtype(tree: Any, dtype: Any) -> Any:
    """A pytree with its floating arrays in that dtype."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(lambda leaf: cast(np.asarray(leaf)), tree)


def direction_like(tree: Any, random: np.random.Generator) -> Any:
    """A random direction in the space of a pytree."""
    return jax.tree.map(lambda leaf: _normal(random, leaf), tree)


def _normal(random: np.random.Generator, leaf: Any) -> np.ndarray:
    return random.standard_normal(np.shape(leaf)).astype(leaf.dtype)


def rounded(values: np.ndarray) -> np.ndarray:
    """float64 values that float32 holds exactly; others as they are."""
    return values.astype(np.float32).astype(values.dtype) if values.dtype == np.float64 else values


def precisions(dtype: DTypeLike | None) -> tuple[str, str]:
    """The dtypes of the exact checks, and of the others.

    Raises:
      ValueError: neither float32 nor float64 nor None.
    """
    if dtype is None:
        return "float64", "float32"
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32', 'float64' or None for both; got {dtype!r}")
    return name, name
