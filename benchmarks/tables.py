"""Test log-likelihoods on tables, at equal size, optimiser and steps, beside other libraries.

python -m benchmarks.tables prepare TABLES.npz PREPARED.npz NAME [NAME ...]
python -m benchmarks.tables fit LIBRARY PREPARED.npz [STEPS [SEED ...]]   appends to PREPARED.jsonl
python -m benchmarks.tables show PREPARED.jsonl

`fit` passes over what PREPARED.jsonl has already: it may be stopped, and goes on where it was.

TABLES.npz has an array (N, D) for each NAME and, if it likes, a mask NAME__test0 (N,). LIBRARY is
jflow, flowjax, zuko or nflows; each needs only itself installed, so `fit` runs in an environment
of its own: python benchmarks/tables.py fit zuko PREPARED.npz.

All fit affine autoregressive flows (maf) and spline flows, coupling (nsf) and autoregressive
(nsf_autoregressive): 5 layers, networks of 2x64, 8 bins on [-5, 5], Adam at 1e-3,
batches of 256. Every 100 steps the same validation rows are scored; the parameters that did best on
them are reported, and after ten times without a better one training stops. Seeds (of parameters,
permutations and batches) make more difference than libraries do: give several.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LAYERS, HIDDEN, BINS, BOUND = 5, (64, 64), 8, 5.0
RATE, BATCH, STEPS = 1e-3, 256, 2000
EVERY, PATIENCE = 100, 10
KINDS = ("maf", "nsf", "nsf_autoregressive")
KEYS = ("table", "kind", "library", "seed")
PARTS = ("train", "validation", "test")
Fitted = tuple[Callable[[np.ndarray], np.ndarray], float]  # log_prob, ms a step


def prepare(source: str, target: str, *names: str) -> None:
    """Standardised parts of the tables, discrete columns dequantized."""
    from jflow import data

    arrays = {}
    with np.load(source) as tables:
        for name in names:
            mask = tables[f"{name}__test0"] if f"{name}__test0" in tables.files else 0.1
            table = data.table(tables[name], test=mask, bend=False)
            print(f"{name}: {table.train.shape[1]} columns, {len(table.train)} rows, "
                  f"constant {list(table.constant)}, discrete {list(table.discrete)}")  # fmt: skip
            arrays |= {f"{name}/{part}": getattr(table, part) for part in PARTS}
    np.savez(target, **arrays)


class Run(NamedTuple):
    """What all libraries are given.

    Attributes:
      kind: of `KINDS`.
      train: (N, D).
      validation: (M, D).
      steps: of Adam, at most.
      seed: of parameters, permutations and batches.
    """

    kind: str
    train: np.ndarray
    validation: np.ndarray
    steps: int
    seed: int

    @property
    def batches(self) -> np.ndarray:
        """(steps, BATCH) indices."""
        rng = np.random.default_rng(self.seed)
        return rng.integers(len(self.train), size=(self.steps, BATCH))


def stopped_early(run: Run, advance: Callable[[np.ndarray], None], score: Callable[[], float],
                  keep: Callable[[], None]) -> float:  # fmt: skip
    """Takes steps while validation gets better; returns the milliseconds of one, the first aside.

    Args:
      run: what is given.
      advance: takes steps on batches (EVERY, BATCH, D).
      score: the mean log-likelihood of the validation rows.
      keep: remembers the parameters.
    """
    best, misses, seconds, order = -np.inf, 0, [], run.batches
    for first in range(0, run.steps, EVERY):
        start = time.perf_counter()
        advance(run.train[order[first : first + EVERY]])
        seconds.append(time.perf_counter() - start)
        value = score()
        if value > best:
            best, misses = value, 0
            keep()
        else:
            misses += 1
        if misses == PATIENCE:
            break
    return 1e3 * float(np.median(seconds[1:] or seconds)) / EVERY


def in_jax(params: Any, log_prob: Callable[..., Any], run: Run) -> Fitted:
    """Adam on a jittable log_prob(params, y)."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(RATE)

    def step(carry: Any, y: Any) -> Any:
        params, state = carry
        grads = jax.grad(lambda p: -jnp.mean(log_prob(p, y)))(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    steps = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches)[0])
    score = jax.jit(log_prob)
    now: dict[str, Any] = {"carry": (params, optimizer.init(params)), "best": params}
    ms = stopped_early(
        run,
        lambda batches: now.update(carry=jax.block_until_ready(steps(now["carry"], batches))),
        lambda: float(jnp.mean(score(now["carry"][0], run.validation))),
        lambda: now.update(best=now["carry"][0]),
    )
    return lambda y: np.asarray(score(now["best"], y)), ms


