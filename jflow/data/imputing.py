"""What missing cells are filled with."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jflow.data.columns import named_columns
from jflow.data.frames import as_frame, kind_of_frame
from jflow.data.schema import Schema


def middle(schema: Schema, drawn: np.ndarray) -> np.ndarray:
    """The median of draws (S, N, D) over the first axis; of categories, the most frequent."""
    found = np.median(drawn, axis=0)
    for d, column in enumerate(schema.columns):
        if column.categories or column.kind == "boolean":
            count = len(column.categories) or 2
            place = np.floor(drawn[..., d] * count).clip(0, count - 1)
            votes = (place[..., None] == np.arange(count)).sum(0)
            found[:, d] = (votes.argmax(-1) + 0.5) / count
    return found


def with_cells(
    raw: Any, rows: np.ndarray, cells: Mapping[str, tuple[np.ndarray, np.ndarray]],
    order: tuple[str, ...],
) -> Any:  # fmt: skip
    """The table with other cells, in the same frame.

    Args:
      raw: the table.
      rows: which rows have other cells.
      cells: by column, those cells, and which of the rows have them.
      order: names of the columns of an array.
    """
    kind = kind_of_frame(raw)
    names, arrays = named_columns(raw) or (list(order), list(np.ma.asanyarray(raw).T))
    found = {}
    for name, column in zip(names, arrays, strict=True):
        found[name] = column
        if name in cells and cells[name][1].any():
            found[name] = _merged(column, *cells[name], rows)
    if kind != "pandas":
        return as_frame(kind, found)
    frame = raw.copy()
    for name, (_, changed) in cells.items():
        if changed.any():
            dtype, frame[name] = frame[name].dtype, found[name]
            with contextlib.suppress(TypeError, ValueError):
                frame[name] = frame[name].astype(dtype)
    return frame


def _merged(
    known: np.ndarray, cells: np.ndarray, changed: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """The column with those cells, in a dtype of both."""
    words = known.dtype.kind in "OUS" or cells.dtype == object
    same = known.dtype.kind == cells.dtype.kind == "M" or (known.dtype.kind in "if" and not words)
    found = np.ma.getdata(known).astype(known.dtype if same else object)
    if same and known.dtype.kind == "i":
        found = found.astype(np.float64) if (cells != np.round(cells)).any() else found
    found[rows[changed]] = cells[changed]
    return found
