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
from jflow.functional.sharding import Placement
from jflow.train import MaximumLikelihood, gradient_step
from jflow.train.evaluation import of_flow
from jflow.train.optimizer import build_optimizer
from jflow.train.run import Run
from jflow.train.train import Plan

CHUNK = 10


def images(path: str | None) -> np.ndarray:
    """MNIST's training images, or noise of their size, padded."""
    if path:
        return data.pad(data.npz(path).train.y, 32, 32)
    return np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 1)).astype(np.uint8)


def started(step: Any, source: Any, workers: int) -> Run:
    """What `fit` makes, at its first step."""
    given = of_flow("data", step.objective.flow, source, batch_size=64, workers=workers)
    plan = Plan(10**6, CHUNK, None, None)
    run = Run(step.objective, given, step, jax.random.key(0), plan, Placement(), None, None)
    run.start(None, None)
    return run


class Clock:
    """A source that tells how long one waited for it."""

    def __init__(self, source: Any):
        self.source, self.waited = source, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def take(self, *given: Any) -> Any:
        """The next batches."""
        began = time.perf_counter()
        chunk = self.source.take(*given)
        self.waited += time.perf_counter() - began
        return chunk


def main(path: str | None, rounds: int = 6) -> None:
    """Prints the table."""
    y = images(path)
    flow = flows.glow((32, 32, 1), levels=3, steps=8, hidden=64)
    optimizer = build_optimizer(None, 1e-3, 100, 50.0)[0]
    step = gradient_step(MaximumLikelihood(flow, dimensions=784), optimizer, average=0.999)
    kinds = {
        "array on the device": (y, 0),
        "stream, threads": (data.arrays(y), 0),
        "stream, two processes": (data.arrays(y), 2),
    }
    made: dict[str, Any] = {name: started(step, *given) for name, given in kinds.items()}
    seconds: dict[str, list] = {name: [] for name in kinds}
    for i in range(rounds + 1):
        for name, run in made.items():
            if i == 1:
                run.source = Clock(run.source)  # the first compiles
            began = time.perf_counter()
            run._advance(CHUNK)
            if i:
                seconds[name].append((time.perf_counter() - began) / CHUNK)
    print(f"one train step of {len(y)} images, batch 64, on {jax.devices()[0].device_kind}:")
    print_table(seconds, "array on the device")
    for name, run in made.items():
        busy = 1 - run.source.waited / (sum(seconds[name]) * CHUNK)
        print(f"{name:28s} busy {busy:.2%}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
