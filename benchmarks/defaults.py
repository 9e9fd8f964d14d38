"""What the defaults of recipes and of `fit` rest on: log-likelihoods of tables.

python -m benchmarks.tables prepare TABLES.npz PREPARED.npz NAME [NAME ...]
python -m benchmarks.defaults fit PREPARED.npz [RECIPE [CHANGE ...]]
python -m benchmarks.defaults show PREPARED.defaults.jsonl       what recipes reach as they are
python -m benchmarks.defaults changes PREPARED.defaults.jsonl    what changes of options gain

RECIPE is a key of `RECIPES`, by default all of them; CHANGE is one of its changes, "as it is", or
"all". Each run has 2,000 steps and keeps the parameters that did best on the validation rows. It
may be stopped, and goes on where it was: `fit` appends what is missing to PREPARED.defaults.jsonl.
"""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jflow
from benchmarks.tables import PARTS, keep, kept
from jflow import flows

STEPS, SEEDS = 2_000, range(5)
KEYS = ("recipe", "change", "table", "seed")
AS_IT_IS = "as it is"
inverse = partial(partial, direction="inverse")  # of recipes made for `fit_to_target`
RELU, NARROW, LU = {"activation": "relu"}, {"hidden": (64, 64)}, {"mixing": "lu"}
RECIPES: dict[str, tuple[Callable[..., jflow.Flow], tuple[dict[str, Any], ...]]] = {
    "nice": (flows.nice, (RELU, NARROW, {"layers": 8})),
    "real_nvp": (flows.real_nvp, (RELU, NARROW, LU, {"layers": 4})),
    "hint": (flows.hint, (RELU, NARROW, {"mixing": "permute"}, {"depth": 2})),
    "maf": (flows.maf, (RELU, NARROW, LU, {"scale": "exp"}, {"bound": 4.0}, {"direct": True})),
    "iaf": (flows.iaf, (RELU, NARROW, LU, {"mixing": "reverse"})),
    "nsf": (flows.nsf, (RELU, NARROW, LU, {"bins": 16}, {"bins": 4}, {"bound": 3.0},
                        {"actnorm": "first"})),
    "nsf_autoregressive": (
        partial(flows.nsf, autoregressive=True),
        (RELU, NARROW, LU, {"bins": 16}, {"bound": 3.0}, {"actnorm": "first"}, {"direct": False}),
    ),
    "naf": (flows.naf, (RELU, NARROW, LU, {"units": 16}, {"layers": 5})),
    "sos": (flows.sos, (RELU, NARROW, LU, {"terms": 2}, {"bound": 3.0})),
    "umnn": (flows.umnn, (RELU, NARROW, LU, {"units": 16}, {"steepness": 1.0})),
    "bnaf": (flows.bnaf, (LU, {"units": 8}, {"units": 32}, {"layers": 4})),
    "sylvester": (inverse(flows.sylvester), ({"layers": 16},)),
    "planar": (inverse(flows.planar), ({"layers": 64},)),
    "radial": (inverse(flows.radial), ({"layers": 64},)),
    "i_resnet": (flows.i_resnet, ()),
    "residual_flow": (flows.residual_flow, ()),
    "i_densenet": (flows.i_densenet, ()),
    "ffjord": (flows.ffjord, ()),
    "rnode": (flows.rnode, ()),
    "ot_flow": (flows.ot_flow, ({"width": 128},)),
    "flow_matching": (flows.flow_matching, ()),
    "transformer_af": (
        flows.transformer_af,
        ({"transformer": "deep_sigmoid"}, {"layers": 5}, {"width": 64}),
    ),
}  # fmt: skip
TRAINING: dict[str, dict[str, Any]] = {
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 3e-3": {"learning_rate": 3e-3},
    "rate 1e-2": {"learning_rate": 1e-2},
    "constant 1e-3": {"learning_rate": optax.constant_schedule(1e-3)},
    "clipped at 1": {"clip_norm": 1.0},
    "no clip ratio": {"clip_ratio": None},
    "10 skipped": {"max_skipped": 10},
    "average 0.99": {"ema_decay": 0.99},
    "no warm-up": {"warmup_steps": 0},
}


