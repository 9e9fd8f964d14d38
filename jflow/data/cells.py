"""What the cells of a column are: numbers, words or dates, and which are missing."""

from typing import Any

import numpy as np

from jflow.data.columns import no_number

# Words for a cell that is missing, in lower case.
MISSING = frozenset({"", "na", "n/a", "<na>", "nan", "nat", "null", "none", "?"})
_TRUTHS = {"true": 1.0, "false": 0.0}
_DAY = np.timedelta64(1, "D")
# The share of cells that make a column one of numbers, of which the others are then faults.
_MOST = 0.9


def read_cells(name: str, column: np.ndarray) -> tuple[str, np.ndarray]:
    """What a column (N,) holds, and its cells.

    Returns:
      "boolean", "integer", "real" or "date", and float64 numbers (dates in days since 1970), NaN
      where a cell is missing; or "text", and an array of str, None where a cell is missing.

    Raises:
      TypeError: cells of several kinds. Row, column and cell are named.
    """
    if column.ndim != 1:
        raise ValueError(f"table: column {name!r} must have shape (N,); got {column.shape}")
    kind = {"b": "boolean", "i": "integer", "u": "integer", "f": "real", "M": "date"}
    if (known := kind.get(column.dtype.kind)) is not None:
        numbers = _days(column) if known == "date" else column.astype(np.float64)
        return known, np.ma.filled(np.ma.asarray(numbers), np.nan)
    if column.dtype.kind not in "OUS":
        raise no_number(name, 0, column[0] if len(column) else None, column.dtype)
    return _of_objects(name, [_present(cell) for cell in column.tolist()])


def _days(column: np.ndarray) -> np.ndarray:
    days = column.astype("datetime64[us]").astype(np.float64) / (_DAY / np.timedelta64(1, "us"))
    missing = np.isnat(np.ma.getdata(column)) | np.ma.getmaskarray(column)
    return np.where(missing, np.nan, np.ma.getdata(days))


def _present(cell: Any) -> Any:
    """The cell, words without spaces around them; None if it is missing."""
    if cell is None or cell is np.ma.masked or type(cell).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, str):
        cell = cell.strip()
        return None if cell.lower() in MISSING else cell
    return None if cell != cell else cell  # NaN


def _of_objects(name: str, cells: list[Any]) -> tuple[str, np.ndarray]:
    known = [cell for cell in cells if cell is not None]
    if known and all(isinstance(cell, bool | np.bool_) for cell in known):
        return "boolean", _filled(cells, float)
    if known and all(str(cell).lower() in _TRUTHS for cell in known):
        return "boolean", _filled(cells, lambda cell: _TRUTHS[str(cell).lower()])
    numbers = [_number(cell) for cell in known]
    share = sum(number is not None for number in numbers) / max(1, len(known))
    if share == 1:
        found = _filled(cells, float)
        whole = all(isinstance(cell, int) or str(cell).lstrip("+-").isdigit() for cell in known)
        return "integer" if whole and known else "real", found
    dates = [_date(cell) for cell in known]
    if all(date is not None for date in dates):
        return "date", _filled(cells, _date)  # type: ignore[arg-type]
    if share >= _MOST:
        row = next(i for i, c in enumerate(cells) if c is not None and _number(c) is None)
        raise no_number(name, row, cells[row], type(cells[row]).__name__)
    words = [None if cell is None else _word(cell) for cell in cells]
    return "text", np.asarray(words, object)


def _filled(cells: list[Any], read: Any) -> np.ndarray:
    return np.asarray([np.nan if cell is None else read(cell) for cell in cells], np.float64)


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _date(cell: Any) -> float | None:
    """Days since 1970 of a date or an ISO word such as 2024-01-31 or 2024-01-31T12:00."""
    if isinstance(cell, str) and len(cell) < 8:
        return None
    if getattr(cell, "tzinfo", None) is not None:
        raise TypeError(
            f"table: {cell} has a time zone; give times of one zone, without it: in pandas "
            "column.dt.tz_convert('UTC').dt.tz_localize(None)"
        )
    try:
        return float(_days(np.asarray([cell], "datetime64[us]"))[0])
    except (TypeError, ValueError):
        return None


def as_kind(name: str, kind: str, column: np.ndarray) -> np.ndarray:
    """The cells of a column of that kind, whatever else they look like.

    Returns:
      Of a category words, None where missing; otherwise numbers, NaN where missing.

    Raises:
      TypeError: a cell is not of that kind. Row, column and cell are named.
    """
    if column.ndim != 1:
        raise ValueError(f"table: column {name!r} must have shape (N,); got {column.shape}")
    dates = column.dtype.kind == "M"
    if kind != "category" and column.dtype.kind in "biufM" and dates == (kind == "date"):
        return read_cells(name, column)[1]
    cells = column.tolist() if not dates else list(np.datetime_as_string(column))
    cells = [None if is_missing(cell) or str(cell) == "NaT" else cell for cell in cells]
    if kind == "category":
        return np.asarray([None if cell is None else _word(cell) for cell in cells], object)
    read = {"date": _date, "boolean": _truth}.get(kind, _number)
    found = [np.nan if _present(cell) is None else read(_present(cell)) for cell in cells]
    for row, number in enumerate(found):
        if number is None:
            raise TypeError(
                f"table: column {name!r}, row {row}: {str(cells[row])!r:.40} cannot be read as "
                f"{kind!r}; mend the cell, or declare another kind by columns="
            )
    return np.asarray(found, np.float64)


def is_missing(cell: Any) -> bool:
    """Whether there is no cell, whatever words mean."""
    return (
        cell is None or cell is np.ma.masked or type(cell).__name__ in ("NAType", "NaTType")
        or cell != cell or (isinstance(cell, str) and not cell.strip())
    )  # fmt: skip


def _word(cell: Any) -> str:
    """A cell of a category: numbers that are whole are written so."""
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _truth(cell: Any) -> float | None:
    return _TRUTHS.get(str(cell).lower(), _number(cell))
