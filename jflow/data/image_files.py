"""Image files in folders: which there are, their classes, and their pixels."""

import math
import os
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
# Modes of Pillow without colours.
_GREY = ("1", "L", "LA", "F")


def files_below(root: Path) -> list[Path]:
    """The image files below a folder, by name. Links are followed, hidden names are not.

    Raises:
      FileNotFoundError: there are none.
    """
    found, seen = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        # A link to a folder above would never end.
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else [name for name in folders if not _is_hidden(name)]
        if real not in seen:
            found += [Path(folder, name) for name in names if not _is_hidden(name)]
        seen.add(real)
    files = sorted(file for file in found if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"no images ({', '.join(SUFFIXES)}) in {root}")
    return files


def classes_of(root: Path, files: list[Path]) -> list[str]:
    """The names of the folders directly below, if there are any.

    Raises:
      FileNotFoundError: one of them has no images.
      ValueError: images lie beside them.
    """
    found = sorted(f.name for f in root.iterdir() if f.is_dir() and not _is_hidden(f.name))
    beside = [file.name for file in files if file.parent == root]
    if found and beside:
        raise ValueError(
            f"{root} has images beside the folders of its classes, {found}: {beside[:3]}"
            f"{' and others' if len(beside) > 3 else ''}; move them"
        )
    used = {file.relative_to(root).parts[0] for file in files}
    if empty := [name for name in found if name not in used]:
        raise FileNotFoundError(f"{root}: the classes {empty} have no images; remove the folders")
    return found


def readable(files: list[Path]) -> list[Path]:
    """Those that can be read, with a warning if they are not all.

    Raises:
      ValueError: none can.
    """
    good, bad = [], []
    for file in files:
        try:
            pixels_of(file, grey=False, size=None)
        except ValueError:
            bad.append(file)
        else:
            good.append(file)
    if not good:
        raise ValueError(f"none of {len(files)} images can be read, such as {files[0]}")
    if bad:
        names = ", ".join(map(str, bad[:3]))
        warnings.warn(
            f"{len(bad)} of {len(files)} images cannot be read and are left out: {names}",
            stacklevel=3,
        )
    return good


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """What a .npz file holds.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it cannot be read.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give the path of a .npz file")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged, or no .npz file of arrays: {error}") from error


def need_pillow() -> None:
    """Refuses to go on without Pillow.

    Raises:
      ImportError: it is not installed.
    """
    if find_spec("PIL") is None:
        raise ImportError("to read images, Pillow is needed: `pip install pillow`")


def all_grey(files: list[Path]) -> bool:
    """Whether none has colours; those that cannot be read do not count."""
    need_pillow()
    from PIL import Image

    for file in files:
        try:
            with Image.open(file) as opened:
                if opened.mode not in _GREY and not opened.mode.startswith("I"):
                    return False
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue
    return True


class Images:
    """Random access to the images of files.

    Attributes:
      files: theirs.
      labels: of each file, or None.
      size: (height, width) to resize to, or None.
      grey: one channel, not three.
    """

    def __init__(
        self, files: list[Path], labels: list[int] | None, size: tuple[int, int] | None, grey: bool
    ):
        self.files, self.labels, self.size, self.grey = files, labels, size, grey
        self._shape = None if size is not None else pixels_of(files[0], grey, None).shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = pixels_of(self.files[index], self.grey, self.size)
        if self._shape is not None and pixels.shape != self._shape:
            raise ValueError(
                f"{self.files[index]} has {pixels.shape[:2]} pixels, but {self.files[0]} has "
                f"{self._shape[:2]}; give size=(height, width)"
            )
        return {"y": pixels, "label": 0 if self.labels is None else self.labels[index]}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def pixels_of(file: Path, grey: bool, size: tuple[int, int] | None) -> np.ndarray:
    """uint8 (height, width, 1 or 3).

    Raises:
      ValueError: the file is no image, or one of real numbers.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = _in_8_bits(file, ImageOps.exif_transpose(opened) or opened)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error
    image = image.convert("L" if grey else "RGB")
    if size is not None:
        height, width = size
        image = ImageOps.fit(image, (width, height))
    return np.asarray(image).reshape(image.height, image.width, -1)


def _in_8_bits(file: Path, image: Any) -> Any:
    """The image with 8 bits a channel, and without transparency."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError(f"{file} has real numbers for pixels; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"{file} has pixels of {levels.min()} to {levels.max()}, not 16 bits")
        return Image.fromarray(np.round(levels / 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image.load()
    return image


def tile(images: np.ndarray, columns: int | None = None, gap: int = 0) -> np.ndarray:
    """Images (N, height, width, channels) side by side in rows, as one.

    Args:
      images: of any numbers.
      columns: how many in a row; None for about as many as rows.
      gap: the number of the line of a pixel between them.

    Raises:
      ValueError: there are none, or they have another number of axes.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must be (N, height, width, channels); got {images.shape}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    empty = np.full((rows * columns - len(images), *images.shape[1:]), gap, images.dtype)
    whole = np.concatenate([images, empty])
    padded = np.pad(whole, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=gap)
    height, width, channels = padded.shape[1:]
    grid = padded.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)[:-1, :-1]
