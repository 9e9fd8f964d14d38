"""The files of a saved density of a table: its schema, its density, and its calibration.

A directory with `density`, as `Density.save` writes it, numbers.npz, and table.json, which comes
last and tells which of them it belongs to. All are plain data: reading them runs no code.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jflow.data.column import Column
from jflow.data.schema import Schema
from jflow.distributions import Density
from jflow.distributions import load as load_density

if TYPE_CHECKING:
    from jflow.data.table_density import TableDensity

_KIND, _FORMAT = "jflow table density", 1
_TABLE, _NUMBERS, _DENSITY = "table.json", "numbers.npz", "density"


def save(folder: Path, table: "TableDensity") -> None:
    """Writes it; see `TableDensity.save`."""
    foreign = folder.exists() and not (folder / _TABLE).is_file()
    if foreign and (not folder.is_dir() or any(f.name != _DENSITY for f in folder.iterdir())):
        raise FileExistsError(
            f"{folder} holds something other than the saved density of a table; choose another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    table.density.save(folder / _DENSITY)
    arrays = {name: getattr(table, name) for name in ("calibration", "trained")}
    temporary = folder / f".{_NUMBERS}"
    with temporary.open("wb") as opened:
        np.savez(opened, **{n: a for n, a in arrays.items() if a is not None})
    digest = _digest(temporary)
    os.replace(temporary, folder / _NUMBERS)
    said = {"kind": _KIND, "format": _FORMAT, "schema": asdict(table.schema), "numbers": digest,
            "density": _digest(folder / _DENSITY / "config.json")}  # fmt: skip
    temporary = folder / f".{_TABLE}"
    temporary.write_text(json.dumps(said, indent=2))
    os.replace(temporary, folder / _TABLE)


def load(folder: Path) -> tuple[Schema, Density, np.ndarray | None, np.ndarray | None]:
    """Reads it; see `TableDensity.load`."""
    file = folder / _TABLE
    if not file.is_file():
        raise FileNotFoundError(f"no saved density of a table at {folder}: there is no {_TABLE}")
    try:
        said = json.loads(file.read_bytes())
        schema = _schema(said["schema"])
        known = said["kind"] == _KIND and said["format"] == _FORMAT
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, or of another version") from error
    if not known:
        raise ValueError(f"{file} is of another version: {said['kind']} {said['format']}")
    for name, path in (("numbers", _NUMBERS), ("density", f"{_DENSITY}/config.json")):
        if not (folder / path).is_file() or _digest(folder / path) != said[name]:
            raise ValueError(f"{folder} is damaged: {path} is not the one that {_TABLE} names")
    density = load_density(folder / _DENSITY)
    with (folder / _NUMBERS).open("rb") as opened, np.load(opened) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return schema, density, found.get("calibration"), found.get("trained")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _schema(said: dict[str, Any]) -> Schema:
    def columns(name: str) -> tuple[Column, ...]:
        return tuple(Column(**{**c, "categories": tuple(c["categories"])}) for c in said[name])

    constants = tuple((name, known, value) for name, known, value in said["constants"])
    return Schema(columns("columns"), columns("given"), said["conditionals"], constants,
                  tuple(said["order"]), said["frame"])  # fmt: skip
