"""What the defaults of `fit` rest on: test log-likelihoods with one of its options changed.

python -m benchmarks.defaults PREPARED.npz RECIPE [SEED ...]   appends to PREPARED-RECIPE.jsonl
python -m benchmarks.defaults PREPARED.npz RECIPE show

PREPARED.npz is that of `benchmarks.tables prepare`; RECIPE is one of `jflow.flows`, with its own
defaults. Each run has 2,000 steps and keeps the parameters that did best on the same validation
rows. It may be stopped, and goes on where it was.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jflow
from benchmarks.tables import keep, kept
from jflow import flows

STEPS = 2000
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 3e-3": {"learning_rate": 3e-3},
    "constant 1e-3": {"learning_rate": optax.constant_schedule(1e-3)},
    "clipped at 1": {"clip_norm": 1.0},
    "average 0.99": {"ema_decay": 0.99},
    "no warm-up": {"warmup_steps": 0},
}


def runs(prepared: str, recipe: str, seeds: list[int], done: list[Any]) -> Iterator[dict[str, Any]]:
    """One row for each run that is not done."""
    with np.load(prepared) as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    for seed in seeds:
        for table in sorted({name.split("/")[0] for name in parts}):
            train, validation, test = (
                parts[f"{table}/{part}"] for part in ("train", "validation", "test")
            )
            for option, changed in OPTIONS.items():
                if [table, option, seed] in done:
                    continue
                flow = getattr(flows, recipe)(train.shape[1])
                density, history = jflow.fit(
                    flow,
                    train,
                    key=seed,
                    validation=validation,
                    steps=STEPS,
                    progress=False,
                    **changed,
                )
                mean = jflow.evaluate(density, test, key=seed).mean
                step, best = int(history.rows[-1]["step"]), history.best_step
                yield {"table": table, "option": option, "seed": seed, "mean": -mean,
                       "best": best, "steps": step}  # fmt: skip
            jax.clear_caches()


def show(rows: list[dict[str, Any]]) -> None:
    """Nats above the defaults with the same seed: mean and standard error; the mean of tables."""
    tables, found = sorted({row["table"] for row in rows}), {}
    for row in rows:
        found[row["table"], row["option"], row["seed"]] = row["mean"]
    print("| option |" + "".join(f" {table} |" for table in tables) + " mean, clipped at 1 |")
    print("|---|" + "---|" * (len(tables) + 1))
    for option in OPTIONS:
        cells, means = [], []
        for table in tables:
            gains = np.asarray([
                value - found[table, "defaults", seed]
                for (name, changed, seed), value in found.items()
                if (name, changed) == (table, option)
            ])  # fmt: skip
            error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else np.nan
            cells.append(f"{gains.mean():+.2f} +- {error:.2f}" if len(gains) else "")
            means += [np.clip(gains.mean(), -1, 1)] if len(gains) else []
        print(f"| {option} | " + " | ".join([*cells, f"{np.mean(means):+.2f}"]) + " |")


def main(prepared: str, recipe: str, *seeds: str) -> None:
    """Runs what is missing, or shows what is there."""
    path = Path(prepared).with_name(f"{Path(prepared).stem}-{recipe}.jsonl")
    rows = kept(path)
    if seeds == ("show",):
        show(rows)
        return
    done = [[row["table"], row["option"], row["seed"]] for row in rows]
    for row in runs(prepared, recipe, [int(seed) for seed in seeds or ("0",)], done):
        keep(path, row)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
