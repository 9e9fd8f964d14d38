"""What a report needs to know of a fit, beside the density that came of it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jflow.data import Table
from jflow.data.schema import Rows, Schema
from jflow.train import History

# Rows of each part that are kept.
_MOST = 5_000
_ARRAYS, _REST = "evidence.npz", "evidence.json"
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Evidence:
    """Rows and history of a fit.

    Attributes:
      parts: rows that it was fitted on, chosen by and calibrated by, 5,000 of each at most.
      counts: how many there were.
      history: rows of the history.
      best_step: whose parameters were kept.
      ended: why the run did.
      source: the name of the data.
      constant: columns that were left out because they have one value.
      schema: the digest of the schema that the rows are told by.
    """

    parts: tuple[Rows, Rows, Rows]
    counts: tuple[int, int, int]
    history: list[dict[str, float]]
    best_step: int
    ended: str
    source: str = "a table"
    constant: tuple[str, ...] = ()
    schema: str = ""

    @classmethod
    def of(cls, table: Table, history: History, source: str = "a table") -> "Evidence":
        """That of a table and of the history of its fit."""
        first, second, third = (_some(part, table.seed) for part in table.rows)
        count = [len(part.values) for part in table.rows]
        return cls(
            (first, second, third), (count[0], count[1], count[2]),
            [dict(row) for row in history.rows], history.best_step, history.ended, source,
            table.constant, digest(table.schema),
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Writes it into a directory that is there."""
        arrays = {}
        for name, part in zip(_PARTS, self.parts, strict=True):
            named = {f"{name}_{field}": array for field, array in part._asdict().items()}
            arrays |= {field: array for field, array in named.items() if array is not None}
        np.savez_compressed(folder / _ARRAYS, **arrays)
        names = ("counts", "history", "best_step", "ended", "source", "constant", "schema")
        rest = {name: getattr(self, name) for name in names}
        (folder / _REST).write_text(json.dumps(rest))

    @classmethod
    def load(cls, folder: Path) -> "Evidence":
        """Reads it.

        Raises:
          FileNotFoundError: it is not there.
        """
        if not (folder / _REST).is_file() or not (folder / _ARRAYS).is_file():
            raise FileNotFoundError(
                f"{folder} has no rows to report on: `jflow fit` keeps them beside the model"
            )
        rest: dict[str, Any] = json.loads((folder / _REST).read_bytes())
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        first, second, third = (
            Rows(*(found.get(f"{name}_{field}") for field in Rows._fields))  # type: ignore[arg-type]
            for name in _PARTS
        )
        counts, constant = tuple(rest.pop("counts")), tuple(rest.pop("constant"))
        return cls((first, second, third), counts, constant=constant, **rest)


def digest(schema: Schema) -> str:
    """Equal for equal schemas."""
    return hashlib.sha256(json.dumps(asdict(schema)).encode()).hexdigest()


def _some(rows: Rows, seed: int) -> Rows:
    count = len(rows.values)
    if count <= _MOST:
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).permutation(count)[:_MOST]))
