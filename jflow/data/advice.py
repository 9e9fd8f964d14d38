"""What to know about data before fitting them: columns without a density, and heavy tails."""

import warnings

import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.functional.arrays import is_hidden

_ROWS = 10_000  # that are looked at
# An outlier for sure: even Student-t numbers with two degrees of freedom stay within it 99 % of the
# time, where there are ten thousand of them.
_FAR = 1_000


def advise(y: Array) -> None:
    """Warns of vectors whose columns have no density, or tails that a normal base does not fit.

    - constant, duplicated or exactly collinear columns: likelihoods can grow without bound there;
    - numbers beyond 1,000 interquartile ranges from the median.
    """
    if y.ndim != 2 or not jnp.issubdtype(y.dtype, jnp.floating) or len(y) < 3 or is_hidden(y):
        return
    rows = np.asarray(y[:_ROWS], np.float64)
    center = np.median(rows, axis=0)
    deviations = rows - center
    largest = np.abs(deviations).max(axis=0)
    constant = largest <= 8 * np.finfo(y.dtype).eps * np.abs(center)
    if constant.any():
        _warn(f"columns {_some(constant)} are constant: they have no density; leave them out")
    spread = np.subtract(*np.quantile(rows, (0.75, 0.25), axis=0))
    heavy = (largest > _FAR * spread) & (spread > 0)
    if heavy.any():
        _warn(
            f"columns {_some(heavy)} have numbers {_FAR:,} interquartile ranges from the median: "
            "transform them (np.arcsinh), or give the flow a base with heavy tails "
            "(flow.clone(base=jflow.StudentT(5.0)))"
        )
    # Beside one such number all others are the same.
    rest = ~constant & ~heavy
    tied = np.zeros_like(rest)
    tied[rest] = _collinear(deviations[:, rest] / largest[rest], np.finfo(y.dtype).eps)
    if tied.any():
        _warn(
            f"columns {_some(tied)} are duplicates or sums of others, to rounding: their joint "
            "density is infinite; leave out one of them"
        )


def _collinear(columns: np.ndarray, rounding: float) -> np.ndarray:
    """Which columns take part in a linear relation that holds up to rounding, (D,)."""
    centered = columns - columns.mean(axis=0)
    length = np.linalg.norm(centered, axis=0)
    if not length.size or len(np.unique(columns, axis=0)) <= columns.shape[1] + 1:
        return np.zeros(columns.shape[1], bool)  # so few different rows are always collinear
    _, sizes, directions = np.linalg.svd(centered / length, full_matrices=False)
    nothing = sizes <= 16 * rounding * np.sqrt(len(columns))
    return np.any(np.abs(directions[nothing]) > 0.1, axis=0)  # type: ignore[return-value]


def _some(chosen: np.ndarray) -> str:
    index = np.flatnonzero(chosen).tolist()
    return f"{index[:8]}" + (f" and {len(index) - 8} more" if len(index) > 8 else "")


def _warn(text: str) -> None:
    warnings.warn(f"data: {text}", stacklevel=6)
