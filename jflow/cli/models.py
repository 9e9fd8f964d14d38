"""Models that commands are given."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from jflow.data import ImageDensity, TableDensity

Model = Annotated[Path, tyro.conf.Positional]
Source = Annotated[str, tyro.conf.Positional]


def load(model: Path) -> "TableDensity | ImageDensity":
    """The density of a table or of images.

    Raises:
      FileNotFoundError, ValueError: there is none, or it is damaged.
    """
    from jflow.data import ImageDensity, TableDensity

    kind = ImageDensity if (model.expanduser() / "images.json").is_file() else TableDensity
    return kind.load(model)


def load_table(command: str, model: Path) -> "TableDensity":
    """That of a table.

    Raises:
      ValueError: it is of images.
    """
    from jflow.data import TableDensity

    density = load(model)
    if not isinstance(density, TableDensity):
        raise ValueError(f"{command} needs a model of a table; {model} is of images")
    return density


def load_images(command: str, model: Path) -> "ImageDensity":
    """That of images.

    Raises:
      ValueError: it is of a table.
    """
    from jflow.data import ImageDensity

    density = load(model)
    if not isinstance(density, ImageDensity):
        raise ValueError(f"{command} needs a model of images; {model} is of a table")
    return density
