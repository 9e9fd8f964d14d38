"""Test log-likelihoods of all recipes for vectors on tables, at equal parameters and steps.

python -m benchmarks.tables prepare TABLES.npz PREPARED.npz NAME [NAME ...]
python -m benchmarks.recipes fit PREPARED.npz [STEPS [SEED ...]]  appends to PREPARED.recipes.jsonl
python -m benchmarks.recipes show PREPARED.recipes.jsonl

Each recipe gets the width (or number of layers) at which it has closest to PARAMETERS parameters.
Planar and radial flows have so few in a layer that they get 64 layers instead; the table says how
many parameters that is. Learned matrices ("lu") stand between layers where a recipe has them. Adam
at 1e-3, batches of 256, the parameters that did best in validation; see `benchmarks.tables`.
"""

import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jflow
from benchmarks.tables import BATCH, PARTS, Run, in_jax
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
    "maf": masked(flows.maf, mixing="lu"),
    "iaf": masked(flows.iaf, mixing="lu"),
    "nsf": masked(flows.nsf, mixing="lu"),
    "nsf_autoregressive": masked(flows.nsf, autoregressive=True, mixing="lu"),
    "naf": masked(flows.naf, mixing="lu"),
    "sos": masked(flows.sos, mixing="lu"),
    "umnn": masked(flows.umnn, mixing="lu"),
    "bnaf": lambda d, n: flows.bnaf(d, LAYERS, n, depth=1, mixing="lu"),
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


def fit_one(flow: jflow.Flow, run: Run, test: np.ndarray) -> tuple[float, float]:
    """Mean test log-likelihood, and ms a step."""
    variables = jflow.init(flow, jax.random.key(run.seed), run.train[:BATCH])
    constants = {name: value for name, value in variables.items() if name != "params"}

    def log_prob(params: Any, y: Any) -> Any:
        return flow.apply({"params": params, **constants}, y, method="log_prob")

    score, ms = in_jax(variables["params"], log_prob, run)
    return float(score(test).astype(np.float64).mean()), ms


def fit(prepared: str, steps: str = str(STEPS), *seeds: str) -> None:
    """Fits every recipe to every table, with every seed; one JSON line each."""
    with np.load(prepared) as arrays:
        names = sorted({name.split("/")[0] for name in arrays.files})
        parts = {name: [arrays[f"{name}/{part}"] for part in PARTS] for name in names}
    for seed, (name, (train, validation, test)), recipe in itertools.product(
        map(int, seeds or ("0", "1", "2")), parts.items(), RECIPES
    ):
        flow = sized(RECIPES[recipe], train.shape[1])
        mean, ms = fit_one(flow, Run(recipe, train, validation, int(steps), seed), test)
        row = {"table": name, "recipe": recipe, "seed": seed, "mean": mean, "ms": ms,
               "parameters": parameters(flow)}  # fmt: skip
        print(row, flush=True)
        with Path(prepared).with_suffix(".recipes.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        jax.clear_caches()


def show(results: str) -> None:
    """Mean test log-likelihood in nats and its standard error over seeds; parameters; ms a step."""
    rows = [json.loads(line) for line in Path(results).read_text().splitlines()]
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
            ms, count = min(r["ms"] for r in found), found[0]["parameters"] / 1e3
            cells.append(f"{np.mean(means):.2f} +- {error:.2f} ({count:.1f}k, {ms:.1f} ms)")
        print(f"| `{recipe}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    commands = {"fit": fit, "show": show}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    partial(commands[sys.argv[1]], *sys.argv[2:])()
