"""Whether reading data keeps the compiled step waiting: python -m benchmarks.pipeline [mnist.npz].

Glow (L = 3, K = 8, hidden 64) on images of MNIST's size, batch 64: steps on a stream that Grain
reads, by threads or by two processes, beside steps on an array that is on the device. "Busy" is the
share of the time that is not spent on getting the next batches.
"""

import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks.timing import print_table
from jflow import data, flows
from jflow.train.history import History
from jflow.train.inputs import Inputs
from jflow.train.loop import Rules
from jflow.train.objective import MaximumLikelihood
from jflow.train.optimizer import build_optimizer
from jflow.train.run import Plan
from jflow.train.trainer import Trainer

CHUNK = 10


def images(path: str | None) -> np.ndarray:
    """MNIST's training images, or noise of their size, padded."""
    if path:
        return data.pad(data.npz(path).train.y, 32, 32)
    return np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 1)).astype(np.uint8)


def trainer(flow: Any, rules: Any, source: Any, workers: int) -> tuple[Any, Any]:
    """What `fit` makes, and a run at its first step."""
    inputs = Inputs(flow, source, None, None, jax.random.key(0), 64, None, workers)
    made = Trainer(flow, None, rules, Plan(10**6, CHUNK, None, None), inputs, 1, False)
    return made, made.start(None, None)


class Clock:
    """A feed that tells how long one waited for it."""

    def __init__(self, feed: Any):
        self.feed, self.waited = feed, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.feed, name)

    def take(self, count: int) -> Any:
        """The next batches, on the device."""
        began = time.perf_counter()
        chunk = jax.block_until_ready(self.feed.take(count))
        self.waited += time.perf_counter() - began
        return chunk


def main(path: str | None, rounds: int = 6) -> None:
    """Prints the table."""
    y = images(path)
    flow = flows.glow((32, 32, 1), levels=3, steps=8, hidden=64)
    rules = Rules(MaximumLikelihood(flow, 784), build_optimizer(None, 1e-3, 100, 50.0)[0], 0.999)
    kinds = {
        "array on the device": (y, 0),
        "stream, threads": (data.arrays(y), 0),
        "stream, two processes": (data.arrays(y), 2),
    }
    made = {name: trainer(flow, rules, *given) for name, given in kinds.items()}
    seconds: dict[str, list] = {name: [] for name in kinds}
    for i in range(rounds + 1):
        for name, (one, run) in made.items():
            if i == 1:
                one.feed = Clock(one.feed)  # after the first, which compiles
            began = time.perf_counter()
            one._advance(run, CHUNK, History("bits_per_dim"))
            if i:
                seconds[name].append((time.perf_counter() - began) / CHUNK)
    print(f"one train step of {len(y)} images, batch 64, on {jax.devices()[0].device_kind}:")
    print_table(seconds, "array on the device")
    for name, (one, _) in made.items():
        busy = 1 - one.feed.waited / (sum(seconds[name]) * CHUNK)
        print(f"{name:28s} busy {busy:.2%}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
