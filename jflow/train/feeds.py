"""Where training steps get their batches: arrays on the device, or a stream that Grain reads."""

from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np

from jflow.train.arrays import Examples, batches
from jflow.train.sharding import Placement

# Of the batches that one call of the loop is given, where they are not on the device already.
_CHUNK_BYTES = 64 * 2**20


class Chunk(NamedTuple):
    """The batches of some steps.

    Attributes:
      examples: y and context, on the device.
      index: (rows, ...); examples at index[i] are batch i.
    """

    examples: tuple[Any, Any]
    index: Any


class Feed(Protocol):
    """Batches in an order that is decided by the key alone.

    Attributes:
      rows: the most batches that a chunk may have.
      position: what JSON can hold, to go on from after the batches taken so far.
    """

    rows: int
    position: Any

    def first(self) -> Examples:
        """A batch to initialise on."""
        ...

    def take(self, count: int) -> Chunk:
        """The next `count` batches, in arrays of `rows`."""
        ...

    def read_ahead(self, count: int) -> None:
        """Has the next `count` batches ready in memory, while the device is busy."""
        ...

    def seek(self, position: Any) -> None:
        """Goes to a former `position`."""
        ...


class ArrayFeed:
    """Batches of examples that are on the device: their indices travel."""

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        rows: int,
        rng: np.random.Generator,
        placement: Placement,
    ):
        self._examples, self._size, self._placement = examples, batch_size, placement
        self._order = batches(len(examples), batch_size, rng)
        self._first = next(self._order)
        self.rows, self.position = rows, 0

    def first(self) -> Examples:
        """The first batch, which is not among those that follow."""
        first = self._examples.take(self._first)
        return Examples(*self._placement.batch((first.y, first.context)))

    def take(self, count: int) -> Chunk:
        """The next `count` batches."""
        index = np.zeros((self.rows, self._size), np.int32)
        index[:count] = list(islice(self._order, count))
        self.position += count
        examples = (self._examples.y, self._examples.context)
        return Chunk(examples, self._placement.batch(index, axis=1))

    def read_ahead(self, count: int) -> None:
        """Nothing is to be read."""

    def seek(self, position: int) -> None:
        """Passes over the batches before that."""
        next(islice(self._order, position - self.position, position - self.position), None)
        self.position = position
