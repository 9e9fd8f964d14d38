"""Where training steps get their batches: arrays on the device, or a stream that Grain reads."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jflow.data.sources import parse_flags, read_options
from jflow.data.splits import hold_out_stream
from jflow.distributions.description import checksum
from jflow.distributions.examples import as_weights
from jflow.functional.arguments import check_counts

# Of the batches that one call of the loop is given, where they are not on the device already.
_CHUNK_BYTES = 64 * 2**20
# Of the batches that one call of an evaluation is given.
_CALL_ROWS, _CALL_BYTES = 64, 16 * 2**20
# No data set has so many examples; what is repeated without end has more.
_ENDLESS = 2**50
# So many examples have their order drawn at once, where epochs are shorter.
_TOGETHER = 4096
# How many examples are read at a time where all are, and how many a fingerprint covers.
_ROWS, _SOME = 2**14, 256


class Batch(NamedTuple):
    """Examples.

    Attributes:
      values: a pytree of arrays (n, ...): what an objective sees.
      weights: (n,), of mean 1 over all examples; None for equal ones.
    """

    values: Any
    weights: Any = None


class Chunk(NamedTuple):
    """Batches, one after the other.

    Attributes:
      examples: a `Batch` of arrays (rows, ...).
      rows: (count, batch_size); the examples in rows[i] are batch i. None where `examples` has
        arrays (count, batch_size, ...), of several processes each its part.
    """

    examples: Batch
    rows: np.ndarray | None = None


class Source:
    """Batches of `batch_size`, in an order that a seed decides, at most `most` of them at once."""

    batch_size: int
    most: int = 2**30

    def take(self, seed: int, position: int, count: int) -> Chunk:
        """`count` batches, from that of number `position` on."""
        raise NotImplementedError

    def first(self, seed: int) -> Chunk:
        """One batch to initialise on."""
        return self.take(seed, 0, 1)

    def __len__(self) -> int:
        raise NotImplementedError

    def in_order(self, size: int) -> Iterator[tuple[Batch, int]]:
        """All examples once, in arrays (rows, size, ...), the last filled up; and how many."""
        raise NotImplementedError

    def fingerprint(self) -> Any:
        """What tells the data apart from others, and how much of them it covers."""
        return f"{type(self).__module__}.{type(self).__qualname__}, whose data are not looked at"


@dataclass(frozen=True, eq=False)
class Arrays(Source):
    """Examples in memory: their indices travel.

    Attributes:
      values: a pytree of arrays (N, ...).
      batch_size: examples of a batch; batches are all of that size, so some span two epochs.
      weights: (N,), zero or more; None for equal ones. Examples of weight zero are left out.
      places: which rows the examples are; None for all. So parts of a data set share its arrays.
    """

    values: Any
    batch_size: int = 256
    weights: Any = None
    places: np.ndarray | None = None
    _order: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_counts("fit", batch_size=self.batch_size)
        object.__setattr__(self, "values", jax.tree.map(jnp.asarray, self.values))
        if self.weights is not None:
            given = as_weights("weights", self.weights, len(jax.tree.leaves(self.values)[0]))
            places = np.arange(len(given)) if self.places is None else self.places
            places = places[given[places] > 0].astype(np.int32)
            if not len(places):
                raise ValueError("weights are all zero in a part of the data")
            shared = jnp.asarray(given / given[places].mean(), jnp.float32)
            object.__setattr__(self, "places", places)
            object.__setattr__(self, "weights", shared)
        object.__setattr__(self, "_order", lru_cache(1)(_order))

    def __len__(self) -> int:
        if self.places is not None:
            return len(self.places)
        return len(jax.tree.leaves(self.values)[0])

    def rows(self, index: Any) -> Any:
        """In which rows the examples of those numbers are."""
        return index if self.places is None else self.places[index]

    def at(self, index: Any) -> Batch:
        """The examples of those numbers, in arrays of their own."""
        index = self.rows(index)
        return Batch(*jax.tree.map(lambda array: array[index], (self.values, self.weights)))

    def take(self, seed: int, position: int, count: int) -> Chunk:
        epochs = max(1, _TOGETHER // len(self))  # whose orders are drawn together
        size, length = self.batch_size, epochs * len(self)
        first, end = position * size, (position + count) * size
        blocks = range(first // length, -(-end // length))
        order = partial(self._order, len(self), epochs, seed)
        parts = [order(b)[max(first - b * length, 0) : end - b * length] for b in blocks]
        index = np.concatenate(parts).reshape(count, size)
        return Chunk(Batch(self.values, self.weights), self.rows(index).astype(np.int32))

    def in_order(self, size: int) -> Iterator[tuple[Batch, int]]:
        leaves = jax.tree.leaves(self.values)
        each = _at_once(size, sum(leaf.nbytes for leaf in leaves) // len(leaves[0]))
        for first in range(0, len(self), each):
            index = np.arange(first, first + each).reshape(-1, size)
            yield self.at(np.minimum(index, len(self) - 1)), min(each, len(self) - first)

    def split(self, share: float, rng: np.random.Generator) -> tuple["Arrays", "Arrays"]:
        """A random split into training and validation examples, at least one of each.

        Raises:
          ValueError: `share` is not in (0, 1), or there are fewer than two examples.
        """
        if not 0 < share < 1 or len(self) < 2:
            raise ValueError(
                f"validation must be a fraction in (0, 1) of two or more examples; got {share} "
                f"of {len(self)}"
            )
        order = self.rows(rng.permutation(len(self)).astype(np.int32))
        count = min(max(1, round(share * len(self))), len(self) - 1)
        parts = (order[count:], order[:count])
        return tuple(Arrays(self.values, self.batch_size, self.weights, p) for p in parts)  # type: ignore[return-value]

    def fingerprint(self) -> str:
        """Types, shapes and a checksum of all examples."""
        return checksum((self.values, self.weights), self.places)


class Stream(Source):
    """Examples of a `grain.MapDataset`, in Grain's order, read ahead by its threads or processes.

    Of several hosts each reads its share of every batch.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int = 256,
        read: Callable[[Any], Batch] = Batch,
        workers: int = 0,
    ):
        """Of a data set with an end, in batches of so many examples.

        `read` is done to each batch on the host; `workers` processes read, or threads of this one.

        Raises:
          ValueError: there is no end, or no example.
        """
        check_counts("fit", batch_size=batch_size)
        check_counts("fit", 0, workers=workers)
        if not 0 < len(data) < _ENDLESS:
            what = "it repeats for ever: leave out repeat()" if len(data) else "it is empty"
            raise ValueError(f"data must be a stream of a finite number of examples; {what}")
        self.data, self.batch_size = data, batch_size
        self._read, self._workers = read, workers
        self._reader: ThreadPoolExecutor | None = None
        self._at: tuple[int, int] | None = None
        self._coming: Future[list[Batch]] | None = None

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def _bytes(self) -> int:
        """Of one example."""
        one = self._read(self.data.batch(1)[0])
        return max(1, sum(array.nbytes for array in jax.tree.leaves(one)))

    @property
    def most(self) -> int:  # type: ignore[override]
        """As many as 64 MiB hold."""
        return max(1, _CHUNK_BYTES // (self.batch_size * self._bytes))

    def first(self, seed: int) -> Chunk:
        return Chunk(jax.tree.map(lambda a: a[None], self._read(self._batches(seed)[0])))

    def take(self, seed: int, position: int, count: int) -> Chunk:
        # As many again are read while these are used.
        if self._at != (seed, position):
            self._open(seed, position)
        self._at = None  # until all went well
        self._ready.extend(self._coming.result() if self._coming else ())
        taken = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        taken += [self._read(batch) for batch in islice(self._iterator, count - len(taken))]
        self._at = (seed, position + count)
        self._coming = self._ahead(min(count, self.most) - len(self._ready))
        return Chunk(jax.tree.map(lambda *arrays: np.stack(arrays), *taken))

    def in_order(self, size: int) -> Iterator[tuple[Batch, int]]:
        each = _at_once(size, self._bytes)
        for batch in self.data.batch(each).to_iter_dataset(read_options()):
            found = self._read(batch)
            count = len(jax.tree.leaves(found)[0])
            index = np.minimum(np.arange(each), count - 1).reshape(-1, size)
            yield jax.tree.map(lambda a, index=index: a[index], found), count

    def split(self, count: int, seed: int) -> tuple["Stream", "Stream"]:
        """All but `count` random examples, and those.

        Raises:
          ValueError: `count` leaves one of the two empty.
        """
        parts = hold_out_stream(self.data, count, seed)
        return tuple(Stream(p, self.batch_size, self._read, self._workers) for p in parts)  # type: ignore[return-value]

    def whole(self) -> Batch:
        """All examples, in memory."""
        parts = list(self.data.batch(_ROWS).to_iter_dataset(read_options()))
        return self._read(jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts))

    def fingerprint(self) -> str:
        """Of up to 256 examples, spread over the stream: more would take a whole reading of it."""
        index = np.unique(np.linspace(0, len(self) - 1, _SOME).astype(int))
        some = [self.data[int(i)] for i in index]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *some)
        covered = f"{len(index)} of {len(self)} examples of a stream"
        return f"{covered}: {checksum(stacked)}"

    def _batches(self, seed: int) -> Any:
        own = slice(jax.process_index(), None, jax.process_count())
        shuffled = self.data.seed(seed).shuffle().repeat()
        return shuffled.batch(self.batch_size // jax.process_count())[own]

    def _open(self, seed: int, position: int) -> None:
        """Goes to the batch of that number.

        Not by Grain's own state, which says the same in words that depend on `workers`.
        """
        stream = self._batches(seed)[position:].to_iter_dataset(read_options())
        if self._workers:
            import grain

            parse_flags()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        if self._coming is not None:
            self._coming.exception()  # what reads the former iterator is to end first
        self._ready, self._iterator = deque[Batch](), iter(stream)
        self._coming = self._ahead(0)

    def _ahead(self, count: int) -> "Future[list[Batch]]":
        """Begins to read so many batches, while the device is busy."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "jflow-stream")
        iterator = self._iterator
        return self._reader.submit(
            lambda: [self._read(batch) for batch in islice(iterator, max(count, 0))]
        )


def _order(count: int, epochs: int, seed: int, block: int) -> np.ndarray:
    """Of the examples in some epochs, one random order of all after the other."""
    rng, whole = np.random.default_rng((seed, block)), np.arange(count, dtype=np.int32)
    if epochs == 1:
        return rng.permutation(whole)
    return rng.permuted(np.tile(whole, (epochs, 1)), axis=1).ravel()


def _at_once(size: int, each: int) -> int:
    """Of how many examples losses are computed in one call: some batches, of so many bytes each."""
    return size * max(1, min(_CALL_ROWS, _CALL_BYTES // max(size * each, 1)))
