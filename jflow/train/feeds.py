"""Where training steps get their batches: arrays on the device, or a stream that Grain reads."""

from collections import deque
from itertools import islice
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jflow.distributions import Flow
from jflow.train.arrays import Examples, batches, check_batch, only_given
from jflow.train.sharding import Placement

# Of the batches that one call of the loop is given, where they are not on the device already.
_CHUNK_BYTES = 64 * 2**20
# Grain's own settings for each process that reads.
_THREADS, _READ_AHEAD = 8, 64

# y and context.
Batch = tuple[np.ndarray, Any]


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
      position: how many batches have been taken.
    """

    rows: int
    position: int

    def first(self) -> Examples:
        """A batch to initialise on."""
        ...

    def take(self, count: int) -> Chunk:
        """The next `count` batches, in arrays of `rows`."""
        ...

    def read_ahead(self, count: int) -> None:
        """Has the next `count` batches ready in memory, while the device is busy."""
        ...

    def seek(self, position: int) -> None:
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
        index = self._examples.rows(index)
        self.position += count
        examples = (self._examples.y, self._examples.context)
        return Chunk(examples, self._placement.batch(index, axis=1))

    def read_ahead(self, count: int) -> None:
        """Nothing is to be read."""

    def seek(self, position: int) -> None:
        """Passes over the batches before that."""
        next(islice(self._order, position - self.position, position - self.position), None)
        self.position = position


class StreamFeed:
    """Batches of a `grain.MapDataset`, in Grain's order, read ahead by its threads or processes.

    Of several processes each reads its share of every batch; together they read what one would.
    """

    def __init__(
        self, source: Any, flow: Flow, batch_size: int, rows: int, seed: int, workers: int,
        placement: Placement,
    ):  # fmt: skip
        self._flow, self._placement = flow, placement
        own = slice(jax.process_index(), None, jax.process_count())
        shuffled = source.map(only_given).seed(seed).shuffle().repeat()
        self._batches = shuffled.batch(batch_size // jax.process_count())[own]
        first = self._checked(self._batches[0])
        size = sum(array.nbytes for array in jax.tree.leaves(first))
        self.rows = max(1, min(rows, _CHUNK_BYTES // size))
        self._workers, self._ahead = workers, deque[Batch]()
        self.seek(0)

    def first(self) -> Examples:
        """The first batch; it is also the first of those taken."""
        return Examples(*self._placement.local_batch(self._checked(self._batches[0])))

    def take(self, count: int) -> Chunk:
        """The next `count` batches."""
        self.read_ahead(count)
        taken = [self._ahead.popleft() for _ in range(count)]
        self.position += count

        def stacked(*arrays: np.ndarray) -> np.ndarray:
            chunk = np.zeros((self.rows, *arrays[0].shape), arrays[0].dtype)
            np.stack(arrays, out=chunk[:count])
            return chunk

        examples = jax.tree.map(stacked, *taken)
        index = self._placement.replicate(np.arange(self.rows, dtype=np.int32))
        return Chunk(self._placement.local_batch(examples, axis=1), index)

    def read_ahead(self, count: int) -> None:
        """Reads until `count` batches, or as many as fit a chunk, are in memory."""
        while len(self._ahead) < min(count, self.rows):
            self._ahead.append(self._checked(next(self._iterator)))

    def seek(self, position: int) -> None:
        """Goes to the batch of that number.

        Not by Grain's own state, which says the same in words that depend on `workers`.
        """
        import grain

        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_READ_AHEAD)
        stream = self._batches[position:].to_iter_dataset(options)
        if self._workers:
            _parse_flags()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        self._ahead.clear()
        self._iterator: Any = iter(stream)
        self.position = position

    def _checked(self, batch: dict[str, np.ndarray]) -> Batch:
        context = batch.get("context")
        check_batch("data", self._flow, batch["y"], context)
        return batch["y"], context


def _parse_flags() -> None:
    """Grain's processes read flags of absl, which nobody parses outside of absl's own programs."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
