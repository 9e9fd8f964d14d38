"""Continuous flows of 2-D densities: divergence from the truth, cost of a solve, error of log p.

    python -m benchmarks.continuous [STEPS]    # fits of so many steps
    python -m benchmarks.continuous train      # a step of training, beside Diffrax

Each prints a table.
"""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jflow
from jflow import bijectors as jb
from jflow import data, flows, nets
from jflow.functional import FixedGrid

NAMES = ("two_moons", "eight_gaussians")
RECIPES = {"ffjord": flows.ffjord, "rnode": flows.rnode}


def row(name: str, recipe: str, steps: int) -> str:
    """One fit to 20,000 points, measured on 5,000 others."""
    toy = data.toy(name)
    y, new = (np.asarray(toy.sample(seed, count)) for seed, count in ((0, 20_000), (1, 5_000)))
    begun = time.perf_counter()
    density, _ = jflow.fit(
        RECIPES[recipe](2), y, key=0, steps=steps, learning_rate=1e-2, evaluate_every=steps // 2,
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    found = density.log_prob_estimate(new, 0)
    gap = np.asarray(toy.log_prob(new)) - np.asarray(found.mean)
    _, told = density.flow.apply(density.variables, new, mutable=["solver"])
    spent = int(jax.tree.leaves(told["solver"]["bijector"]["bijectors_1"]["evaluations"])[0])
    with jax.enable_x64(True):
        exact = density.log_prob(new.astype(np.float64))
    error = np.abs(np.asarray(found.mean, np.float64) - np.asarray(exact))
    held = np.mean(np.asarray(found.solver_error) >= error)
    return (
        f"| {name} | `{recipe}` | {gap.mean():.3f} ± {gap.std() / np.sqrt(len(gap)):.3f} "
        f"| {seconds:.0f} | {spent} | {np.median(error):.1e} | {error.max():.1e} | {held:.1%} |"
    )


def train_steps() -> None:
    """Value and gradient of the mean log p of 256 points, beside Diffrax's adaptive solve of it."""
    import diffrax

    y = jnp.asarray(data.toy("two_moons").sample(0, 256))
    net = nets.MLP((64, 64, 64), activation="tanh")
    density, _ = jflow.fit(
        jflow.Flow(jb.Continuous(net), (2,)), y, key=0, steps=300, batch_size=64,
        learning_rate=1e-2, validation=None, progress=False,
    )  # fmt: skip
    variables = density.variables
    with jax.enable_x64(True):
        exact = np.asarray(density.log_prob(np.asarray(y, np.float64)))

    def ours(solver: FixedGrid) -> Any:
        flow = density.flow.clone(bijector=jb.Continuous(net, solver=solver))

        def log_prob(variables: Any, y: Array) -> Array:
            return flow.apply(variables, y, method="log_prob", mutable=["losses"])[0]  # type: ignore[return-value]

        return log_prob

    def theirs(variables: Any, y: Array) -> Array:
        params = {"params": variables["params"]["bijector"]["net"]}

        def f(t: Array, y: Array) -> Array:
            return net(2).apply(params, y, jnp.full((1,), t, y.dtype))  # type: ignore[return-value]

        def moved(t: Any, state: Any, args: Any) -> Any:
            pushed = [jax.jvp(lambda y: f(t, y), (state[0],), (e,)) for e in basis]
            return pushed[0][0], sum(push[:, i] for i, (_, push) in enumerate(pushed))

        basis = [jnp.zeros_like(y).at[:, i].set(1) for i in (0, 1)]
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(moved), diffrax.Tsit5(), 1.0, 0.0, None, (y, jnp.zeros(len(y))),
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5), max_steps=256,
        )  # fmt: skip
        z, log_det = (a[-1] for a in found.ys)  # type: ignore[union-attr]
        return log_det - jnp.sum(z**2, -1) / 2 - jnp.log(2 * jnp.pi)

    rows = {
        "rk4, 16 steps": ours(FixedGrid(16)),
        "rk4, 8 steps": ours(FixedGrid(8)),
        "tsit5, 8 steps": ours(FixedGrid(8, "tsit5")),
        "the same, stored": ours(FixedGrid(8, "tsit5", store=True)),
        "Diffrax, Tsit5 to 1e-5": theirs,
    }
    programs, spent = {}, {name: [] for name in rows}
    for name, log_prob in rows.items():
        loss = jax.value_and_grad(lambda v, y, log_prob=log_prob: jnp.mean(log_prob(v, y)))
        begun = time.process_time()
        programs[name] = jax.jit(loss).lower(variables, y).compile()
        compiled = time.process_time() - begun
        error = np.sqrt(np.mean((np.asarray(jax.jit(log_prob)(variables, y)) - exact) ** 2))
        memory = programs[name].memory_analysis().temp_size_in_bytes / 1e6
        rows[name] = f"{error:.1e} | {compiled:.1f} | {memory:.1f}"
    for _ in range(10):  # in turn
        for name, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(variables, y))
            spent[name].append(time.perf_counter() - begun)
    print("| solve | value and gradient, ms | rms error of log p | compile, CPU s | MB |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {min(spent[name]) * 1e3:.0f} | {row} |")


def main() -> None:
    """Prints a table."""
    if sys.argv[1:] == ["train"]:
        return train_steps()
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    print(f"{steps} steps of 256 points, one seed.\n")
    print("| density | flow | KL, nats | fit, s | evaluations | error of log p | largest | held |")
    print("|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        for recipe in RECIPES:
            print(row(name, recipe, steps), flush=True)
    return None


if __name__ == "__main__":
    main()
