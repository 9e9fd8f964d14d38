"""Examples that are read one by one, where they are: Grain data sets for `jflow.fit`."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jflow.data.image_files import Images, classes_of, files_below, need_pillow, readable
from jflow.data.splits import Labelled

if TYPE_CHECKING:
    import grain

# Grain's own settings for each process that reads.
_THREADS, _READ_AHEAD = 8, 64
# So many corrupt examples one after the other are no accident.
_IN_A_ROW = 100


def arrays(
    y: np.ndarray, context: np.ndarray | None = None, labels: np.ndarray | None = None
) -> "grain.MapDataset":
    """Examples of arrays, such as `numpy.load(file, mmap_mode="r")` gives without reading them.

    Args:
      y: (N, *event).
      context: (N, C), for conditional flows.
      labels: (N,).

    Raises:
      ValueError: they are of different lengths, or empty.
    """
    import grain

    parts = {"y": y, "context": context, "label": labels}
    given = {name: array for name, array in parts.items() if array is not None}
    lengths = {name: len(array) for name, array in given.items()}
    if len(set(lengths.values())) > 1 or not len(y):
        raise ValueError(f"arrays must have one length, 1 or more; got {lengths}")
    return grain.MapDataset.source(_Arrays(given))


def skip_corrupt(data: Any) -> "grain.MapDataset":
    """A stream in which the example after it takes the place of one that cannot be read.

    A warning names each such example when it is first met, why, and how many there were so far (in
    this process: with `fit(workers=)`, in each of those). So the length and the order stay.

    Args:
      data: a `grain.MapDataset`, or another data set with a length and an index.

    Raises:
      TypeError: it has no length and index.
      RuntimeError: (on reading) 100 examples in a row cannot be read.
    """
    import grain

    found = as_stream("data", data)
    if found is None:
        raise TypeError(f"data must be a stream; got {type(data).__name__}")
    return grain.MapDataset.source(_Readable(found))  # type: ignore[arg-type]


def as_stream(name: str, data: Any) -> "grain.MapDataset | None":
    """A `grain.MapDataset` of any data set with a length and an index; None of arrays and tables.

    Raises:
      TypeError: it can only be read in order, and training shuffles.
    """
    if hasattr(data, "to_iter_dataset"):
        return data
    known = (list, tuple, dict, set, str, bytes)
    if any(hasattr(data, part) for part in ("shape", "columns")) or isinstance(data, known):
        return None
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        import grain

        return grain.MapDataset.source(data)
    if hasattr(data, "__iter__"):
        raise TypeError(
            f"{name} is a {type(data).__module__}.{type(data).__name__}, which can only be read in "
            "order, and training shuffles. Give a data set with a length and an index: the "
            "grain.MapDataset that an IterDataset is made of, the data set inside a loader, "
            "jflow.data.tfds(name, split) in place of tf.data; or, if all fits in memory, "
            "np.stack(list(data)), of tf.data np.stack(list(data.as_numpy_iterator()))"
        )
    return None


def folder(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    grey: bool = False,
    classes: Sequence[str] | None = None,
    skip_damaged: bool = False,
) -> "grain.MapDataset":
    """The images below a folder, in the order of their names, as uint8 (height, width, channels).

    Where folders are directly below, they are the classes: `label` counts them in the order of
    their names. Links are followed; what begins with a dot is passed over. Images are turned as
    their EXIF orientation says, transparent ones are laid on white, and 16-bit greys become 8-bit.

    Args:
      path: of the folder.
      size: (height, width) to resize to, after the middle is cut to that aspect; None where all
        images have one size.
      grey: one channel, not three.
      classes: their names in the order of `label`, such as those of the training images, where some
        may be missing here; None for the folders that there are.
      skip_damaged: whether files that cannot be read are left out, with a warning that counts them,
        after all have been read once; otherwise reading one is an error that names it.

    Raises:
      FileNotFoundError: no such folder, no images in it, or in one of its classes.
      ImportError: Pillow is not installed.
      ValueError: images beside the folders of classes, or a class that is not in `classes`.
    """
    import grain

    need_pillow()
    root = Path(path).expanduser()
    files = files_below(root)
    found = classes_of(root, files)
    order = found if classes is None else list(classes)
    if unknown := sorted(set(found) - set(order)):
        raise ValueError(f"{root} has the classes {unknown}, which are not among {order}")
    files = readable(files) if skip_damaged else files
    labels = [order.index(file.relative_to(root).parts[0]) for file in files] if found else None
    return grain.MapDataset.source(Images(files, labels, size, grey))


def tfds(
    name: str, split: str = "train", *, data_dir: str | os.PathLike[str] | None = None
) -> "grain.MapDataset":
    """A split of a TensorFlow Datasets data set, such as "cifar10", read without TensorFlow.

    Examples are `{"y": ..., "label": ...}`: the feature "image" if there is one, otherwise all
    numeric features but "label", in their order, as one vector. Preparing a data set for the first
    time downloads it, and for image data sets needs TensorFlow installed.

    Args:
      name: of the data set, with its config: "downsampled_imagenet/32x32".
      split: "train", "test", "train[:90%]" and so on.
      data_dir: where data sets are kept; None for the TensorFlow Datasets default.

    Raises:
      RuntimeError: the data set is not there and could not be prepared.
      ValueError: it has no such split, or features that are neither images nor numbers.
    """
    import grain
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
            f"{name} --file_format=array_record`, and copy its folder to data_dir; or read your "
            "own files: jflow.data.npz, jflow.data.folder"
        ) from error
    if split.partition("[")[0] not in builder.info.splits:
        raise ValueError(f"{name!r} has the splits {sorted(builder.info.splits)}; got {split!r}")
    source = grain.MapDataset.source(builder.as_data_source(split))
    features = list(builder.info.features)
    if "image" in features:
        return source.map(_image_example)
    return source.map(_Vector(tuple(f for f in features if f != "label")))


def load(source: Any) -> Labelled:
    """All examples of a data set, in memory. Without labels, all are 0."""
    examples = [source[i] for i in range(len(source))]
    labels = [int(example.get("label", 0)) for example in examples]
    return Labelled(np.stack([example["y"] for example in examples]), np.asarray(labels, np.int32))


class _Arrays:
    """Random access to the rows of several arrays at once."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays["y"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: np.asarray(array[index]) for name, array in self._arrays.items()}


