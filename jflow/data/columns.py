"""The columns of tables of any kind, as NumPy arrays of numbers."""

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


def as_numbers(name: str, column: np.ndarray) -> np.ndarray:
    """A column in a floating dtype of this machine's byte order, with NaN where it is masked.

    Raises:
      TypeError: a cell is no number. Row, column and cell are named.
    """
    if column.dtype.kind in "biuf":
        floating = np.result_type(column.dtype.newbyteorder("="), np.float32)
        numbers = column.astype(floating)
        return numbers.filled(np.nan) if isinstance(numbers, np.ma.MaskedArray) else numbers
    if column.dtype.kind in "OUS" and column.ndim == 1:
        return np.asarray([_number(name, row, cell) for row, cell in enumerate(column)], np.float64)
    raise no_number(name, 0, column.ravel()[0] if column.size else None, column.dtype)


def _number(name: str, row: int, cell: Any) -> float:
    if cell is None or cell is np.ma.masked or type(cell).__name__ == "NAType":
        return np.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise no_number(name, row, cell, type(cell).__name__) from None


def no_number(name: str, row: int, cell: Any, kind: Any) -> TypeError:
    """The error of a cell that is no number."""
    return TypeError(
        f"table: column {name!r}, row {row}: {str(cell)!r:.40} ({kind}) is no number; encode it, "
        "leave out the row, or leave out the column by ignore="
    )
