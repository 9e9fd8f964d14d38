"""Test log-likelihoods on tables, at equal size, optimiser and steps, beside other libraries.

python -m benchmarks.tables prepare TABLES.npz PREPARED.npz NAME [NAME ...]
python -m benchmarks.tables fit LIBRARY PREPARED.npz [STEPS [SEED ...]]   appends to PREPARED.jsonl
python -m benchmarks.tables show PREPARED.jsonl

TABLES.npz has an array (N, D) for each NAME and, if it likes, a mask NAME__test0 (N,). LIBRARY is
jflow, flowjax, zuko or nflows; each needs only itself installed, so `fit` runs in an environment
of its own: python benchmarks/tables.py fit zuko PREPARED.npz.

All fit affine autoregressive flows (maf) and coupling spline flows (nsf): 5 layers, networks of
2x64, 8 bins on [-5, 5], Adam at 1e-3, batches of 256, and report the last parameters. Seeds (of
parameters, permutations and batches) make more difference than libraries do: give several.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LAYERS, HIDDEN, BINS, BOUND = 5, (64, 64), 8, 5.0
RATE, BATCH, STEPS = 1e-3, 256, 3000
KINDS = ("maf", "nsf")
Fitted = tuple[Callable[[np.ndarray], np.ndarray], float]  # log_prob, ms a step


def prepare(source: str, target: str, *names: str) -> None:
    """Standardised train and test parts of the tables, discrete columns dequantized."""
    from jflow import data

    arrays = {}
    with np.load(source) as tables:
        for name in names:
            mask = tables[f"{name}__test0"] if f"{name}__test0" in tables.files else 0.1
            table = data.table(tables[name], test=mask, discrete="dequantize")
            print(f"{name}: {table.train.shape[1]} columns, {len(table.train)} rows, "
                  f"constant {list(table.constant)}, discrete {list(table.discrete)}")  # fmt: skip
            arrays[f"{name}/train"] = np.concatenate([table.train, table.validation])
            arrays[f"{name}/test"] = table.test
    np.savez(target, **arrays)


class Run(NamedTuple):
    """What all libraries are given.

    Attributes:
      kind: "maf" or "nsf".
      train: (N, D).
      steps: of Adam.
      seed: of parameters, permutations and batches.
    """

    kind: str
    train: np.ndarray
    steps: int
    seed: int

    @property
    def batches(self) -> np.ndarray:
        """(steps, BATCH) indices."""
        rng = np.random.default_rng(self.seed)
        return rng.integers(len(self.train), size=(self.steps, BATCH))


def in_jax(params: Any, log_prob: Callable[..., Any], run: Run) -> Fitted:
    """Adam on a jittable log_prob(params, y)."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(RATE)

    @jax.jit
    def step(params: Any, state: Any, y: Any) -> Any:
        grads = jax.grad(lambda p: -jnp.mean(log_prob(p, y)))(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    state, start = optimizer.init(params), time.perf_counter()
    for i, index in enumerate(run.batches):
        params, state = step(params, state, run.train[index])
        if i == 9:
            start = time.perf_counter()
    jax.block_until_ready(params)
    score = jax.jit(lambda y: log_prob(params, y))
    return lambda y: np.asarray(score(y)), (time.perf_counter() - start) / (run.steps - 10) * 1e3


def fit_jflow(run: Run) -> Fitted:
    """The recipes of jflow, by the same loop."""
    import jax

    import jflow
    from jflow import flows

    features = run.train.shape[1]
    flow = (
        flows.maf(features, LAYERS, HIDDEN)
        if run.kind == "maf"
        else flows.nsf(features, LAYERS, BINS, HIDDEN, bound=BOUND)
    )
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
    if run.kind == "maf":
        flow = masked_autoregressive_flow(jax.random.key(run.seed), **options)
    else:
        spline = RationalQuadraticSpline(knots=BINS - 1, interval=BOUND)
        flow = coupling_flow(jax.random.key(run.seed), transformer=spline, **options)
    fixed = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
    params, rest = eqx.partition(flow, eqx.is_inexact_array, is_leaf=fixed)
    return in_jax(params, lambda p, y: eqx.combine(p, rest).log_prob(y), run)


def in_torch(module: Any, log_prob: Callable[..., Any], run: Run) -> Fitted:
    """Adam on a torch module."""
    import torch  # type: ignore[import-not-found]

    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)
    start = time.perf_counter()
    for i, index in enumerate(run.batches):
        optimizer.zero_grad(set_to_none=True)
        loss = -log_prob(torch.from_numpy(run.train[index])).mean()
        loss.backward()
        optimizer.step()
        if i == 9:
            start = time.perf_counter()
    seconds = (time.perf_counter() - start) / (run.steps - 10)

    def score(y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return log_prob(torch.from_numpy(y)).numpy()

    return score, seconds * 1e3


def fit_zuko(run: Run) -> Fitted:
    """zuko's flows of the same size."""
    from functools import partial

    import torch  # type: ignore[import-not-found]
    import zuko  # type: ignore[import-not-found]

    torch.manual_seed(run.seed)
    options: Any = {"features": run.train.shape[1], "transforms": LAYERS, "hidden_features": HIDDEN}
    if run.kind == "maf":
        flow = zuko.flows.MAF(**options)
    else:
        spline = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
        shapes = [(BINS,), (BINS,), (BINS - 1,)]
        flow = zuko.flows.NICE(univariate=spline, shapes=shapes, **options)
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
        if run.kind == "maf":
            parts.append(transforms.ReversePermutation(features))
            masked = transforms.MaskedAffineAutoregressiveTransform
            options: Any = {"num_blocks": len(HIDDEN) - 1, "use_residual_blocks": False}
            parts.append(masked(features=features, hidden_features=HIDDEN[0], **options))
        else:
            spline = transforms.PiecewiseRationalQuadraticCouplingTransform
            mask = (torch.arange(features) % 2 == i % 2).float()
            options = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
            parts.append(spline(mask=mask, transform_net_create_fn=MLP, **options))
    flow = Flow(transforms.CompositeTransform(parts), StandardNormal((features,)))
    return in_torch(flow, flow.log_prob, run)


def fit(library: str, prepared: str, steps: str = str(STEPS), *seeds: str) -> None:
    """Fits both kinds to every table, with every seed; one JSON line each."""
    fitters = {
        "jflow": fit_jflow, "flowjax": fit_flowjax, "zuko": fit_zuko, "nflows": fit_nflows,
    }  # fmt: skip
    with np.load(prepared) as arrays:
        names = sorted({name.split("/")[0] for name in arrays.files})
        parts = {name: (arrays[f"{name}/train"], arrays[f"{name}/test"]) for name in names}
    for seed, (name, (train, test)), kind in itertools.product(
        map(int, seeds or ("0",)), parts.items(), KINDS
    ):
        row = {"table": name, "kind": kind, "library": library, "seed": seed}
        try:
            score, ms = fitters[library](Run(kind, train, int(steps), seed))
            log_prob = score(test).astype(np.float64)
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {error}"
        else:
            row |= {"mean": float(log_prob.mean()), "ms": ms}
        print(row, flush=True)
        with Path(prepared).with_suffix(".jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def show(results: str) -> None:
    """A table: test log-likelihood in nats, mean and standard error over seeds, and ms a step."""
    rows = [json.loads(line) for line in Path(results).read_text().splitlines()]
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
    ms = min(row["ms"] for row in rows if "ms" in row)
    return f"{np.mean(means):.2f}{error} ({ms:.1f} ms) {failed}".strip()


if __name__ == "__main__":
    commands = {"prepare": prepare, "fit": fit, "show": show}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
