"""What `fit` is given to train on: checked, split, and put where batches come from."""

import zlib
from typing import Any

import jax
import numpy as np
from jax import Array

from jflow.data.splits import hold_out_stream
from jflow.distributions import Flow
from jflow.train.arrays import Examples, check_examples, is_stream, only_given, split
from jflow.train.feeds import ArrayFeed, Feed, StreamFeed
from jflow.train.sharding import Placement


def prepare(
    flow: Flow, data: Any, context: Any, validation: Any, key: Array
) -> tuple[Any, Examples | None]:
    """What to train on, `Examples` or a stream, and the examples to validate on.

    Raises:
      TypeError, ValueError: they do not fit the flow.
    """
    rng = _host_generator(key, 0)
    if is_stream(data) and context is not None:
        raise ValueError("the context of a stream is in its examples: {'y': ..., 'context': ...}")
    train = data if is_stream(data) else check_examples("data", flow, data, context)
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
    return train, check_examples("validation", flow, *pair)


def make_feed(
    flow: Flow,
    train: Any,
    batch_size: int,
    rows: int,
    key: Array,
    workers: int,
    placement: Placement,
) -> Feed:
    """The feed of what `prepare` gave; for the arguments, see `fit`."""
    rng = _host_generator(key, 1)
    if isinstance(train, Examples):
        return ArrayFeed(train, batch_size, rows, rng, placement)
    seed = int(rng.integers(2**31))
    return StreamFeed(train, flow, batch_size, rows, seed, workers, placement)


def fingerprint(given: Any) -> str | None:
    """What tells data apart: type, shape and a checksum; of a stream, that of its first example."""
    if given is None:
        return None
    if not isinstance(given, Examples):
        first = only_given(given[0])
        return f"a stream of {len(given)}, the first {_describe(first['y'], first.get('context'))}"
    return _describe(given.y, given.context)


def _describe(y: Any, context: Any) -> str:
    checksum = 0
    for leaf in jax.tree.leaves((y, context)):
        array: Any = np.ascontiguousarray(leaf)
        checksum = zlib.crc32(array, checksum)
    return f"{y.dtype}{list(y.shape)}, checksum {checksum:08x}"


def _host_generator(key: Array, which: int) -> np.random.Generator:
    """Of what is drawn on the host: the split (0), or the order of examples (1)."""
    seed = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist())
    return np.random.default_rng(seed.spawn(2)[which])
