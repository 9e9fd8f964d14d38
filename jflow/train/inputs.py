"""What `fit` is given to train on: checked, split, and put where batches come from."""

import zlib
from typing import Any

import jax
import numpy as np
from jax import Array

from jflow.data.splits import hold_out_stream
from jflow.distributions import Flow, init
from jflow.distributions.contexts import in_units_of
from jflow.distributions.description import describe
from jflow.functional.arguments import check_counts
from jflow.train.advice import advise
from jflow.train.arrays import Examples, check_examples, is_stream, only_given, split
from jflow.train.feeds import ArrayFeed, Feed, StreamFeed
from jflow.train.sharding import Placement

# No data set has so many examples; what is repeated without end has more.
_ENDLESS = 2**50
# How many contexts, all over the data, their units are taken from.
_UNITS = 10_000
# Of how many examples a checksum is computed at a time.
_ROWS = 2**14


class Inputs:
    """The data of a run.

    Attributes:
      flow: what they are for.
      key: of the split, the order of examples, and all else.
      batch_size: examples of a step.
      train: what to train on, `Examples` or a stream.
      held_out: what to validate on, or None.
    """

    def __init__(
        self, flow: Flow, data: Any, context: Any, validation: Any, key: Array, batch_size: int,
        augment: Any = None, workers: int = 0,
    ):  # fmt: skip
        """See `fit` for the arguments, and for the errors."""
        check_counts("fit", batch_size=batch_size)
        check_counts("fit", 0, workers=workers)
        self.flow, self.key, self.batch_size = flow, key, batch_size
        self._augment, self._workers = augment, workers
        self.train, self.held_out = _prepare(flow, data, context, validation, key)

    def feed(self, rows: int, placement: Placement) -> Feed:
        """Where batches come from, at most `rows` of them at a time."""
        rng, given = _host_generator(self.key, 1), (self.batch_size, rows)
        if isinstance(self.train, Examples):
            return ArrayFeed(self.train, *given, rng, placement)
        seed = int(rng.integers(2**31))
        return StreamFeed(self.train, self.flow, *given, seed, self._workers, placement)

    def initial(self, first: Examples) -> dict[str, Any]:
        """Variables initialised on a batch, as training will see it.

        Raises:
          ValueError: there is nothing to train.
        """
        y = first.y
        if self._augment is not None:
            y = self._augment(jax.random.fold_in(self.key, 3), y)
        variables = init(self.flow, jax.random.fold_in(self.key, 0), y, first.context)
        if isinstance(self.train, Examples) and first.context is not None:
            count = min(len(self.train), _UNITS)
            spread = np.linspace(0, len(self.train) - 1, count).astype(np.int32)
            variables = in_units_of(variables, self.train.take(spread).context, (count,))
        if "params" not in variables:
            raise ValueError(
                "the flow has no parameters to fit; use it as Density(flow, variables)"
            )
        return variables

    @property
    def settings(self) -> dict[str, Any]:
        """What a run may not be resumed without, as JSON can hold it."""
        return {
            "flow": describe(self.flow),
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "batch_size": self.batch_size,
            "validation": _fingerprint(self.held_out),
            "data": _fingerprint(self.train),
        }


def _prepare(
    flow: Flow, data: Any, context: Any, validation: Any, key: Array
) -> tuple[Any, Examples | None]:
    """What to train on, `Examples` or a stream, and the examples to validate on.

    Raises:
      TypeError, ValueError: they do not fit the flow.
    """
    rng = _host_generator(key, 0)
    if is_stream(data) and context is not None:
        raise ValueError("the context of a stream is in its examples: {'y': ..., 'context': ...}")
    if is_stream(data):
        _check_stream(data)
    train = data if is_stream(data) else check_examples("data", flow, data, context)
    if isinstance(train, Examples):
        advise(flow, train.y)
    if validation is None:
        return train, None
    if isinstance(validation, float | int):
        if isinstance(train, Examples):
            return split(train, validation, rng)
        if not 0 < validation < 1:
            raise ValueError(f"validation must be a fraction in (0, 1); got {validation}")
        count = max(1, round(validation * len(train)))
        train, held_out = hold_out_stream(train, count, int(rng.integers(2**31)))
        return train, check_examples("data", flow, held_out)
    pair = validation if isinstance(validation, tuple) else (validation,)
    if len(pair) > 2:
        raise ValueError(f"validation must be (y, context), if a tuple; got {len(pair)} parts")
    return train, check_examples("validation", flow, *pair)


def _check_stream(data: Any) -> None:
    """Refuses streams that have no number of examples, or examples of another kind."""
    count = len(data)
    if not 0 < count < _ENDLESS:
        what = "it repeats for ever: leave out repeat()" if count else "it is empty"
        raise ValueError(f"data must be a stream of a finite number of examples; {what}")
    example = data[0]
    found = only_given(example).get("y") if example is not None else None
    if not hasattr(found, "shape"):
        got = f"a dict of {sorted(example)}" if isinstance(example, dict) else repr(example)[:60]
        raise ValueError(
            "examples of data must be arrays, or {'y': array, 'context': array}; the first is "
            f"{got}. Use map() to make them so; what filter() leaves out has no place in a stream "
            "of known length"
        )


def _fingerprint(given: Any) -> str | None:
    """What tells data apart: type, shape and a checksum; of a stream, that of three examples."""
    if given is None:
        return None
    if not isinstance(given, Examples):
        some = [only_given(given[i]) for i in (0, len(given) // 2, len(given) - 1)]
        each = ", ".join(_describe(example["y"], example.get("context")) for example in some)
        return f"a stream of {len(given)}, such as {each}"
    return _describe(given.y, given.context, given.places)


def _describe(y: Any, context: Any, places: np.ndarray | None = None) -> str:
    y, checksum = np.asarray(y), 0
    shape = y.shape if places is None else (len(places), *y.shape[1:])
    for leaf in jax.tree.leaves((y, context)):
        rows: Any = np.asarray(leaf)
        # A part at a time: of rows in other places there is no copy as large as they are.
        for part in [rows] if places is None else map(rows.__getitem__, _parts(places)):
            checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
    return f"{y.dtype}{list(shape)}, checksum {checksum:08x}"


def _parts(places: np.ndarray) -> list[np.ndarray]:
    return np.array_split(places, 1 + len(places) // _ROWS)


def _host_generator(key: Array, which: int) -> np.random.Generator:
    """Of what is drawn on the host: the split (0), or the order of examples (1)."""
    seed = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist())
    return np.random.default_rng(seed.spawn(2)[which])
