"""Images with grey levels: from a package, from a file, or by TensorFlow Datasets."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.data.image_files import classes_of, files_below
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


def npz(path: str | os.PathLike[str], *, validation: int = 5000, seed: int = 0) -> Splits:
    """Images of a .npz file with x_train, y_train, x_test and y_test.

    x are 8-bit images (N, height, width[, channels]), y labels (N,). This is the layout of the
    usual MNIST file.

    Args:
      path: of the file.
      validation: how many training images to hold out.
      seed: for their choice.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an array is missing, or images are not 8-bit integers.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give the path of a .npz file")
    with np.load(file, allow_pickle=False) as arrays:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
        if missing:
            raise ValueError(f"{file} lacks {sorted(missing)}; it has {sorted(arrays.files)}")
        train = _labelled(file, arrays["x_train"], arrays["y_train"])
        test = _labelled(file, arrays["x_test"], arrays["y_test"])
    return Splits(*hold_out(train, validation, seed), test, values=256)


def images(
    name: str | os.PathLike[str],
    *,
    validation: int = 5000,
    seed: int = 0,
    bits: int = 8,
    stream: bool = False,
    size: tuple[int, int] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """Images in three parts, by name or by path.

    Args:
      name: "digits"; the path of a .npz file; of a folder with the folders train and test, of
        images, or of images alone; or a data set of TensorFlow Datasets, such as "cifar10".
      validation: how many training images to hold out; of a folder of images alone, so many are the
        test images, too.
      seed: for their choice.
      bits: grey levels of 8-bit images are cut to so many bits, 1 to 8: y // 2**(8 - bits).
      stream: whether training images are read as they are needed. Otherwise they are in memory.
      size: (height, width) that images of a folder are resized to; see `folder`.
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
        if bits != 8 or stream:
            raise ValueError("digits have 17 levels, in memory: leave bits and stream as they are")
        return digits()
    if path.suffix == ".npz":
        if stream:
            raise ValueError(f"{path} is read whole, not streamed: its file is compressed")
        splits = npz(path, validation=validation, seed=seed)
    else:
        if path.is_dir():
            train, test = _of_folder(path, size, validation, seed)
        else:
            train, test = tfds(str(name), "train", data_dir=data_dir), _test(str(name), data_dir)
        parts = hold_out_stream(train, validation, seed)
        train, held = parts[0] if stream else load(parts[0]), load(parts[1])
        splits = Splits(train, held, load(test), values=256)
        _check_images(str(name), splits.validation.y)
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


def flip_left_right(key: Array, y: Array) -> Array:
    """Images (N, height, width, channels), each mirrored with probability 1/2: `fit(augment=)`."""
    flipped = jax.random.bernoulli(key, shape=(len(y), 1, 1, 1))
    return jnp.where(flipped, y[:, :, ::-1], y)


@dataclass(frozen=True)
class _Coarser:
    bits: int

    def __call__(self, y: np.ndarray) -> np.ndarray:
        return y >> (8 - self.bits)


def _of_folder(path: Path, size: Any, validation: int, seed: int) -> tuple[Any, Any]:
    """Training and test images. Classes are numbered as in training; a test may lack some."""
    if not (path / "train").is_dir() and not (path / "test").is_dir():
        return hold_out_stream(folder(path, size=size), validation, seed)
    for part in ("train", "test"):
        if not (path / part).is_dir():
            raise FileNotFoundError(f"{path} has no folder {part!r} beside the other")
    train = files_below(path / "train")
    classes = classes_of(path / "train", train) or None
    return folder(path / "train", size=size), folder(path / "test", size=size, classes=classes)


def _test(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The split "test", or "validation" where that has no labels to hide and is reported on."""
    try:
        return tfds(name, "test", data_dir=data_dir)
    except ValueError:
        return tfds(name, "validation", data_dir=data_dir)


def _labelled(source: Any, images: np.ndarray, labels: np.ndarray) -> Labelled:
    _check_images(source, images)
    if len(images) != len(labels):
        raise ValueError(f"{source}: {len(images)} images, but {len(labels)} labels")
    images = images[..., None] if images.ndim == 3 else images
    return Labelled(images, labels.astype(np.int32))


def _check_images(source: Any, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{source}: images must be uint8 (N, height, width[, channels]); got "
            f"{images.dtype} {images.shape}"
        )
