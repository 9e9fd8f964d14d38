"""The files of a saved density of a table: those of `keeping`, with its schema in table.json."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jflow.data import keeping
from jflow.data.column import Column
from jflow.data.schema import Schema
from jflow.distributions import Density

if TYPE_CHECKING:
    from jflow.data.table_density import TableDensity


def save(folder: Path, table: "TableDensity") -> None:
    """Writes it; see `TableDensity.save`."""
    arrays = {"calibration": table.calibration, "trained": table.trained}
    said = {"schema": asdict(table.schema)}
    keeping.save(folder, "table", said, {"density": table.density}, arrays)


def load(folder: Path) -> tuple[Schema, Density, np.ndarray | None, np.ndarray | None]:
    """Reads it; see `TableDensity.load`."""
    said, densities, arrays = keeping.load(folder, "table", ("density",))
    try:
        schema, density = _schema(said["schema"]), densities["density"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise keeping.damaged(folder, "table") from error
    return schema, density, arrays.get("calibration"), arrays.get("trained")


def _schema(said: dict[str, Any]) -> Schema:
    def columns(name: str) -> tuple[Column, ...]:
        return tuple(Column(**{**c, "categories": tuple(c["categories"])}) for c in said[name])

    constants = tuple((name, known, value) for name, known, value in said["constants"])
    return Schema(columns("columns"), columns("given"), said["conditionals"], constants,
                  tuple(said["order"]), said["frame"])  # fmt: skip