def changes(recipe: str) -> dict[str, dict[str, Any]]:
    """Options of a recipe by name: none, and those that are changed."""
    named = {
        ", ".join(f"{k} {v}" for k, v in change.items()): change for change in RECIPES[recipe][1]
    }
    return {AS_IT_IS: {}} | named


def reached(parts: list[np.ndarray], recipe: str, change: str, seed: int) -> dict[str, Any]:
    """One fit: mean log-likelihoods of validation and test rows, and the number of parameters."""
    (train, validation, test), ended_early = parts, False
    flow = RECIPES[recipe][0](train.shape[1], **changes(recipe).get(change, {}))
    try:
        density, _ = jflow.fit(
            flow, train, key=seed, validation=validation, steps=STEPS, progress=False,
            **TRAINING.get(change, {}),
        )  # fmt: skip
    except jflow.train.NonFiniteLossError as error:  # what was best so far counts
        density, ended_early = error.density, True
    return {
        "validation": -jflow.evaluate(density, validation, key=seed).mean,
        "mean": -jflow.evaluate(density, test, key=seed).mean,
        "ended_early": ended_early,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(density.variables["params"])),
    }


def fit(prepared: str, recipe: str = "", *names: str) -> None:
    """Fits what is asked for to all tables, with five seeds; one JSON line each."""
    with np.load(prepared) as arrays:
        tables = sorted({name.split("/")[0] for name in arrays.files})
        parts = {name: [arrays[f"{name}/{part}"] for part in PARTS] for name in tables}
    results = Path(prepared).with_suffix(".defaults.jsonl")
    done = [tuple(row[name] for name in KEYS) for row in kept(results)]
    for name in [recipe] if recipe else RECIPES:
        every = tuple(changes(name) | TRAINING)
        asked = every if names in ((), ("all",)) else names
        if unknown := set(asked) - set(every):
            sys.exit(f"{name} has no change {sorted(unknown)}; it has {every}")
        for change, table in itertools.product(asked, parts):
            for seed in SEEDS:
                key = (name, change, table, seed)
                if key not in done:
                    found = reached(parts[table], name, change, seed)
                    keep(results, dict(zip(KEYS, key, strict=True)) | found)
            jax.clear_caches()


def _mean(values: list[float], form: str = ".2f") -> str:
    """Mean and standard error."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):{form}} ± {error:.2f}" if values else ""


def _read(results: str) -> tuple[dict[Any, dict[str, Any]], list[str]]:
    rows = {tuple(row[name] for name in KEYS): row for row in kept(Path(results))}
    return rows, sorted({row["table"] for row in rows.values()})


def show(results: str) -> None:
    """Test log-likelihoods of recipes as they are, in nats: means and standard errors."""
    rows, tables = _read(results)
    print("| |" + "".join(f" {table} |" for table in tables))
    print("|---|" + "---|" * len(tables))
    for recipe in RECIPES:
        found = [[row["mean"] for key, row in rows.items() if key[:3] == (recipe, AS_IT_IS, table)]
                 for table in tables]  # fmt: skip
        print(f"| `{recipe}` | " + " | ".join(map(_mean, found)) + " |")


def gains(results: str, recipe: str = "") -> None:
    """Nats above the recipe as it is with the same seed, of test rows, and of validation rows.

    The last column is the mean over tables of the gain in validation, each clipped at 1.
    """
    rows, tables = _read(results)
    for name in [recipe] if recipe else RECIPES:
        print(f"| {name} |" + "".join(f" {table} |" for table in tables) + " validation |")
        print("|---|" + "---|" * (len(tables) + 1))
        for change in dict.fromkeys(key[1] for key in rows if key[0] == name):
            if change == AS_IT_IS:
                continue
            cells, validation = [], []
            for table in tables:
                pairs = [(rows[key], rows[name, AS_IT_IS, *key[2:]]) for key in rows
                         if key[:3] == (name, change, table)]  # fmt: skip
                cells.append(_mean([a["mean"] - b["mean"] for a, b in pairs], "+.2f"))
                if pairs:
                    gain = np.mean([a["validation"] - b["validation"] for a, b in pairs])
                    validation.append(np.clip(gain, -1, 1))
            print(f"| {change} | " + " | ".join(cells) + f" | {np.mean(validation):+.2f} |")
        print()


if __name__ == "__main__":
    commands = {"fit": fit, "show": show, "changes": gains}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
