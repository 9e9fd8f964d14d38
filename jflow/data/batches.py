"""Where training steps get their batches; here, arrays in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.functional.arguments import as_weights, check_counts
from jflow.functional.arrays import as_host_array, checksum

# More than these, or than this share of the device's own memory, stay in the host's.
_LARGE, _SHARE = 2**28, 0.25
# Of the batches that one call of the loop or of an evaluation is given, where they are gathered.
_CALL_ROWS, _CALL_BYTES = 64, 16 * 2**20
# So many examples have their order drawn at once, where epochs are shorter.
_TOGETHER = 4096


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
        arrays (count, batch_size, ...).
      whole: where `rows` is None, whether each of several processes has whole batches, and not its
        part of them.
    """

    examples: Batch
    rows: np.ndarray | None = None
    whole: bool = False


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
    """Examples in memory.

    They are put on the device, and then their indices travel. Large ones stay where they are, and
    batches travel: on CPUs those of more than 256 MiB, otherwise of more than a quarter of what JAX
    may use of the device's memory. There is no copy of them if JAX knows their dtype (float32,
    float16, uint8; float64 and int64 become narrower): so they may be in a file,
    `numpy.load(..., mmap_mode="r")`, and are not to be changed while they are in use.

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
        put = _on_host if _stay(self.values) else _on_device
        object.__setattr__(self, "values", jax.tree.map(put, self.values))
        if self.weights is not None:
            given = as_weights("weights", self.weights, len(jax.tree.leaves(self.values)[0]))
            places = np.arange(len(given)) if self.places is None else self.places
            places = places[given[places] > 0].astype(np.int32)
            if not len(places):
                raise ValueError("weights are all zero in a part of the data")
            shared = (given / given[places].mean()).astype(np.float32)
            object.__setattr__(self, "places", places)
            object.__setattr__(self, "weights", put(shared))
        object.__setattr__(self, "_order", lru_cache(1)(_order))

    def __len__(self) -> int:
        if self.places is not None:
            return len(self.places)
        return len(jax.tree.leaves(self.values)[0])

    @cached_property
    def _stays(self) -> bool:
        return isinstance(jax.tree.leaves(self.values)[0], np.ndarray)

    @property
    def most(self) -> int:  # type: ignore[override]
        """As many as are no large copy."""
        if not self._stays:
            return Source.most
        return max(1, _CALL_BYTES // (self.batch_size * _each(self.values)))

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
        if self._stays:
            return Chunk(self.at(index), whole=True)
        return Chunk(Batch(self.values, self.weights), self.rows(index).astype(np.int32))

    def in_order(self, size: int) -> Iterator[tuple[Batch, int]]:
        each = at_once(size, _each(self.values))
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
        order = np.arange(len(self), dtype=np.int32)
        rng.shuffle(order)
        order = self.rows(order)
        count = min(max(1, round(share * len(self))), len(self) - 1)
        parts = (order[count:], order[:count])
        return tuple(Arrays(self.values, self.batch_size, self.weights, p) for p in parts)  # type: ignore[return-value]

    def fingerprint(self) -> str:
        """Types, shapes and a checksum of all examples."""
        return checksum((self.values, self.weights), self.places)


def _order(count: int, epochs: int, seed: int, block: int) -> np.ndarray:
    """Of the examples in some epochs, one random order of all after the other."""
    rng, whole = np.random.default_rng((seed, block)), np.arange(count, dtype=np.int32)
    if epochs == 1:
        rng.shuffle(whole)
        return whole
    return rng.permuted(np.tile(whole, (epochs, 1)), axis=1).ravel()


def _on_host(array: Any) -> np.ndarray:
    return as_host_array("values", array)


def _on_device(array: Any) -> Array:
    # A copy: a CPU may share memory with NumPy's array, which its owner may change.
    return array if isinstance(array, jax.Array) else jnp.array(_on_host(array))


def _stay(values: Any) -> bool:
    """Whether examples are too large to be held twice."""
    leaves = jax.tree.leaves(values)
    if all(isinstance(leaf, jax.Array) for leaf in leaves):
        return False
    own = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    total = sum(getattr(leaf, "nbytes", 0) for leaf in leaves)
    return total > (_LARGE if own is None else _SHARE * own)


def _each(values: Any) -> int:
    """Bytes of one example."""
    return max(1, sum(leaf.nbytes // len(leaf) for leaf in jax.tree.leaves(values)))


def at_once(size: int, each: int) -> int:
    """Of how many examples losses are computed in one call: some batches, of so many bytes each."""
    return size * max(1, min(_CALL_ROWS, _CALL_BYTES // max(size * each, 1)))