def _image_example(example: dict[str, Any]) -> dict[str, Any]:
    return {"y": example["image"], "label": example.get("label", 0)}


class _Vector:
    """Numeric features as one vector."""

    def __init__(self, features: tuple[str, ...]):
        self._features = features

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        parts = [np.asarray(example[name]) for name in self._features]
        if any(part.dtype.kind not in "biuf" for part in parts):
            kinds = {n: str(p.dtype) for n, p in zip(self._features, parts, strict=True)}
            raise ValueError(f"features must be numbers, or an image; got {kinds}")
        flat = np.concatenate([part.ravel().astype(np.float32) for part in parts])
        return {"y": flat, "label": example.get("label", 0)}


@dataclass(frozen=True, eq=False)
class _Readable:
    """A data set whose corrupt examples are others."""

    source: Any
    skipped: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Any:
        for place in range(i, i + _IN_A_ROW):
            try:
                return self.source[place % len(self)]
            except Exception as error:  # whatever a reader raises
                where = place % len(self)
                if where not in self.skipped:
                    self.skipped.add(where)
                    warnings.warn(
                        f"example {where} cannot be read ({type(error).__name__}: {error}); the "
                        f"next takes its place; {len(self.skipped)} so far",
                        stacklevel=2,
                    )
        raise RuntimeError(f"{_IN_A_ROW} examples from number {i} on cannot be read")


def read_options() -> "grain.ReadOptions":
    """Grain's own settings for each process that reads."""
    import grain

    return grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_READ_AHEAD)


def parse_flags() -> None:
    """Grain's processes read flags of absl, which nobody parses outside of absl's own programs."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