def fit_jflow(run: Run) -> Fitted:
    """The recipes of jflow, by the same loop."""
    import jax

    import jflow
    from jflow import flows

    features = run.train.shape[1]
    if run.kind == "maf":
        flow = flows.maf(features, LAYERS, HIDDEN)
    else:
        options: Any = {"bound": BOUND, "autoregressive": run.kind == "nsf_autoregressive"}
        flow = flows.nsf(features, LAYERS, BINS, HIDDEN, **options)
    variables = jflow.init(flow, jax.random.key(run.seed), run.train[:BATCH])
    constants = {name: value for name, value in variables.items() if name != "params"}

    def log_prob(params: Any, y: Any) -> Any:
        return flow.apply({"params": params, **constants}, y, method="log_prob")

    return in_jax(variables["params"], log_prob, run)


def fit_flowjax(run: Run) -> Fitted:
    """flowjax's flows of the same size."""
    import equinox as eqx  # type: ignore[import-not-found]
    import jax
    import jax.numpy as jnp
    import paramax  # type: ignore[import-not-found]
    from flowjax.bijections import RationalQuadraticSpline  # type: ignore[import-not-found]
    from flowjax.distributions import Normal  # type: ignore[import-not-found]
    from flowjax.flows import (  # type: ignore[import-not-found]
        coupling_flow,
        masked_autoregressive_flow,
    )

    options: Any = {
        "base_dist": paramax.non_trainable(Normal(jnp.zeros(run.train.shape[1]))),
        "flow_layers": LAYERS,
        "nn_width": HIDDEN[0],
        "nn_depth": len(HIDDEN),
    }
    spline = RationalQuadraticSpline(knots=BINS - 1, interval=BOUND)
    if run.kind != "maf":
        options["transformer"] = spline
    make = coupling_flow if run.kind == "nsf" else masked_autoregressive_flow
    flow = make(jax.random.key(run.seed), **options)
    fixed = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
    params, rest = eqx.partition(flow, eqx.is_inexact_array, is_leaf=fixed)
    return in_jax(params, lambda p, y: eqx.combine(p, rest).log_prob(y), run)


def in_torch(module: Any, log_prob: Callable[..., Any], run: Run) -> Fitted:
    """Adam on a torch module."""
    import torch  # type: ignore[import-not-found]

    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)
    best: dict[str, Any] = {}

    def advance(batches: np.ndarray) -> None:
        module.train()
        for y in torch.from_numpy(batches):
            optimizer.zero_grad(set_to_none=True)
            (-log_prob(y).mean()).backward()
            optimizer.step()

    def score(y: np.ndarray) -> np.ndarray:
        module.eval()
        with torch.no_grad():
            return log_prob(torch.from_numpy(y)).numpy()

    def keep() -> None:
        best.update({name: value.clone() for name, value in module.state_dict().items()})

    ms = stopped_early(run, advance, lambda: float(score(run.validation).mean()), keep)
    module.load_state_dict(best)
    return score, ms


def fit_zuko(run: Run) -> Fitted:
    """zuko's flows of the same size."""
    import torch  # type: ignore[import-not-found]
    import zuko  # type: ignore[import-not-found]

    torch.manual_seed(run.seed)
    options: Any = {"features": run.train.shape[1], "transforms": LAYERS, "hidden_features": HIDDEN}
    if run.kind != "maf":
        options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
        options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
    flow = (zuko.flows.NICE if run.kind == "nsf" else zuko.flows.MAF)(**options)
    return in_torch(flow, lambda y: flow().log_prob(y), run)


