"""Test log-likelihoods of all recipes for vectors on tables, at equal parameters and steps.

python -m benchmarks.tables prepare TABLES.npz PREPARED.npz NAME [NAME ...]
python -m benchmarks.recipes fit PREPARED.npz [STEPS [SEED ...]]  appends to PREPARED.recipes.jsonl
python -m benchmarks.recipes show PREPARED.recipes.jsonl

Each recipe gets the width (or number of layers) at which it has closest to PARAMETERS parameters.
Planar and radial flows have so few in a layer that they get 64 layers instead. All else is as the
recipes and `jflow.fit` have it by default.
"""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jflow
from benchmarks.tables import PARTS, keep, kept
from jflow import flows

PARAMETERS, STEPS, LAYERS = 20_000, 2_000, 5
Build = Callable[[int, int], jflow.Flow]  # (features, size)


def masked(recipe: Callable[..., jflow.Flow], **options: Any) -> Build:
    """A recipe whose size is the width of its networks."""
    return lambda features, size: recipe(features, LAYERS, hidden=(size, size), **options)


RECIPES: dict[str, Build] = {
    "nice": lambda d, n: flows.nice(d, 6, (n, n)),
    "real_nvp": lambda d, n: flows.real_nvp(d, 6, (n, n)),
    "hint": masked(flows.hint, depth=3),
    "maf": masked(flows.maf),
    "iaf": masked(flows.iaf),
    "nsf": masked(flows.nsf),
    "nsf_autoregressive": masked(flows.nsf, autoregressive=True),
    "naf": masked(flows.naf),
    "sos": masked(flows.sos),
    "umnn": masked(flows.umnn),
    "bnaf": lambda d, n: flows.bnaf(d, LAYERS, n, depth=1),
    "sylvester": lambda d, n: flows.sylvester(d, n, direction="inverse"),
    "planar": lambda d, n: flows.planar(d, min(n, 64), direction="inverse"),
    "radial": lambda d, n: flows.radial(d, min(n, 64), direction="inverse"),
}


def parameters(flow: jflow.Flow) -> int:
    """How many trained numbers a flow has."""
    y = np.zeros((1, *flow.event_shape), np.float32)
    shapes = jax.eval_shape(flow.init, jax.random.key(0), y)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes["params"]))


def sized(build: Build, features: int) -> jflow.Flow:
    """The flow with closest to PARAMETERS parameters."""
    low, high = 1, 512
    while high - low > 1:
        middle = (low + high) // 2
        if parameters(build(features, middle)) < PARAMETERS:
            low = middle
        else:
            high = middle
    return min(
        (build(features, size) for size in (low, high)),
        key=lambda flow: abs(parameters(flow) - PARAMETERS),
    )


def fit(prepared: str, steps: str = str(STEPS), *seeds: str) -> None:
    """Fits every recipe to every table, with every seed; one JSON line each."""
    with np.load(prepared) as arrays:
        names = sorted({name.split("/")[0] for name in arrays.files})
        parts = {name: [arrays[f"{name}/{part}"] for part in PARTS] for name in names}
    results = Path(prepared).with_suffix(".recipes.jsonl")
    done = [{name: row[name] for name in ("table", "recipe", "seed")} for row in kept(results)]
    for seed, (name, (train, validation, test)), recipe in itertools.product(
        map(int, seeds or ("0", "1", "2")), parts.items(), RECIPES
    ):
        row: dict[str, Any] = {"table": name, "recipe": recipe, "seed": seed}
        if row in done:
            continue
        flow = sized(RECIPES[recipe], train.shape[1])
        density, _ = jflow.fit(
            flow, train, validation=validation, key=seed, steps=int(steps), progress=False
        )
        mean = -jflow.evaluate(density, test, key=seed).mean
        keep(results, row | {"mean": mean, "parameters": parameters(flow)})
        jax.clear_caches()


def show(results: str) -> None:
    """Mean test log-likelihood in nats and its standard error over seeds."""
    rows = kept(Path(results))
    tables = sorted({row["table"] for row in rows})
    print("| |" + "".join(f" {name} |" for name in tables))
    print("|---|" + "---|" * len(tables))
    for recipe in RECIPES:
        cells = []
        for table in tables:
            found = [r for r in rows if (r["recipe"], r["table"]) == (recipe, table)]
            if not found:
                cells.append("")
                continue
            means = [r["mean"] for r in found]
            error = np.std(means, ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.nan
            cells.append(f"{np.mean(means):.2f} +- {error:.2f}")
        print(f"| `{recipe}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    commands = {"fit": fit, "show": show}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    partial(commands[sys.argv[1]], *sys.argv[2:])()
