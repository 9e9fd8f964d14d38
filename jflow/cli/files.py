"""Tables in parts, from files and pipes, and to them: memory does not grow with their length."""

import csv
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

Part = dict[str, np.ndarray]
_ROWS = 50_000


def read_parts(source: str, names: tuple[str, ...]) -> Iterator[Part]:
    """The rows of a file, or of standard input ("-"), some at a time.

    Args:
      source: a .csv, .tsv, .parquet, .npy or .npz file; "-" is read as comma-separated values.
      names: of the columns, for a source that has none.

    Raises:
      FileNotFoundError, ValueError: no such file, or its rows have another number of cells.
    """
    suffix = Path(source).suffix.lower()
    if source == "-":
        yield from _csv(sys.stdin, ",", names)
    elif suffix in (".csv", ".tsv"):
        with Path(source).expanduser().open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            yield from _csv(file, max(",;\t", key=first.count), names)
    elif suffix == ".parquet":
        yield from _parquet(source)
    elif suffix == ".npy":
        whole = np.load(Path(source).expanduser(), mmap_mode="r", allow_pickle=False)
        for first in range(0, len(whole), _ROWS):
            yield dict(zip(names, np.asarray(whole[first : first + _ROWS]).T, strict=True))
    elif suffix == ".npz":
        from jflow.data.table_files import npz

        own, columns = npz(Path(source).expanduser())
        for first in range(0, len(columns[0]), _ROWS):
            part = (column[first : first + _ROWS] for column in columns)
            yield dict(zip(own or names, part, strict=True))
    else:
        raise ValueError(
            f"{source} must be a .csv, .tsv, .parquet, .npy or .npz file, or - for a pipe"
        )


def _csv(file: TextIO, delimiter: str, names: tuple[str, ...]) -> Iterator[Part]:
    reader = csv.reader(file, delimiter=delimiter)
    first = next(reader, None)
    if first is None:
        raise ValueError("the source is empty: it has no line")
    header = [cell.strip() for cell in first]
    rows = reader
    if len(header) == len(names) and not set(names) & set(header):  # there is no header
        header, rows = list(names), (row for part in ([first], reader) for row in part)
    count = 0
    while part := [row for row in islice(rows, _ROWS) if row]:
        for number, row in enumerate(part, count + 1):
            if len(row) != len(header):
                raise ValueError(
                    f"row {number} has {len(row)} cells, where the header has {len(header)}"
                )
        yield dict(zip(header, np.asarray(part, str).T, strict=True))
        count += len(part)


def _parquet(source: str) -> Iterator[Part]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"to read {source}, pyarrow is needed: `pip install pyarrow`") from error
    for batch in parquet.ParquetFile(Path(source).expanduser()).iter_batches(_ROWS):
        arrays = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
        yield dict(zip(batch.schema.names, arrays, strict=True))


class Writer:
    """Writes parts of a table as comma-separated values, with a header before the first."""

    def __init__(self, file: TextIO):
        self._rows, self._begun = csv.writer(file, lineterminator="\n"), False

    def write(self, part: Mapping[str, np.ndarray]) -> None:
        """Appends rows."""
        if not self._begun:
            self._rows.writerow(part)
            self._begun = True
        self._rows.writerows(zip(*([_cell(c) for c in column.tolist()] for column in part.values()),
                                 strict=True))  # fmt: skip


def _cell(value: object) -> object:
    """As `read_parts` reads it: empty where it is missing."""
    return "" if value is None or value != value else value


@contextmanager
def writer(out: str) -> Iterator[Writer]:
    """Of a file, or of standard output ("-").

    Raises:
      ValueError: it is not a .csv file.
    """
    if out == "-":
        yield Writer(sys.stdout)
        sys.stdout.flush()
        return
    if Path(out).suffix.lower() != ".csv":
        raise ValueError(f"--out must be a .csv file, or - for standard output; got {out}")
    with Path(out).expanduser().open("w", newline="", encoding="utf-8") as file:
        yield Writer(file)
