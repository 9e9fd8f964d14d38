"""Tables in the kind of frame that the user has: pandas, polars, pyarrow, or a dict of arrays."""

import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

_KINDS = ("pandas", "polars", "pyarrow")


def kind_of_frame(source: Any) -> str:
    """What a source is a frame of; "dict" for all else, and for files "pandas" if it is there."""
    if isinstance(source, str | os.PathLike):
        return "pandas" if importlib.util.find_spec("pandas") else "dict"
    library = type(source).__module__.split(".")[0]
    return library if library in _KINDS else "dict"


def as_frame(kind: str, columns: Mapping[str, np.ndarray]) -> Any:
    """The columns as a frame of that kind; as a dict, where the library is not installed."""
    try:
        library = importlib.import_module(kind) if kind in _KINDS else None
    except ImportError:
        library = None
    if library is None:
        return dict(columns)
    if kind == "pyarrow":
        return library.table({name: library.array(c.tolist() if c.dtype == object else c)
                              for name, c in columns.items()})  # fmt: skip
    if kind == "polars":
        return library.DataFrame(
            {name: c.tolist() if c.dtype == object else c for name, c in columns.items()}
        )
    return library.DataFrame(dict(columns))


def as_columns(raw: Any) -> Any:
    """A dict of single cells as one of columns; all else as it is."""
    if isinstance(raw, dict):
        return {n: cell if np.ndim(cell) else np.asarray([cell]) for n, cell in raw.items()}
    return raw
