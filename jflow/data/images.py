"""Images with grey levels: from a package, from a file, or by TensorFlow Datasets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jflow.data.image_files import all_grey, arrays_of, classes_of, files_below
from jflow.data.sources import folder, load, tfds
from jflow.data.splits import Labelled, Splits, hold_out, hold_out_stream


def digits() -> Splits:
    """The 1,797 handwritten digits of scikit-learn: 8x8 pixels, 17 grey levels 0..16.

    Nothing is downloaded. The split is fixed: the permutation of NumPy's default generator with
    seed 0, of which 1,297 train, 200 validation and 300 test, in that order.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    images = bunch.images.astype(np.uint8)[order, :, :, None]
    every = Labelled(images, bunch.target.astype(np.int32)[order])
    train, validation, test = slice(1297), slice(1297, 1497), slice(1497, None)
    return Splits(every.take(train), every.take(validation), every.take(test), values=17)


def npz(
    path: str | os.PathLike[str], *, validation: int | float | None = None, seed: int = 0
) -> Splits:
    """Images of a .npz file with x_train, x_test, y_train and y_test, or some of these.

    x are 8-bit images (N, height, width[, channels]), y labels (N,). This is the layout of the
    usual MNIST file. Without labels, they are 0; without x_test, some of x_train are held out; and
    instead of x_train there may be one array of images by another name.

    Args:
      path: of the file.
      validation: how many training images to hold out, or a share; see `images`.
      seed: for their choice.

    Raises:
      FileNotFoundError: no such file.
      ValueError: there are no images, or they are not 8-bit integers.
    """
    file = Path(path).expanduser()
    found = arrays_of(file)
    # Alone, x_test is no part of a whole.
    test = found.pop("x_test") if "x_train" in found and "x_test" in found else None
    whole = images_among(file, found)
    of_test = whole is found.get("x_test")
    train = _labelled(file, whole, found.get("y_test" if of_test else "y_train"))
    count = _held(file, validation, len(train), alone=test is None)
    if test is not None:
        test = _labelled(file, test, found.get("y_test"))
    else:
        train, test = hold_out(train, count, seed)
    return Splits(*hold_out(train, count, seed), test, values=256)