def fit_nflows(run: Run) -> Fitted:
    """The flows of nflows of the same size."""
    import torch  # type: ignore[import-not-found]
    from nflows import transforms  # type: ignore[import-not-found]
    from nflows.distributions.normal import StandardNormal  # type: ignore[import-not-found]
    from nflows.flows.base import Flow  # type: ignore[import-not-found]

    torch.manual_seed(run.seed)
    features = run.train.shape[1]

    class MLP(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            widths = (inputs, *HIDDEN)
            layers: list[Any] = []
            for a, b in itertools.pairwise(widths):
                layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
            self.net = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], outputs))

        def forward(self, x: Any, context: Any = None) -> Any:
            return self.net(x)

    parts = []
    for i in range(LAYERS):
        splines: Any = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        if run.kind == "nsf":
            mask = (torch.arange(features) % 2 == i % 2).float()
            coupling = transforms.PiecewiseRationalQuadraticCouplingTransform
            parts.append(coupling(mask=mask, transform_net_create_fn=MLP, **splines))
            continue
        parts.append(transforms.ReversePermutation(features))
        masked: Any = transforms.MaskedAffineAutoregressiveTransform
        if run.kind == "nsf_autoregressive":
            spline = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            masked = partial(spline, **splines)
        options: Any = {"num_blocks": len(HIDDEN) - 1, "use_residual_blocks": False}
        parts.append(masked(features=features, hidden_features=HIDDEN[0], **options))
    flow = Flow(transforms.CompositeTransform(parts), StandardNormal((features,)))
    return in_torch(flow, flow.log_prob, run)


def kept(results: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if there is no file."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def keep(results: Path, row: dict[str, Any]) -> None:
    """Prints a row and appends it."""
    print(row, flush=True)
    with results.open("a") as file:
        file.write(json.dumps(row) + "\n")


def fit(library: str, prepared: str, steps: str = str(STEPS), *seeds: str) -> None:
    """Fits every kind to every table, with every seed; one JSON line each."""
    fitters = {
        "jflow": fit_jflow, "flowjax": fit_flowjax, "zuko": fit_zuko, "nflows": fit_nflows,
    }  # fmt: skip
    with np.load(prepared) as arrays:
        names = sorted({name.split("/")[0] for name in arrays.files})
        parts = {name: [arrays[f"{name}/{part}"] for part in PARTS] for name in names}
    results = Path(prepared).with_suffix(".jsonl")
    done = [{name: row[name] for name in KEYS} for row in kept(results)]
    for seed, (name, (train, validation, test)), kind in itertools.product(
        map(int, seeds or ("0",)), parts.items(), KINDS
    ):
        row: dict[str, Any] = dict(zip(KEYS, (name, kind, library, seed), strict=True))
        if row in done:
            continue
        try:
            score, ms = fitters[library](Run(kind, train, validation, int(steps), seed))
            log_prob = score(test).astype(np.float64)
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {error}"
        else:
            row |= {"mean": float(log_prob.mean()), "ms": ms}
        keep(results, row)


def show(results: str) -> None:
    """A table: test log-likelihood in nats, mean and standard error over seeds.

    The milliseconds of a step stay in the file: they mean something if nothing else was running.
    """
    rows = kept(Path(results))
    libraries = sorted({row["library"] for row in rows}, key=lambda name: name != "jflow")
    print("| table | flow |" + "".join(f" {library} |" for library in libraries))
    print("|---|---|" + "---|" * len(libraries))
    for table, kind in sorted({(row["table"], row["kind"]) for row in rows}):
        found = [row for row in rows if (row["table"], row["kind"]) == (table, kind)]
        cells = [_cell([row for row in found if row["library"] == name]) for name in libraries]
        print(f"| {table} | {kind} | " + " | ".join(cells) + " |")


def _cell(rows: list[dict[str, Any]]) -> str:
    means = [row["mean"] for row in rows if "mean" in row]
    failed = f"{len(rows) - len(means)} of {len(rows)} failed" if len(means) < len(rows) else ""
    if not means:
        return failed
    error = f" +- {np.std(means, ddof=1) / len(means) ** 0.5:.2f}" if len(means) > 1 else ""
    return f"{np.mean(means):.2f}{error} {failed}".strip()


if __name__ == "__main__":
    commands = {"prepare": prepare, "fit": fit, "show": show}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
