"""Test log-likelihoods on tables: each library's own recipes, defaults and loop, in equal time.

python -m benchmarks.own LIBRARY PREPARED.npz SECONDS SEED TABLE [TABLE ...]
python -m benchmarks.own show PREPARED-own.jsonl

PREPARED.npz is that of `benchmarks.tables prepare`; results are appended to PREPARED-own.jsonl, and
what is there already is passed over. LIBRARY is jflow, flowjax, zuko or nflows; each
needs only itself installed: python benchmarks/own.py zuko ... The kinds are those of
`benchmarks.tables`, where the library has a recipe. SECONDS include compilations.

jflow and flowjax have a loop of their own, `fit` and `fit_to_data`: how many steps or epochs are
done in the time is measured first. zuko and nflows have none: theirs is that of their examples,
Adam at 1e-3 in batches of 256, with the parameters that did best in validation, scored after each
epoch, so that none is worse off.
"""

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

if __package__:
    from benchmarks.tables import KEYS, PARTS, keep, kept, show
else:
    from tables import KEYS, PARTS, keep, kept, show  # type: ignore[import-not-found, no-redef]

RECIPES: dict[str, tuple[str, ...]] = {
    "jflow": ("maf", "nsf", "nsf_autoregressive"),
    "flowjax": ("maf", "nsf", "nsf_autoregressive"),
    "zuko": ("maf", "nsf_autoregressive"),
    "nflows": ("maf",),
}
Score = Callable[[np.ndarray], np.ndarray]


class Task(NamedTuple):
    """What all libraries are given: a kind of flow, rows (N, D) and (M, D), time, and a seed."""

    kind: str
    train: np.ndarray
    validation: np.ndarray
    seconds: float
    seed: int


def affordable(run: Callable[[int], Any], few: int, seconds: float) -> int:
    """How many units of `run`, steps or epochs, fit into the time, its compilations included."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        run(count)
        return time.perf_counter() - start

    first, again, more = timed(few), timed(few), 4 * few
    while (added := timed(more) - again) < seconds / 20 and more < 1000 * few:
        more *= 4
    return max(1, few + int((seconds - first) * (more - few) / max(added, 1e-3)))


def fit_jflow(task: Task) -> Score:
    """`flows.maf` and `flows.nsf` by `jflow.fit`."""
    import jflow
    from jflow import flows

    features = task.train.shape[1]
    autoregressive = task.kind == "nsf_autoregressive"
    flow = (
        flows.maf(features)
        if task.kind == "maf"
        else flows.nsf(features, autoregressive=autoregressive)
    )
    everything = np.concatenate([task.train, task.validation])

    def run(steps: int) -> Any:
        return jflow.fit(flow, everything, key=task.seed, steps=steps, progress=False)

    density, _ = run(affordable(run, 100, task.seconds))
    return lambda y: np.asarray(density.log_prob(y))


def fit_flowjax(task: Task) -> Score:
    """flowjax's `masked_autoregressive_flow` and `coupling_flow` by `fit_to_data`."""
    import jax
    import jax.numpy as jnp
    from flowjax.bijections import RationalQuadraticSpline  # type: ignore[import-not-found]
    from flowjax.distributions import Normal  # type: ignore[import-not-found]
    from flowjax.flows import (  # type: ignore[import-not-found]
        coupling_flow,
        masked_autoregressive_flow,
    )
    from flowjax.train import fit_to_data  # type: ignore[import-not-found]

    options: Any = {"base_dist": Normal(jnp.zeros(task.train.shape[1]))}
    if task.kind != "maf":
        options["transformer"] = RationalQuadraticSpline(knots=8, interval=4)
    make = coupling_flow if task.kind == "nsf" else masked_autoregressive_flow
    flow = make(jax.random.key(task.seed), **options)
    everything = jnp.concatenate([task.train, task.validation])

    def run(epochs: int) -> Any:
        options: Any = {"max_epochs": epochs, "show_progress": False}
        return fit_to_data(jax.random.key(task.seed), flow, everything, **options)[0]

    fitted = run(affordable(run, 1, task.seconds))
    return lambda y: np.asarray(jax.jit(lambda y: fitted.log_prob(y))(y))


def fit_zuko(task: Task) -> Score:
    """`zuko.flows.MAF` and `NSF`."""
    import torch  # type: ignore[import-not-found]
    import zuko  # type: ignore[import-not-found]

    torch.manual_seed(task.seed)
    flow = (zuko.flows.MAF if task.kind == "maf" else zuko.flows.NSF)(task.train.shape[1])
    return in_torch(flow, lambda y: flow().log_prob(y), task)


def fit_nflows(task: Task) -> Score:
    """`MaskedAutoregressiveFlow` of nflows; it has no default sizes, hence those of the others."""
    import torch  # type: ignore[import-not-found]
    from nflows.flows import MaskedAutoregressiveFlow  # type: ignore[import-not-found]

    torch.manual_seed(task.seed)
    flow = MaskedAutoregressiveFlow(task.train.shape[1], 64, 5, 2)
    return in_torch(flow, flow.log_prob, task)


def in_torch(module: Any, log_prob: Callable[..., Any], task: Task) -> Score:
    """Adam on a torch module until the time is over."""
    import torch  # type: ignore[import-not-found]

    data, held_out = torch.from_numpy(task.train), torch.from_numpy(task.validation)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    best, kept, end = -np.inf, module.state_dict(), time.perf_counter() + task.seconds

    def score(y: Any) -> Any:
        module.eval()
        with torch.no_grad():
            return log_prob(y)

    while time.perf_counter() < end:
        module.train()
        for y in data[torch.randperm(len(data))].split(256):
            optimizer.zero_grad()
            (-log_prob(y).mean()).backward()
            optimizer.step()
        if (value := float(score(held_out).mean())) > best:
            best, kept = value, {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(kept)
    return lambda y: score(torch.from_numpy(y)).numpy()


def main(library: str, prepared: str, seconds: str, seed: str, *tables: str) -> None:
    """Fits what is missing, one JSON line each."""
    fitters = {
        "jflow": fit_jflow, "flowjax": fit_flowjax, "zuko": fit_zuko, "nflows": fit_nflows,
    }  # fmt: skip
    results = Path(prepared).with_name(f"{Path(prepared).stem}-own.jsonl")
    done = [{name: row[name] for name in KEYS} for row in kept(results)]
    with np.load(prepared) as arrays:
        parts = {name: [arrays[f"{name}/{part}"] for part in PARTS] for name in tables}
    for (name, (train, validation, test)), kind in itertools.product(
        parts.items(), RECIPES[library]
    ):
        row: dict[str, Any] = dict(zip(KEYS, (name, kind, library, int(seed)), strict=True))
        if row in done:
            continue
        start = time.perf_counter()
        score = fitters[library](Task(kind, train, validation, float(seconds), int(seed)))
        row |= {"mean": float(score(test).astype(np.float64).mean())}
        row |= {"seconds": time.perf_counter() - start}
        keep(results, row)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if sys.argv[1] == "show":
        show(sys.argv[2])
    else:
        main(*sys.argv[1:])
