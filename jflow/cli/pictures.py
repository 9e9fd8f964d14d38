"""Images in parts, from files and to them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_PART = 256


def holds_images(source: str) -> bool:
    """Whether a source is images: a folder, or an archive of arrays with so many axes."""
    path = Path(source).expanduser()
    if path.suffix.lower() != ".npz" or not path.is_file():
        return path.is_dir()
    from jflow.data.image_files import arrays_of

    return any(array.ndim in (3, 4) for array in arrays_of(path).values())


def read_images(
    source: str, shape: tuple[int, int, int], levels: int, resize: bool = False
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and images, uint8 (n, *shape), some at a time.

    Args:
      source: a folder, an image file, or a .npz file: of that x_test, if there is one, or the only
        array of images.
      shape: what they must have; with one channel, colours are read as greys.
      levels: of the model; those of files, which are 256, are scaled to so many.
      resize: whether files of other sizes are resized.

    Raises:
      FileNotFoundError, ValueError: no such file, it cannot be read, or has another size.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".npz":
        from jflow.data.image_files import arrays_of
        from jflow.data.images import images_among

        found = arrays_of(path)
        whole = images_among(source, {"x_train": found["x_test"]} if "x_test" in found else found)
        whole = whole[..., None] if whole.ndim == 3 else whole
        for first in range(0, len(whole), _PART):
            part = whole[first : first + _PART]
            yield [str(first + i) for i in range(len(part))], part
        return
    from jflow.data.image_files import SUFFIXES, files_below, pixels_of

    if not path.exists():
        raise FileNotFoundError(f"no file or folder {source}")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{source} must be a folder, a .npz file or an image {SUFFIXES}")
    files = files_below(path) if path.is_dir() else [path]
    for first in range(0, len(files), _PART):
        some = files[first : first + _PART]
        pixels = [pixels_of(file, shape[-1] == 1, shape[:2] if resize else None) for file in some]
        for file, each in zip(some, pixels, strict=True):
            if each.shape != shape:
                raise ValueError(
                    f"{file} has {each.shape[:2]} pixels, but the model is of {shape[:2]}; give "
                    "--resize to have images cut and resized, if those it was fitted to were"
                )
        names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in some]
        # Cut as `data.images(bits=)` does; for other levels, back to what `write_images` wrote.
        scaled = np.stack(pixels).astype(np.int64) * levels // 256
        yield names, scaled.astype(np.uint8 if levels <= 256 else np.int32)


def read_all(
    source: str, shape: tuple[int, int, int], levels: int, resize: bool = False
) -> np.ndarray:
    """All images of a source, (n, *shape); see `read_images`."""
    return np.concatenate([y for _, y in read_images(source, shape, levels, resize)])


def check_out(out: Path) -> None:
    """Refuses where images cannot be written, before they are made.

    Raises:
      FileExistsError, FileNotFoundError: a folder that is not empty, or in none.
      ValueError: another ending than .png, .npz or none.
    """
    out = out.expanduser()
    if out.suffix.lower() not in (".npz", ".png", ""):
        raise ValueError(f"--out must be a .png file, a .npz file or a folder; got {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out: there is no folder {out.parent}")
    if out.suffix and out.is_dir():
        raise FileExistsError(f"--out: {out} is a folder; give another name")
    if not out.suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"--out: {out} is not empty; give another folder")


def write_images(out: Path, images: np.ndarray, levels: int) -> None:
    """Writes a .npz file, one .png picture of all, or a folder of .png files, by the name."""
    out = out.expanduser()
    if out.suffix.lower() == ".npz":
        np.savez_compressed(out, images=images)
        return
    from PIL import Image

    from jflow.data.image_files import tile

    def picture(pixels: np.ndarray) -> Image.Image:
        grey = np.round(pixels * (255 / (levels - 1))).astype(np.uint8)
        return Image.fromarray(grey[..., 0] if grey.shape[-1] == 1 else grey)

    if out.suffix.lower() == ".png":
        picture(tile(images)).save(out)
        return
    out.mkdir(parents=True, exist_ok=True)
    for place, pixels in enumerate(images):
        picture(pixels).save(out / f"{place:05d}.png")
