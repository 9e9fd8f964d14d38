"""Couplings of flow matching: how straight paths are, and what a few steps make of them.

    python -m benchmarks.matching [STEPS] [TABLE]    # a text file or array of numbers, besides

Beside `torchcfm` where that is installed, with a network of the same width, the same number of
steps of as many points, and the better of two learning rates.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import linear_sum_assignment

import jflow
from jflow import data, flows, train
from jflow.functional import FixedGrid
from jflow.train.matching import continuous_layer

NAMES = ("two_moons", "eight_gaussians")
POINTS, TESTED, BATCH = 45_000, 10_000, 256


def straightness(density: jflow.Density, key: int, count: int = 2_000, steps: int = 64) -> float:
    """E integral of |f(x(t), t) - (x(1) - x(0))|^2 dt / D along paths of the flow."""
    h = 1.0 / steps

    def paths(flow: jflow.Flow) -> Array:
        layer = continuous_layer("straightness", flow)
        x = flow.sample_latents(jax.random.key(key), (count,))
        start, velocities = x, []
        for i in range(steps):
            f = lambda x, t: layer.velocity(x, jnp.full((), t, x.dtype))  # noqa: E731
            first = f(x, i * h)
            middle = f(x + h / 2 * first, (i + 0.5) * h)
            velocities.append(middle)
            x = x + h * middle
        return jnp.mean(jnp.square(jnp.stack(velocities) - (x - start)))

    return float(jax.jit(lambda v: density.flow.apply(v, method=paths))(density.variables))  # type: ignore[arg-type]


def wasserstein(a: np.ndarray, b: np.ndarray, size: int = 1_000) -> float:
    """The 2-Wasserstein distance, of exact assignments in batches."""
    costs = []
    for i in range(0, len(a), size):
        cost = np.square(a[i : i + size, None] - b[None, i : i + size]).sum(-1)
        costs.append(cost[linear_sum_assignment(cost)].mean())
    return float(np.sqrt(np.mean(costs)))


def fits(y: np.ndarray, steps: int) -> dict[str, tuple[jflow.Density, float]]:
    """The recipe fitted by each coupling, and how long it took."""
    flow = flows.flow_matching(y.shape[1])
    usual: Any = {
        "key": 0, "steps": steps, "batch_size": BATCH, "learning_rate": 1e-2,
        "evaluate_every": steps // 2, "progress": False,
    }  # fmt: skip
    paired = partial(train.FlowMatching, coupling=train.OptimalTransport())

    def reflow(first: jflow.Density) -> jflow.Density:
        teacher = first.with_solver(FixedGrid(16))
        return jflow.fit(flow, train.draw_pairs(teacher, 1, len(y)), **usual)[0]

    found: dict[str, tuple[jflow.Density, float]] = {}
    rows: dict[str, Callable[[], jflow.Density]] = {
        "independent": lambda: jflow.fit(flow, y, **usual)[0],
        "OptimalTransport": lambda: jflow.fit(flow, y, objective=paired, **usual)[0],
        "semidiscrete": lambda: jflow.fit(
            flow, train.semidiscrete_pairs(flow, y, 1, 4 * len(y)), **usual
        )[0],
        "reflow of the first": lambda: reflow(found["independent"][0]),
    }
    for name, fit in rows.items():
        begun = time.perf_counter()
        density = fit()
        found[name] = density, time.perf_counter() - begun
    return found


def of_torchcfm(y: np.ndarray, steps: int, exact: bool, rate: float) -> tuple[Any, float]:
    """Samples of four steps of Euler, and seconds of the fit."""
    torch: Any = import_module("torch")
    cfm: Any = import_module("torchcfm.conditional_flow_matching")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    scale, middle = y.std(0), y.mean(0)
    points = torch.tensor((y - middle) / scale, dtype=torch.float32)
    widths, layers = [y.shape[1] + 1, 128, 128, 128], []
    for a, b in pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.SiLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(128, y.shape[1]))
    kind: Any = "ExactOptimalTransportConditionalFlowMatcher" if exact else None
    matcher = getattr(cfm, kind or "ConditionalFlowMatcher")(sigma=0.0)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    begun = time.perf_counter()
    for _ in range(steps):
        x1 = points[torch.randint(len(points), (BATCH,))]
        t, x, velocity = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        loss = ((net(torch.cat([x, t[:, None]], 1)) - velocity) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falls.step()
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        x = torch.randn(TESTED, y.shape[1])
        for i in range(4):
            x = x + net(torch.cat([x, torch.full((TESTED, 1), i / 4)], 1)) / 4
    return x.numpy() * scale + middle, seconds


def table(name: str, y: np.ndarray, new: np.ndarray, steps: int) -> None:
    """Prints the rows of one data set."""
    unit = y.std(0)
    floor = wasserstein(y[: len(new)] / unit, new / unit)
    print(f"| {name} | other data | | {floor:.3f} | | |", flush=True)
    for coupling, (density, seconds) in fits(y, steps).items():
        drawn = [
            np.asarray(density.with_solver(FixedGrid(n, "euler")).sample(0, len(new))) / unit
            for n in (4, 1)
        ]
        four, one = (wasserstein(part, new / unit) for part in drawn)
        log_prob = np.mean(np.asarray(density.log_prob(new[:2_000])))
        print(
            f"| {name} | {coupling} | {straightness(density, 0):.4f} | {four:.3f} | {one:.3f} "
            f"| {log_prob:.3f} | {seconds:.0f} |",
            flush=True,
        )
    try:
        import_module("torchcfm")
    except ImportError:
        return
    for exact in (False, True):
        runs = [of_torchcfm(y, steps, exact, rate) for rate in (1e-3, 1e-2)]
        best, seconds = min(
            (wasserstein(drawn[: len(new)] / unit, new / unit), seconds) for drawn, seconds in runs
        )
        kind = "OptimalTransport" if exact else "independent"
        print(f"| {name} | torchcfm, {kind} | | {best:.3f} | | | {seconds:.0f} |", flush=True)


def main() -> None:
    """Prints a table."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    print(f"{steps} steps of {BATCH} points, one seed; in units of standard deviations.\n")
    print(
        "| data | coupling | straightness | W2 of 4 steps of Euler | of 1 step | log p, nats "
        "| fit, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in NAMES:
        toy = data.toy(name)
        y, new = (np.asarray(toy.sample(s, n)) for s, n in ((0, POINTS), (1, TESTED)))
        table(name, y, new, steps)
    if len(sys.argv) > 2:
        rows = np.load(sys.argv[2]) if sys.argv[2].endswith(".npy") else np.loadtxt(sys.argv[2])
        rows = np.random.default_rng(0).permutation(rows.astype(np.float32))
        cut = len(rows) // 10
        table("table", rows[cut:], rows[:cut], steps)


if __name__ == "__main__":
    main()
