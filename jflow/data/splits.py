"""Labelled examples in three parts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_PARTS = ("train on", "choose by", "test on")


@dataclass(frozen=True)
class Labelled:
    """Examples with labels.

    Attributes:
      y: (N, *event); for images (N, height, width, channels), integer grey levels.
      labels: (N,), integers.
    """

    y: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray | slice) -> "Labelled":
        """The examples at those places."""
        return Labelled(self.y[index], self.labels[index])


@dataclass(frozen=True)
class Splits:
    """A data set in three disjoint parts.

    Attributes:
      train: to fit on: `Labelled`, or a `grain.MapDataset` of {"y": ..., "label": ...}.
      validation: to choose by.
      test: to report on.
      values: how many grey levels the images have.
    """

    train: Any
    validation: Labelled
    test: Labelled
    values: int

    @property
    def shape(self) -> Any:
        """Of one example: (height, width, channels)."""
        return self.validation.y.shape[1:]

    def __str__(self) -> str:
        counts = (len(part) for part in (self.train, self.validation, self.test))
        told = ", ".join(f"{n:,} to {what}" for n, what in zip(counts, _PARTS, strict=True))
        return f"examples of {'x'.join(map(str, self.shape))}, {self.values} levels: {told}"

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Splits":
        """The same with function(y); it is given one example, or several along a first axis."""

        def mapped(part: Any) -> Any:
            if isinstance(part, Labelled):
                return Labelled(function(part.y), part.labels)
            return part.map(_OnY(function))

        return Splits(*map(mapped, (self.train, self.validation, self.test)), values=self.values)


def hold_out(train: Labelled, count: int, seed: int) -> tuple[Labelled, Labelled]:
    """`train` without `count` random examples, and those examples.

    Raises:
      ValueError: `count` leaves one of the two empty.
    """
    rest, held = _parts(len(train), count, seed)
    return train.take(rest), train.take(held)


def hold_out_stream(train: Any, count: int, seed: int) -> tuple[Any, Any]:
    """The same of a `grain.MapDataset`: the same examples are held out.

    Raises:
      ValueError: `count` leaves one of the two empty.
    """
    import grain

    parts = _parts(len(train), count, seed)
    return tuple(grain.MapDataset.source(_Some(train, part)) for part in parts)  # type: ignore[return-value]


def _parts(total: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < count < total:
        raise ValueError(f"validation must be 1 to {total - 1} examples; got {count}")
    order = np.random.default_rng(seed).permutation(total)
    return order[count:], order[:count]


@dataclass(frozen=True)
class _OnY:
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        return {**example, "y": self.function(example["y"])}


@dataclass(frozen=True, eq=False)
class _Some:
    """Random access to some examples of a data set."""

    source: Any
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        return self.source[int(self.index[i])]


def split_rows(
    count: int, validation: float, test: float | ArrayLike, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows to train on, to validate on and to test on."""
    mask, held = np.asarray(test), _share("validation", validation)
    if mask.ndim == 0:
        order, last = rng.permutation(count), max(1, round(_share("test", test) * count))
        rest, tested = order[: count - last], order[count - last :]
        held = max(1, round(held * count))
    elif mask.dtype == bool and mask.shape == (count,) and mask.any():
        rest, tested = rng.permutation(np.flatnonzero(~mask)), np.flatnonzero(mask)
        held = max(1, round(held * len(rest)))
    else:
        raise ValueError(
            f"test must be a share, or a mask of {count} booleans, some of them true; got "
            f"{mask.dtype} {mask.shape}, with {np.count_nonzero(mask)} true"
        )
    if len(rest) - held < 2:
        raise ValueError(
            f"validation and test must leave 2 or more of {count} rows to train on; they take "
            f"{held} and {len(tested)}"
        )
    return rest[:-held], rest[-held:], tested


def _share(name: str, share: ArrayLike) -> float:
    number = np.asarray(share)
    if number.ndim or number.dtype.kind not in "iuf" or not 0 < number < 1:
        raise ValueError(f"{name} must be a share in (0, 1); got {share}")
    return float(number)
