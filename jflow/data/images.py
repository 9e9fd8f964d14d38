"""Images with grey levels: from a package, from a file, or by TensorFlow Datasets."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jflow.data.splits import Labelled, Splits, hold_out


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
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give the path of a .npz file")
    with np.load(file, allow_pickle=False) as arrays:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
        if missing:
            raise ValueError(f"{file} lacks {sorted(missing)}; it has {sorted(arrays.files)}")
        train = _labelled(file, arrays["x_train"], arrays["y_train"])
        test = _labelled(file, arrays["x_test"], arrays["y_test"])
    return Splits(*hold_out(train, validation, seed), test, values=256)


def tfds(
    name: str,
    *,
    validation: int = 5000,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """The images of a TensorFlow Datasets data set, such as "mnist" or "cifar10".

    Reads the splits "train" and "test" whole into memory, without TensorFlow. Preparing a data
    set for the first time downloads it, and for image data sets needs TensorFlow installed.

    Args:
      name: of the data set.
      validation: how many training images to hold out.
      seed: for their choice.
      data_dir: where data sets are kept; None for the TensorFlow Datasets default.

    Raises:
      RuntimeError: the data set is not there and could not be prepared.
      ValueError: it has no images and labels in 8-bit integers.
    """
    import tensorflow_datasets

    try:
        builder: Any = tensorflow_datasets.builder(
            name, data_dir=data_dir, file_format=tensorflow_datasets.core.FileFormat.ARRAY_RECORD
        )
        builder.download_and_prepare()
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise RuntimeError(
            f"cannot prepare {name!r} by TensorFlow Datasets ({reason}). Prepare it once on a "
            "machine with network access and TensorFlow: `pip install tensorflow && tfds build "
            f"{name} --file_format=array_record`, and copy its folder to data_dir; or give your "
            "own file to jflow.data.npz"
        ) from error
    train, test = (_read_source(name, builder.as_data_source(s)) for s in ("train", "test"))
    return Splits(*hold_out(train, validation, seed), test, values=256)


def pad(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (N, h, w, C) in the middle of (N, height, width, C) of zeros.

    Report bits per dimension of padded images with `dimensions=h * w * C`.

    Raises:
      ValueError: the images are larger than that.
    """
    down, right = height - images.shape[1], width - images.shape[2]
    if down < 0 or right < 0:
        raise ValueError(f"pad: images of {images.shape[1:3]} do not fit ({height}, {width})")
    rows, columns = (down // 2, down - down // 2), (right // 2, right - right // 2)
    return np.pad(images, ((0, 0), rows, columns, (0, 0)))


def _read_source(name: str, source: Any) -> Labelled:
    examples = [source[i] for i in range(len(source))]
    if not examples or not {"image", "label"} <= examples[0].keys():
        raise ValueError(f"{name!r} has no features image and label")
    images = np.stack([example["image"] for example in examples])
    return _labelled(name, images, np.asarray([example["label"] for example in examples]))


def _labelled(source: Any, images: np.ndarray, labels: np.ndarray) -> Labelled:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{source}: images must be uint8 (N, height, width[, channels]); got "
            f"{images.dtype} {images.shape}"
        )
    if len(images) != len(labels):
        raise ValueError(f"{source}: {len(images)} images, but {len(labels)} labels")
    images = images[..., None] if images.ndim == 3 else images
    return Labelled(images, labels.astype(np.int32))
