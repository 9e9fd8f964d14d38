"""Residual flows.

python -m benchmarks.residual [inverse] [memory] [time] [variance] [--normflows PYTHON]

inverse: the bounds reached, and in how many iterations. memory: XLA's temporary bytes of a train
step. time: a train step; with PYTHON, the interpreter of an environment that has normflows, in
turn with one of theirs (benchmarks/peers/normflows_residual.py). variance: errors of all
estimators of traces and log-determinants at equal numbers of products (ten minutes).
"""

import argparse
import math
import subprocess
import time as clock
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jflow
from benchmarks.timing import print_table
from jflow import bijectors as jb
from jflow import functional as jf
from jflow import nets
from jflow.functional.sharding import Placement
from jflow.nets import lipschitz_layers
from jflow.train import Batch, MaximumLikelihood, gradient_step
from jflow.train.steps import advance

BUDGET = 96  # products
BLOCKS, HIDDEN, BATCH, COEFFICIENT = 16, (128, 128, 128), 256, 0.98
PEER = Path(__file__).parent / "peers" / "normflows_residual.py"


def rotation(size: int) -> jax.Array:
    """The worst case: all singular values at the bound."""
    return COEFFICIENT * jax.random.orthogonal(jax.random.key(0), size)


def decaying(size: int) -> jax.Array:
    """Singular values 1, 1/2, 1/3, ... times the bound."""
    left, right = jax.random.orthogonal(jax.random.key(0), size, (2,))
    return COEFFICIENT * left @ jnp.diag(1.0 / jnp.arange(1.0, size + 1)) @ right


