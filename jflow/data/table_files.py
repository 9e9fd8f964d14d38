"""Columns of numbers from files: comma-separated values, NumPy arrays, Parquet."""

import codecs
import csv
import gzip
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
    readers = {".csv": _csv, ".tsv": _csv, ".npy": _npy, ".npz": npz, ".parquet": _parquet}
    compressed = file.suffix.lower() == ".gz"
    suffix = Path(file.stem if compressed else file.name).suffix.lower()
    if suffix not in readers or (compressed and readers[suffix] is not _csv):
        kinds = [*readers, ".csv.gz", ".tsv.gz"]
        raise ValueError(f"{file} must be one of {kinds}; read it, and give its array")
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give the path of a table")
    return readers[suffix](file)


def _npy(file: Path) -> Columns:
    values = np.load(file, allow_pickle=False)
    if values.dtype.names:
        return list(values.dtype.names), [values[name] for name in values.dtype.names]
    return None, columns_of(str(file), values)


def npz(file: Path) -> Columns:
    """The columns of an archive: arrays (N,) by their names, or one array (N, D).

    Raises:
      ValueError: it has other arrays.
    """
    with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    if len(found) == 1 and next(iter(found.values())).ndim == 2:
        return None, columns_of(str(file), next(iter(found.values())))
    if not found or any(array.ndim != 1 for array in found.values()):
        shapes = {name: array.shape for name, array in found.items()}
        raise ValueError(f"{file} must have columns (N,) by name, or one (N, D); got {shapes}")
    return list(found), list(found.values())


def _parquet(file: Path) -> Columns:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"to read {file}, pyarrow is needed: `pip install pyarrow`") from error
    found = parquet.ParquetFile(file).read()
    return list(found.column_names), [column.to_numpy() for column in found.columns]


def _csv(file: Path) -> Columns:
    lines = [line for line in _text(file).splitlines() if line.strip()]
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    first = [cell.strip() for cell in next(csv.reader(lines, delimiter=delimiter), [])]
    numbers = all(map(_is_number, first))
    # What pandas calls columns without names.
    counted = len(first) > 1 and first == [str(i) for i in range(len(first))]
    header = first if counted or not numbers else None
    body = lines if header is None else lines[1:]
    if not body:
        raise ValueError(f"{file} is empty: it has no row of numbers")
    try:
        values = np.loadtxt(body, delimiter=delimiter, quotechar='"', comments=None, ndmin=2)
    except ValueError:  # words, empty cells or lines of unequal length: slower, and says where
        comma = "," if delimiter != "," else None
        return header, _cells(file, list(csv.reader(body, delimiter=delimiter)), comma)
    return header, [_whole(column) for column in values.T]


def _whole(column: np.ndarray) -> np.ndarray:
    """Whole numbers as such: text does not tell 3.0 from 3."""
    whole = np.isfinite(column).all() and (column == np.round(column)).all()
    return column.astype(np.int64) if whole and np.abs(column).max() < 2**53 else column


def _text(file: Path) -> str:
    """What a file says, in UTF-8, in UTF-16 if it begins with its mark, or else in Latin-1."""
    content = file.read_bytes()
    if file.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _cells(file: Path, rows: list[list[str]], comma: str | None) -> list[np.ndarray]:
    """Columns of numbers, with NaN for empty cells, and of strings where a cell is no number.

    `comma` may stand in a number where others have a point.
    """
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{file}: row {number} has {len(row)} cells, but row 1 has {len(rows[0])}"
            )
    columns = [np.asarray([cell.strip() or "nan" for cell in c]) for c in zip(*rows, strict=True)]
    for d, column in enumerate(columns):
        for cells in (column, np.char.replace(column, comma, ".") if comma else column):
            if all(map(_is_number, cells)):
                columns[d] = _whole(cells.astype(np.float64))
                break
    return columns


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
