"""Samples in one step, or a few, by mean velocities: how good they are, and their density.

    python -m benchmarks.mean_flow [STEPS]

It prints a table: Wasserstein distances of 5,000 samples to as many points of the truth, by exact
assignment of 1,000 at a time, the divergence from the truth of points that have a density, and how
many have none.
"""

import sys
from typing import Any

import jax
import numpy as np

import jflow
from benchmarks.matching import BATCH, NAMES, wasserstein
from jflow import data, flows, train
from jflow.functional import FixedGrid, MeanSteps, Solver

SOLVERS: dict[str, Solver | None] = {
    "the differential equation": None,
    "`MeanSteps(4)`": MeanSteps(4), "`MeanSteps(1)`": MeanSteps(),
    "Euler, 1 step": FixedGrid(1, "euler"),
}  # fmt: skip


def rows(name: str, steps: int) -> None:
    """Fits to points with any noise, and to pairs by optimal transport."""
    toy = data.toy(name)
    y, new, other = (
        np.asarray(toy.sample(*given)) for given in ((0, 45_000), (1, 5_000), (2, 5_000))
    )
    truth = np.asarray(toy.log_prob(new))
    print(f"| {name} | | other data | {wasserstein(new, other):.3f} | | |")
    flow = flows.flow_matching(2, mean_velocities=True)
    sources: dict[str, Any] = {
        "semidiscrete": train.semidiscrete_pairs(flow, y, 0, 50_000), "independent": y,
    }  # fmt: skip
    for source, examples in sources.items():
        density, _ = jflow.fit(
            flow, examples, key=0, steps=steps, batch_size=BATCH, learning_rate=3e-3, clip_norm=1.0,
            evaluate_every=steps // 4, progress=False,
        )  # fmt: skip
        for solver_name, solver in SOLVERS.items():
            found = density if solver is None else density.with_solver(solver)
            samples = np.asarray(found.sample(3, 5_000))
            text = f"| {name} | {source} | {solver_name} | {wasserstein(samples, other):.3f} |"
            if not isinstance(solver, FixedGrid):  # whose log p is that of a coarse solve
                log_prob = np.asarray(jax.jit(found.log_prob)(new))
                lost = np.isnan(log_prob)
                text += f" {np.mean((truth - log_prob)[~lost]):.3f} | {lost.sum():,} |"
            print(text if text.count("|") > 5 else text + " | |", flush=True)


if __name__ == "__main__":
    print("| data | pairs | solver | W2 of samples | KL, nats | points without a density |")
    print("|---|---|---|---|---|---|")
    for name in NAMES:
        rows(name, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
