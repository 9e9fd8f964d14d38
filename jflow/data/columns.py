"""The columns of tables of any kind, as NumPy arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def named_columns(source: Any) -> tuple[list[str], list[np.ndarray]] | None:
    """Names and columns of a dict or of a data frame of pandas, polars or pyarrow; None for others.

    Raises:
      ValueError: a name occurs twice.
    """
    if isinstance(source, Mapping):
        keys = list(source)
    else:
        keys = getattr(source, "column_names", None)  # pyarrow, where `columns` has the data
        keys = getattr(source, "columns", None) if keys is None else keys
        if keys is None or not hasattr(source, "__getitem__"):
            return None
    names = [str(key) for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"table: column names {twice} occur more than once; rename them")
    return names, [_array(source[key]) for key in keys]


def _array(column: Any) -> np.ndarray:
    return np.ma.asanyarray(column.to_numpy() if hasattr(column, "to_numpy") else column)


def integers_from(dtype: np.dtype) -> float:
    """From where on all numbers of a dtype are integers; infinity where it has only integers."""
    return 2.0 ** np.finfo(dtype).nmant if dtype.kind == "f" else np.inf


def no_number(name: str, row: int, cell: Any, kind: Any) -> TypeError:
    """The error of a cell that is no number."""
    return TypeError(
        f"table: column {name!r}, row {row}: {str(cell)!r:.40} ({kind}) is no number; encode it, "
        "leave out the row, or leave out the column by ignore="
    )


def vary(x: np.ndarray) -> bool:
    """Whether numbers differ by more than rounding."""
    return bool(len(x) and np.ptp(x) > 8 * np.finfo(np.float64).eps * np.abs(x).max())
