"""Batches of a stream that Grain reads."""

import os
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jflow.data.batches import Arrays, Batch, Chunk, Source, at_once
from jflow.data.sources import parse_flags, read_options
from jflow.data.splits import hold_out_stream
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import checksum

# Of the batches that one call of the loop is given.
_CHUNK_BYTES = 64 * 2**20
# No data set has so many examples; what is repeated without end has more.
_ENDLESS = 2**50
# How many examples are read at a time where all are, and how many a fingerprint covers.
_ROWS, _SOME = 2**14, 256


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
        each = at_once(size, self._bytes)
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

    def in_memory(self, file: Path | None = None) -> Arrays:
        """All examples.

        Args:
          file: that has them since the last time, or is to have them for the next.
        """
        known = "" if file is None else self.fingerprint()
        found = None if file is None else self._kept(file, known)
        if found is None:
            parts = list(self.data.batch(_ROWS).to_iter_dataset(read_options()))
            found = self._read(jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts))
            if file is not None and jax.process_index() == 0:
                _keep(file, known, found)
        return Arrays(found.values, self.batch_size, found.weights)

    def _kept(self, file: Path, known: str) -> Batch | None:
        """The examples in a file, if it is whole, and of a stream with this fingerprint.

        A run is not resumed with others than it began with, whatever the file has.
        """
        one, tree = jax.tree.flatten(self._read(self.data.batch(1)[0]))
        try:
            with file.open("rb") as opened, np.load(opened) as arrays:
                if str(arrays["of"]) != known:
                    return None
                found = [arrays[f"part_{i}"] for i in range(len(one))]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return jax.tree.unflatten(tree, found)

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


def _keep(file: Path, known: str, found: Batch) -> None:
    leaves = jax.tree.leaves(found)
    if any(leaf.dtype.kind not in "biuf" for leaf in leaves):
        return  # such as bfloat16, which have no place in NumPy's files
    temporary = file.with_suffix(".tmp.npz")
    try:
        np.savez(temporary, **{"of": known, **{f"part_{i}": a for i, a in enumerate(leaves)}})
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        warnings.warn(
            f"the validation examples could not be kept in {file} ({error}): they are read again "
            "when the run is resumed",
            stacklevel=2,
        )
