"""The command that edits images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jflow.cli.models import Model, load_images
from jflow.cli.pictures import check_out, read_images, write_images


@dataclass(frozen=True)
class Edit:
    """Writes images between two, or images with more of what some have and others have not.

    jflow edit faces first.png last.png --out between.png
    jflow edit faces photos/ --towards smiling/ --away-from serious/ --out edited/
    """

    model: Model
    """The directory of a model of images."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Two images; or, with --towards, images, folders and .npz files."""
    out: Path
    """A .png file for one picture of all, a .npz file, or a folder of .png files."""
    count: int = 8
    """How many images from the first to the last, with both."""
    towards: str | None = None
    """Images that have something: a folder, an image or a .npz file."""
    away_from: str | None = None
    """Images that have not."""
    strength: float = 1.0
    """How much of it, where 1 is the difference of both; negative for less of it."""
    resize: bool = False
    """Whether images of other sizes are resized, as those of `fit --size` were."""

    def __call__(self) -> None:
        density = load_images("edit", self.model)

        def read(source: str) -> np.ndarray:
            parts = read_images(source, density.shape, density.levels, self.resize)
            return np.concatenate([y for _, y in parts])

        check_out(self.out)
        if not self.images:
            raise ValueError("edit needs images: two of them, or some with --towards")
        if (self.towards is None) != (self.away_from is None):
            raise ValueError("give --towards and --away-from together")
        images = np.concatenate([read(source) for source in self.images])
        if self.towards is not None and self.away_from is not None:
            attribute = density.attribute(read(self.towards), read(self.away_from))
            found = density.edit(images, attribute, self.strength)
        elif len(images) == 2:
            found = density.interpolate(images[0], images[1], self.count)
        else:
            raise ValueError(
                f"edit needs two images to go from one to the other, and got {len(images)}; or "
                "--towards and --away-from"
            )
        write_images(self.out, found, density.levels)
