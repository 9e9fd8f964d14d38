"""What a report needs to know of a fit, beside the density that came of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from jflow.data import Splits, Table
from jflow.data.schema import Rows, Schema
from jflow.data.splits import Labelled
from jflow.train import History

# Of each part: rows, and images to train on and others, that are kept; bytes of images.
_ROWS, _IMAGES, _OTHERS, _BYTES = 5_000, 20_000, 1_000, 2**26
_ARRAYS, _REST = "evidence.npz", "evidence.json"
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What tables and images have in common.

    Attributes:
      counts: how many there were in each part.
      history: rows of the history.
      best_step: whose parameters were kept.
      ended: why the run did.
      source: the name of the data.
    """

    _names: ClassVar[tuple[str, ...]] = ("counts", "history", "best_step", "ended", "source")

    counts: tuple[int, int, int]
    history: list[dict[str, float]]
    best_step: int
    ended: str
    source: str

    def save(self, folder: Path) -> None:
        """Writes it into a directory that is there."""
        arrays: dict[str, Any] = self._arrays()
        np.savez_compressed(folder / _ARRAYS, **arrays)
        rest = {name: getattr(self, name) for name in self._names}
        (folder / _REST).write_text(json.dumps(rest))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads it.

        Raises:
          FileNotFoundError: it is not there.
        """
        if not (folder / _REST).is_file() or not (folder / _ARRAYS).is_file():
            raise FileNotFoundError(
                f"{folder} has nothing to report on: `jflow fit` keeps data beside the model"
            )
        rest: dict[str, Any] = json.loads((folder / _REST).read_bytes())
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        rest = {n: tuple(v) if isinstance(v, list) and n != "history" else v
                for n, v in rest.items()}  # fmt: skip
        return cls(parts=cls._parts(found), **rest)  # type: ignore[call-arg]

    def _arrays(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    @staticmethod
    def _parts(arrays: Mapping[str, np.ndarray]) -> tuple[Any, Any, Any]:
        raise NotImplementedError


def _of(history: History) -> dict[str, Any]:
    rows = [dict(row) for row in history.rows]
    return {"history": rows, "best_step": history.best_step, "ended": history.ended}


@dataclass(frozen=True, kw_only=True)
class Evidence(_Kept):
    """Rows and history of a fit.

    Attributes:
      parts: rows that it was fitted on, chosen by and calibrated by, 5,000 of each at most.
      constant: columns that were left out because they have one value.
      schema: the digest of the schema that the rows are told by.
    """

    _names: ClassVar[tuple[str, ...]] = (*_Kept._names, "constant", "schema")

    parts: tuple[Rows, Rows, Rows]
    constant: tuple[str, ...] = ()
    schema: str = ""

    @classmethod
    def of(cls, table: Table, history: History, source: str = "a table") -> "Evidence":
        """That of a table and of the history of its fit."""
        first, second, third = (_some(part, table.seed) for part in table.rows)
        count = [len(part.values) for part in table.rows]
        return cls(
            parts=(first, second, third), counts=(count[0], count[1], count[2]), source=source,
            constant=table.constant, schema=digest(table.schema), **_of(history),
        )  # fmt: skip

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name, part in zip(_PARTS, self.parts, strict=True):
            named = {f"{name}_{field}": array for field, array in part._asdict().items()}
            arrays |= {field: array for field, array in named.items() if array is not None}
        return arrays

    @staticmethod
    def _parts(arrays: Mapping[str, np.ndarray]) -> tuple[Rows, Rows, Rows]:
        first, second, third = (
            Rows(*(arrays.get(f"{name}_{field}") for field in Rows._fields))  # type: ignore[arg-type]
            for name in _PARTS
        )
        return first, second, third


@dataclass(frozen=True, kw_only=True)
class ImageEvidence(_Kept):
    """Images and history of a fit.

    Attributes:
      parts: images that it was fitted on, 20,000 or 64 MiB at most, and that it was chosen and
        calibrated by, 1,000 of each at most; (N, height, width, channels).
    """

    parts: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, images: Splits, history: History, source: str = "images") -> "ImageEvidence":
        """That of images and of the history of their fit."""
        most = max(1, min(_IMAGES, _BYTES // int(np.prod(images.shape))))
        train, others = images.train, (images.validation.y, images.test.y)
        # By chance, and in no order: folders and archives are often in that of classes.
        some = _by_chance(len(train), most)
        own = (
            train.y[some]
            if isinstance(train, Labelled)
            else np.stack([train[i]["y"] for i in some])
        )
        second, third = (y[_by_chance(len(y), min(most, _OTHERS))] for y in others)
        counts = (len(train), len(others[0]), len(others[1]))
        return cls(parts=(own, second, third), counts=counts, source=source, **_of(history))

    def _arrays(self) -> dict[str, np.ndarray]:
        return dict(zip(_PARTS, self.parts, strict=True))

    @staticmethod
    def _parts(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return arrays["train"], arrays["validation"], arrays["test"]


def digest(schema: Schema) -> str:
    """Equal for equal schemas."""
    return hashlib.sha256(json.dumps(asdict(schema)).encode()).hexdigest()


def _some(rows: Rows, seed: int) -> Rows:
    count = len(rows.values)
    if count <= _ROWS:
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).permutation(count)[:_ROWS]))


def _by_chance(count: int, most: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count)[:most]