def images_among(source: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array "x_train", or the only one of 8-bit images.

    Raises:
      ValueError: there is none, or there are several.
    """
    fit = [name for name, a in arrays.items() if a.dtype == np.uint8 and a.ndim in (3, 4)]
    name = "x_train" if "x_train" in arrays else fit[0] if len(fit) == 1 else None
    if name is None:
        told = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
        raise ValueError(
            f"{source} must have x_train, or one array of images, uint8 (N, height, width[, "
            f"channels]); it has {told}"
        )
    return arrays[name]


def images(
    name: str | os.PathLike[str],
    *,
    validation: int | float | None = None,
    seed: int = 0,
    bits: int = 8,
    stream: bool = False,
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """Images in three parts, by name or by path.

    Args:
      name: "digits"; the path of a .npz file; of a folder with the folders train and test, of
        images, or of images alone; or a data set of TensorFlow Datasets, such as "cifar10".
      validation: how many training images to hold out, or a share of them, below 1; None for 5,000,
        or a tenth where there are fewer than 50,000. Where there are no test images, such as in a
        folder of images alone, so many are those, too.
      seed: for their choice.
      bits: grey levels of 8-bit images are cut to so many bits, 1 to 8: y // 2**(8 - bits).
      stream: whether training images are read as they are needed. Otherwise they are in memory.
      size: (height, width) that images of a folder are resized to; see `folder`.
      grey: whether images of a folder have one channel, not three; None for one if all files do.
      data_dir: where TensorFlow Datasets keeps its data; None for its default.

    Raises:
      FileNotFoundError, RuntimeError: there is no such file, folder or data set.
      ValueError: what is there are not images, `bits` is out of range, or a folder "digits" leaves
        open what is meant.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1 to 8; got {bits}")
    path = Path(name).expanduser()
    if name == "digits" and path.exists():
        raise ValueError(
            "images: 'digits' are those of scikit-learn, but there is a folder of that name; give "
            "'./digits' for the folder, or jflow.data.digits() for scikit-learn's"
        )
    if name == "digits":
        if (bits, stream, size, grey, validation, seed) != (8, False, None, None, None, 0):
            raise ValueError("digits have 17 levels and a split, in memory: leave out all options")
        return digits()
    _check_options(path, (size, grey))
    if path.suffix.lower() == ".npz":
        if stream:
            raise ValueError(f"{path} is read whole, not streamed: its file is compressed")
        splits = npz(path, validation=validation, seed=seed)
    else:
        if path.is_dir():
            train, test = _of_folder(path, size, grey, validation, seed)
        else:
            train, test = tfds(str(name), "train", data_dir=data_dir), _test(str(name), data_dir)
        count = len(test) if _alone(path) else _held(path, validation, len(train))
        parts = hold_out_stream(train, count, seed)
        train, held = parts[0] if stream else load(parts[0]), load(parts[1])
        splits = Splits(train, held, load(test), values=256)
        _check_images(str(name), splits.validation.y, splits.test.y)
    return splits if bits == 8 else replace(splits.map(_Coarser(bits)), values=2**bits)


def pad(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (..., h, w, C) in the middle of (..., height, width, C) of zeros.

    Report bits per dimension of padded images with `dimensions=h * w * C`.

    Raises:
      ValueError: the images are larger than that.
    """
    down, right = height - images.shape[-3], width - images.shape[-2]
    if down < 0 or right < 0:
        raise ValueError(f"pad: images of {images.shape[-3:-1]} do not fit ({height}, {width})")
    rows, columns = (down // 2, down - down // 2), (right // 2, right - right // 2)
    return np.pad(images, ((0, 0),) * (images.ndim - 3) + (rows, columns, (0, 0)))


@dataclass(frozen=True)
class _Coarser:
    bits: int

    def __call__(self, y: np.ndarray) -> np.ndarray:
        return y >> (8 - self.bits)


def _check_options(path: Path, of_folders: tuple[Any, Any]) -> None:
    if not path.is_dir() and of_folders != (None, None):
        raise ValueError(f"size and grey are of folders of images; leave them out for {path}")


def _held(source: Any, asked: int | float | None, total: int, alone: bool = False) -> int:
    """How many images are held out; twice as many, if the images are alone."""
    if total < (least := 3 if alone else 2):
        raise ValueError(f"{source} must have {least} images to train on or more; it has {total}")
    if asked is None:
        return min(5_000, max(1, total // 10))
    if isinstance(asked, bool) or not isinstance(asked, int | np.integer | float):
        raise TypeError(f"validation must be a number; got {asked!r:.60}")
    if isinstance(asked, float) and not 0 < asked < 1:
        raise ValueError(f"validation must be a whole number or a share below 1; got {asked}")
    count = max(1, round(asked * total)) if isinstance(asked, float) else int(asked)
    if alone and 2 * count >= total:
        raise ValueError(
            f"validation must leave images to train on: of {total}, {count} would be to choose by "
            f"and as many to test on; got {asked}"
        )
    return count


def _alone(path: Path) -> bool:
    """Whether it is a folder of images that are not in parts."""
    return path.is_dir() and not any((path / part).is_dir() for part in ("train", "test"))


def _of_folder(
    path: Path, size: Any, grey: bool | None, validation: int | float | None, seed: int
) -> tuple[Any, Any]:
    """Training and test images. Classes are numbered as in training; a test may lack some."""
    parts = (path,) if _alone(path) else (path / "train", path / "test")
    for part in parts:
        if not part.is_dir():
            raise FileNotFoundError(f"{path} has no folder {part.name!r} beside the other")
    if grey is None:
        grey = all(all_grey(files_below(part)) for part in parts)
    if _alone(path):
        whole = folder(path, size=size, grey=grey)
        return hold_out_stream(whole, _held(path, validation, len(whole), alone=True), seed)
    train = files_below(path / "train")
    classes = classes_of(path / "train", train) or None
    return (
        folder(path / "train", size=size, grey=grey),
        folder(path / "test", size=size, grey=grey, classes=classes),
    )


def _test(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The split "test", or "validation" where that has no labels to hide and is reported on."""
    try:
        return tfds(name, "test", data_dir=data_dir)
    except ValueError:
        return tfds(name, "validation", data_dir=data_dir)


def _labelled(source: Any, images: np.ndarray, labels: np.ndarray | None) -> Labelled:
    _check_images(source, images)
    labels = np.zeros(len(images), np.int32) if labels is None else labels
    if len(images) != len(labels):
        raise ValueError(f"{source}: {len(images)} images, but {len(labels)} labels")
    images = images[..., None] if images.ndim == 3 else images
    return Labelled(images, labels.astype(np.int32))


def _check_images(source: Any, *parts: np.ndarray) -> None:
    for images in parts:
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise ValueError(
                f"{source}: images must be uint8 (N, height, width[, channels]); got "
                f"{images.dtype} {images.shape}"
            )
        if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] > 4:
            raise ValueError(
                f"{source}: images must have their channels last, (N, height, width, channels); "
                f"got {images.shape}: give images.transpose(0, 2, 3, 1)"
            )
