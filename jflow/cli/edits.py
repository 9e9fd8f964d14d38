"""The commands that edit and restore images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jflow.cli.models import Model, Source, load_images
from jflow.cli.pictures import check_out, read_all, write_images


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
    linear: bool = False
    """Whether the way from the first to the last is a straight line of latents, not a circle."""
    strength: float = 1.0
    """How much of it, where 1 is the difference of both; negative for less of it."""
    resize: bool = False
    """Whether images of other sizes are resized, as those of `fit --size` were."""

    def __call__(self) -> None:
        density = load_images("edit", self.model)

        def read(source: str) -> np.ndarray:
            return read_all(source, density.shape, density.levels, self.resize)

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
            kind = "linear" if self.linear else "slerp"
            found = density.interpolate(images[0], images[1], self.count, kind=kind)
        else:
            raise ValueError(
                f"edit needs two images to go from one to the other, and got {len(images)}; or "
                "--towards and --away-from"
            )
        write_images(self.out, found, density.levels)


@dataclass(frozen=True)
class Restore:
    """Writes images whose missing pixels are filled in, noise is taken away, or which are enlarged.

    jflow restore faces torn/ --missing hole.png --out whole/
    jflow restore faces noisy/ --noise 25 --out clean/
    jflow restore faces small/ --enlarge 2 --out large/
    """

    model: Model
    """The directory of a model of images."""
    images: Source
    """A folder, an image or a .npz file."""
    out: Path
    """A .png file for one picture of all, a .npz file, or a folder of .png files."""
    missing: Path | None = None
    """An image, white where pixels are missing in all of them."""
    noise: float | None = None
    """The standard deviation of noise that was added, in levels."""
    enlarge: int | None = None
    """By how much height and width grow."""
    draw: bool = False
    """Whether to write one draw of each, which looks like an image, in place of the mean."""
    seed: int = 0
    """Of draws."""
    resize: bool = False
    """Whether images of other sizes are resized, as those of `fit --size` were."""

    def __call__(self) -> None:
        if sum(given is not None for given in (self.missing, self.noise, self.enlarge)) != 1:
            raise ValueError("give one of --missing, --noise and --enlarge")
        density = load_images("restore", self.model)
        check_out(self.out)
        height, width, channels = density.shape
        factor = 1 if self.enlarge is None else self.enlarge
        if factor < 1 or height % factor or width % factor:
            raise ValueError(f"--enlarge must divide {height} and {width}; got {self.enlarge}")
        shape = height // factor, width // factor, channels
        y = read_all(self.images, shape, density.levels, self.resize)
        if self.missing is not None:
            hole = read_all(str(self.missing), (height, width, 1), 256, self.resize)
            if len(hole) != 1:
                raise ValueError(f"--missing must be one image; {self.missing} holds {len(hole)}")
            found = density.inpaint(y, hole[0] > 127, key=self.seed)
        elif self.noise is not None:
            found = density.denoise(y, self.noise, key=self.seed)
        else:
            found = density.enlarge(y, factor, key=self.seed)
        images = found.draws[:, 0] if self.draw else np.rint(found.mean).astype(found.draws.dtype)
        write_images(self.out, images, density.levels)