def data(size: int, rows: int) -> jax.Array:
    """What is fitted: a few factors, bent, and noise."""
    keys = jax.random.split(jax.random.key(0), 3)
    factors = jax.random.normal(keys[0], (rows, max(2, size // 8)))
    mix = jax.random.normal(keys[1], (factors.shape[1], size))
    return jnp.tanh(factors @ mix) + 0.1 * jax.random.normal(keys[2], (rows, size))


def trained(size: int) -> jax.Array:
    """g's Jacobian at a data point, for one of four blocks fitted to `data`."""
    block = jb.Residual(nets.LipschitzMLP((128, 128)))
    flow = jflow.Flow(
        jb.Chain(tuple(part for _ in range(4) for part in (jb.ActNorm(), block.clone()))), (size,)
    )
    y = data(size, 4096)
    density, _ = jflow.fit(flow, y, key=jax.random.key(1), steps=1000, progress=False)
    found = density.variables["params"]["bijector"]["bijectors_7"]["net"]
    lipschitz = density.variables["lipschitz"]["bijector"]["bijectors_7"]["net"]
    variables = {"params": {"net": found}, "lipschitz": {"net": lipschitz}}
    x = y[0]
    move = lambda x: block.apply(  # noqa: E731
        variables, x, method="inverse", rngs={"noise": jax.random.key(0)}
    )
    return jax.jacobian(move)(x) - jnp.eye(size)


def hutchinson(distribution: Any) -> Callable[..., jf.Estimated]:
    """With so many products."""
    return lambda p, x, k, n: jf.hutchinson(p, x, k, probes=n, distribution=distribution)


TRACES: dict[str, Callable[..., jf.Estimated]] = {
    "Hutchinson, Rademacher": hutchinson("rademacher"),
    "Hutchinson, Gaussian": hutchinson("gaussian"),
    "Hutchinson, spherical": hutchinson("spherical"),
    "Hutch++": lambda p, x, k, n: jf.hutch_pp(p, x, k, products=n),
    "XTrace": lambda p, x, k, n: jf.xtrace(p, x, k, products=n),
}
LOG_DETS: dict[str, jf.RussianRoulette | jf.PowerSeries] = {
    "Logarithmic(0.98), 0 exact": jf.RussianRoulette(exact_terms=0),
    "Logarithmic(0.98), 1 exact": jf.RussianRoulette(),
    "Logarithmic(0.98), 2 exact": jf.RussianRoulette(exact_terms=2),
    "Logarithmic(0.98), Gaussian": jf.RussianRoulette(distribution="gaussian"),
    "Logarithmic(0.98), spherical": jf.RussianRoulette(distribution="spherical"),
    "Logarithmic(0.92), 1 exact": jf.RussianRoulette(jf.Logarithmic(0.92)),
    "Geometric(0.98), 1 exact": jf.RussianRoulette(jf.Geometric(0.98)),
    "Geometric(0.92), 1 exact": jf.RussianRoulette(jf.Geometric(0.92)),
    "Geometric(0.5), 1 exact": jf.RussianRoulette(jf.Geometric(0.5)),
    "Poisson(2), 2 exact": jf.RussianRoulette(jf.Poisson(2.0), 2),
    "Poisson(2), 10 exact": jf.RussianRoulette(jf.Poisson(2.0), 10),
    "PowerSeries(2)": jf.PowerSeries(2),
    "PowerSeries(5)": jf.PowerSeries(5),
    "PowerSeries(10)": jf.PowerSeries(10),
}


def trace_errors(matrix: jax.Array, draws: int = 2000) -> dict[str, str]:
    """Root mean square errors of the trace from a quarter of D products, and from half."""
    size, exact = len(matrix), jnp.trace(matrix)
    keys, cells = jax.random.split(jax.random.key(3), draws), {}
    for name, estimate in TRACES.items():
        errors = []
        for products in (size // 4, size // 2):

            def one(key: jax.Array, products: int = products, estimate: Any = estimate) -> Any:
                return estimate(lambda v: matrix @ v, jnp.zeros(size), key, products).mean

            found = jax.jit(lambda keys, one=one: jax.lax.map(one, keys, batch_size=100))(keys)
            errors.append(f"{math.sqrt(jnp.mean(jnp.square(found - exact))):.3g}")
        cells[name] = " / ".join(errors)
    return cells


def log_det_errors(matrix: jax.Array, draws: int = 4000) -> dict[str, str]:
    """Errors of log|det(I + s J)| and of its derivative by s, at s = 1, for `BUDGET` products.

    sqrt(variance x products / budget + bias^2): the mean of as many estimates as that allows.
    """
    size = len(matrix)
    radius = float(np.abs(np.linalg.eigvals(np.asarray(matrix, np.float64))).max())
    whole = np.asarray(matrix, np.float64)
    exact = np.array([
        np.linalg.slogdet(np.eye(size) + whole)[1],
        np.trace(np.linalg.solve(np.eye(size) + whole, whole)),
    ])  # fmt: skip
    keys, cells = jax.random.split(jax.random.key(4), draws), {}
    for name, estimator in LOG_DETS.items():

        def one(key: jax.Array, estimator: Any = estimator) -> tuple[jax.Array, jax.Array]:
            def value(s: jax.Array) -> jax.Array:
                g = lambda x: s * (matrix @ x)  # noqa: E731
                return estimator.value_and_log_det(g, jnp.zeros(size), key)[1]

            return jax.value_and_grad(value)(jnp.ones(()))

        found = jax.jit(lambda keys, one=one: jax.lax.map(one, keys, batch_size=100))(keys)
        found = np.asarray(jnp.stack(found), np.float64)
        random = isinstance(estimator, jf.RussianRoulette)
        products = estimator.expected_terms if random else estimator.terms
        bias = np.zeros(2) if random else found.mean(1) - exact
        error = np.sqrt(found.var(1) * products / BUDGET + bias**2)
        mark = "" if estimator.has_finite_variance(radius) else " (infinite)"
        cells[name] = " / ".join(f"{e:.3g}" for e in error) + mark
    return cells


def variance() -> None:
    """Prints both tables, by case and D."""
    cases = {
        f"{case.__name__} {size}": case(size)
        for case in (rotation, decaying, trained)
        for size in (16, 64, 256)
    }
    for title, errors in (
        ("rms error of tr J, D / 4 and D / 2 products", trace_errors),
        (f"rms error of log|det(I + J)| / of its gradient, {BUDGET} products", log_det_errors),
    ):
        columns = {case: errors(matrix) for case, matrix in cases.items()}
        print(f"\n| {title} | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
        for name in next(iter(columns.values())):
            print(f"| {name} | " + " | ".join(cell[name] for cell in columns.values()) + " |")


def train_step(size: int, estimator: jf.LogDetEstimator, memory: Any = "remat") -> Any:
    """`fit`'s compiled loop, and what one step of it is called with."""
    block = jb.Residual(nets.LipschitzMLP(HIDDEN, coefficient=COEFFICIENT), estimator)
    flow = jflow.Flow(jb.Repeat(jb.Chain((jb.ActNorm(), block)), BLOCKS, memory), (size,))
    y = data(size, BATCH)
    variables = jax.tree.map(jnp.array, jflow.init(flow, jax.random.key(1), y))
    step = gradient_step(MaximumLikelihood(flow), optax.adam(1e-3))
    state = Placement().build(step.start, variables)
    rest = Batch((y, None)), jnp.arange(BATCH)[None], jnp.asarray(1), jax.random.key(2)
    return partial(advance, step=step), state, rest


class Peer:
    """A process that takes steps when told to, and says how long they took."""

    def __init__(self, python: str, size: int) -> None:
        self.python = python
        self.process = subprocess.Popen(
            [python, str(PEER), str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, steps: int) -> float:
        """Seconds for so many steps."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{PEER.name} ended early; is normflows installed for {self.python}?")
        return float(answer)


def ours(size: int, estimator: jf.LogDetEstimator, tolerance: float) -> Callable[[int], float]:
    """The same of jflow, one step a call."""
    # Without a tolerance, all five power iterations are made.
    with mock.patch.object(lipschitz_layers, "_TRAINING_TOLERANCE", tolerance):
        jax.clear_caches()
        step, state, rest = train_step(size, estimator)
        compiled = advance.lower(state, *rest, **step.keywords).compile()
    states = [state]

    def take(steps: int) -> float:
        start = clock.perf_counter()
        for _ in range(steps):
            states[0], _ = compiled(states[0], *rest)
        jax.block_until_ready(states[0])
        return clock.perf_counter() - start

    return take


def time(python: str | None = None, rounds: int = 15, steps: int = 10) -> None:
    """A train step with Adam: ours, and normflows' with the same widths, terms and iterations."""
    print(f"{BLOCKS} blocks of {HIDDEN}, batch {BATCH}, ms a step (means of {steps})")
    # normflows stops after 2 + 2 terms on average (its geometric law begins at 1).
    same = jf.RussianRoulette(jf.Geometric(0.5), exact_terms=3)
    recipe = jf.RussianRoulette(jf.Logarithmic(COEFFICIENT ** (len(HIDDEN) + 1)))
    for size in (2, 64):
        runs: dict[str, Callable[[int], float]] = {}
        if python is not None:
            runs["normflows, 4 terms"] = Peer(python, size)
        runs["jflow, 4 terms, 5 iterations"] = ours(size, same, 0.0)
        runs["jflow, 4 terms"] = ours(size, same, 1e-3)
        runs["jflow, as the recipe"] = ours(size, recipe if size > 3 else jf.ExactLogDet(), 1e-3)
        for program in runs.values():
            program(3)
        seconds: dict[str, list] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, program in runs.items():
                seconds[name].append(program(steps) / steps)
        print(f"D = {size}")
        print_table(seconds, against="jflow, 4 terms, 5 iterations")


def memory() -> None:
    """Temporary bytes of a train step, by the number of terms."""
    for size in (2, 64):
        for kind in ("remat", "store"):
            for terms in (4, 64):
                step, state, rest = train_step(size, jf.PowerSeries(terms), kind)
                analysis: Any = (
                    advance.lower(state, *rest, **step.keywords).compile().memory_analysis()
                )
                used = analysis.temp_size_in_bytes / 1e6
                print(f"D = {size:2d}, {kind}, {terms:2d} terms: {used:6.2f} MB", flush=True)


def inverse(size: int = 64, points: int = 256) -> None:
    """g(x) = tanh(x) W with W orthogonal up to L, its bound: certified error, and iterations."""
    w = jax.random.orthogonal(jax.random.key(0), size)
    y = jax.random.normal(jax.random.key(1), (points, size))
    for dtype in ("float32", "float64"):
        for lipschitz in (0.9, 0.98):
            for anderson in (0, 4):
                with jax.enable_x64(dtype == "float64"):
                    found = jf.invert_residual(
                        lambda w, x: jnp.tanh(x) @ w,
                        lipschitz * w.astype(dtype),
                        y.astype(dtype),
                        lipschitz=lipschitz,
                        anderson=anderson,
                    )
                    bound = float(found.bound.max())
                kind = f"Anderson({anderson})" if anderson else "Banach"
                print(f"{dtype}, L = {lipschitz}, {kind}: bound {bound:.1e}, "
                      f"{int(found.iterations)} iterations")  # fmt: skip


if __name__ == "__main__":
    parts: dict[str, Callable[[], None]] = {
        "inverse": inverse, "memory": memory, "time": lambda: time(options.normflows),
        "variance": variance,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description="Residual flows.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}; or all")
    parser.add_argument("--normflows", metavar="PYTHON", help="of an environment with normflows")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown: {', '.join(unknown)}")
    for part in options.parts or parts:
        parts[part]()
