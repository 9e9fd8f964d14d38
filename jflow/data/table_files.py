"""Columns of numbers from files: comma-separated values, NumPy arrays, Parquet."""

import csv
import importlib
from pathlib import Path

import numpy as np

Columns = tuple[list[str] | None, list[np.ndarray]]


def columns_of(name: str, values: np.ndarray) -> list[np.ndarray]:
    """The columns of an array (N, D).

    Raises:
      ValueError: it has another shape, or is empty.
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name} must be (N, D) and not empty; got shape {values.shape}")
    return list(values.T)


def read(file: Path) -> Columns:
    """The names and the columns of a file; None for the names if it has none.

    Raises:
      FileNotFoundError: no such file.
      ImportError: pyarrow is not installed, and the file is Parquet.
      ValueError: an unknown suffix, no rows, or rows of unequal length.
    """
    readers = {".csv": _csv, ".npy": _npy, ".parquet": _parquet}
    if file.suffix.lower() not in readers:
        raise ValueError(f"{file} must be one of {list(readers)}; read it, and give its array")
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give the path of a table")
    return readers[file.suffix.lower()](file)


def _npy(file: Path) -> Columns:
    values = np.load(file, allow_pickle=False)
    if values.dtype.names:
        return list(values.dtype.names), [values[name] for name in values.dtype.names]
    return None, columns_of(str(file), values)


def _parquet(file: Path) -> Columns:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"to read {file}, pyarrow is needed: `pip install pyarrow`") from error
    found = parquet.ParquetFile(file).read()
    return list(found.column_names), [column.to_numpy() for column in found.columns]


def _csv(file: Path) -> Columns:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        lines = [line for line in stream if line.strip()]
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    first = next(csv.reader(lines, delimiter=delimiter), [])
    header = None if all(map(_is_number, first)) else [cell.strip() for cell in first]
    body = lines if header is None else lines[1:]
    if not body:
        raise ValueError(f"{file} is empty: it has no row of numbers")
    try:
        values = np.loadtxt(body, delimiter=delimiter, quotechar='"', comments=None, ndmin=2)
    except ValueError:  # words, empty cells or lines of unequal length: slower, and says where
        return header, _cells(file, list(csv.reader(body, delimiter=delimiter)))
    return header, list(values.T)


def _cells(file: Path, rows: list[list[str]]) -> list[np.ndarray]:
    """Columns of numbers, with NaN for empty cells, and of strings where a cell is no number."""
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{file}: row {number} has {len(row)} cells, but row 1 has {len(rows[0])}"
            )
    columns = [np.asarray([cell.strip() or "nan" for cell in c]) for c in zip(*rows, strict=True)]
    return [c.astype(np.float64) if all(map(_is_number, c)) else c for c in columns]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
