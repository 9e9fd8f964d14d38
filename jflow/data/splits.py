"""Labelled examples in three parts."""

from dataclasses import dataclass

import numpy as np


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
      train: to fit on.
      validation: to choose by.
      test: to report on.
      values: how many grey levels the images have.
    """

    train: Labelled
    validation: Labelled
    test: Labelled
    values: int


def hold_out(train: Labelled, count: int, seed: int) -> tuple[Labelled, Labelled]:
    """`train` without `count` random examples, and those examples.

    Raises:
      ValueError: `count` leaves one of the two empty.
    """
    if not 0 < count < len(train):
        raise ValueError(f"validation must be 1 to {len(train) - 1} examples; got {count}")
    order = np.random.default_rng(seed).permutation(len(train))
    return train.take(order[count:]), train.take(order[:count])
