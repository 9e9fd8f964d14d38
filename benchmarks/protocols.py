"""Bits per dimension of one flow under several protocols: how noise is drawn, and averaged over.

    python -m benchmarks.protocols [RECIPE] [STEPS] [SEEDS]

It fits a recipe to the digits of scikit-learn, under uniform noise and under noise that is learned,
with the parameters that are best in validation, and prints a table of test bits/dim: means of log p
over 64 draws of the noise, and log of the mean of p over 4, 16 and 64 (importance-weighted).
"""

import sys
import time
from typing import Any

import jflow
from jflow import data, flows

ARGUMENTS: dict[str, dict[str, Any]] = {
    "glow": {
        "levels": 2, "steps": 4, "hidden": 64, "checkerboards": 6, "positions": True,
        "dropout": 0.4,
    },
    "tarflow": {"blocks": 2, "layers": 2, "width": 64, "components": 6, "dropout": 0.2},
    "flow_pp": {"hidden": 32, "dropout": 0.3},
}  # fmt: skip


def row(recipe: str, dequantization: str, seed: int, steps: int) -> None:
    """One fit."""
    splits = data.images("digits")
    build = getattr(flows, recipe)
    flow = build(
        splits.shape, values=splits.values, dequantization=dequantization, **ARGUMENTS[recipe]
    )
    start = time.perf_counter()
    density, history = jflow.fit(
        flow, splits.train.y, key=seed, validation=splits.validation.y, steps=steps, batch_size=64,
        learning_rate=2e-3, clip_norm=1.0, ema_decay=0.995, evaluate_every=max(1, steps // 8),
        validation_samples=4, patience=None, progress=False,
    )  # fmt: skip
    minutes = (time.perf_counter() - start) / 60
    found = []
    for samples, weighted in ((64, False), (4, True), (16, True), (64, True)):
        estimate = jflow.evaluate(
            density, splits.test.y, key=1, samples=samples, importance_weighted=weighted
        )
        found.append(f"{estimate.mean:.3f}")
    error = f"{estimate.standard_error:.3f}"
    cells = (recipe, dequantization, str(seed), *found, error, str(history.best_step))
    print("| " + " | ".join(cells) + f" | {minutes:.0f} |", flush=True)


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "glow"
    steps, seeds = (int(sys.argv[i]) if len(sys.argv) > i else n for i, n in ((2, 1_200), (3, 1)))
    print("| recipe | noise | seed | mean | 4 | 16 | 64 | ± | best step | minutes |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for seed in range(seeds):
        for dequantization in ("uniform", "variational"):
            row(name, dequantization, seed, steps)
