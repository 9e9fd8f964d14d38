"""Continuous flows of 2-D densities: divergence from the truth, cost of a solve, error of log p.

    python -m benchmarks.continuous [STEPS]    # fits of so many steps, beside couplings
    python -m benchmarks.continuous errors     # of log p and of gradients
    python -m benchmarks.continuous train      # a step of training, beside other libraries

Each prints a table. Of bijx and zuko, what is installed takes part.
"""

import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jflow
from jflow import bijectors as jb
from jflow import data, flows, nets, train
from jflow.bijectors.walk import layers, rebuild
from jflow.functional import Adaptive, FixedGrid

NAMES = ("two_moons", "eight_gaussians")
# Each with its steps and learning rate: regressions are cheap, and take more.
RECIPES: dict[str, tuple[Callable[[], jflow.Flow], float, float]] = {
    "nsf": (lambda: flows.nsf(2, layers=8, bins=16, mixing="lu", activation="relu"), 1, 2e-3),
    "nsf, autoregressive": (
        lambda: flows.nsf(
            2, layers=2, bins=64, autoregressive=True, mixing="reverse", activation="relu"
        ),
        1, 2e-3,
    ),
    "ffjord": (lambda: flows.ffjord(2), 1, 1e-2),
    "rnode": (lambda: flows.rnode(2), 1, 1e-2),
    "ot_flow": (lambda: flows.ot_flow(2), 1, 1e-2),
    "flow_matching": (lambda: flows.flow_matching(2), 10, 1e-2),
    "sde": (lambda: flows.sde(2), 1, 3e-3),
}  # fmt: skip


def evaluations(density: jflow.Density, y: np.ndarray) -> str:
    """Of the field, for log p of all of these, by steps of each point, and by steps that all share.

    The first is of the point that takes the most; the second is what other libraries count.
    """
    for layer in layers(density.flow.bijector):
        if isinstance(layer.bijector, jb.SDE):
            return f"{layer.bijector.time_steps} a path | "
        if isinstance(layer.bijector, jb.Continuous):
            densities = [density.with_solver(Adaptive(own_steps=own)) for own in (True, False)]
            return " | ".join(str(most_evaluations(each, y)) for each in densities)
    return "1 | "


def most_evaluations(density: jflow.Density, y: np.ndarray) -> int:
    """What the solve of log p tells."""
    given: Any = density.variables, y
    rngs = {"noise": jax.random.key(0)}
    _, told = density.flow.apply(*given, mutable=["solver"], rngs=rngs)
    found = jax.tree.leaves_with_path(told)
    (told,) = (int(a) for path, a in found if "'evaluations'" in str(path))
    return told


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds, the least of three."""
    jax.block_until_ready(run())
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        spent.append(time.perf_counter() - begun)
    return 1e3 * min(spent)


def judged(density: jflow.Density, y: np.ndarray, truth: np.ndarray) -> str:
    """Divergence from the truth, and what evaluations cost."""
    bound = density.flow.bijector.log_det_kind == "bound"
    key = 0 if bound else None
    log_p = np.asarray(
        density.log_prob_estimate(y, 0, probes=64).mean if bound else density.log_prob(y)
    )
    gap = truth - log_p
    cost = timed(lambda: density.log_prob(y, key=key)), timed(lambda: density.sample(0, len(y)))
    return (
        f"{gap.mean():.3f} ± {gap.std() / np.sqrt(len(gap)):.3f} "
        f"| {evaluations(density, y)} | {cost[0]:,.0f} | {cost[1]:,.0f}"
    )


def row(name: str, recipe: str, steps: int) -> str:
    """One fit to 20,000 points, measured on 5,000 others; then a student of flow matching."""
    toy = data.toy(name)
    y, new = (np.asarray(toy.sample(seed, count)) for seed, count in ((0, 20_000), (1, 5_000)))
    truth = np.asarray(toy.log_prob(new))
    make, more, rate = RECIPES[recipe]
    steps = round(steps * more)
    begun = time.perf_counter()
    density, _ = jflow.fit(
        make(), y, key=0, steps=steps, learning_rate=rate, evaluate_every=steps // 2,
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    text = f"| {name} | `{recipe}` | {judged(density, new, truth)} | {seconds:.0f} |"
    return text + (student(name, density, new, truth) if recipe == "flow_matching" else "")


def student(name: str, teacher: jflow.Density, new: np.ndarray, truth: np.ndarray) -> str:
    """A flow of one pass that learns the teacher's density, from pairs."""
    begun = time.perf_counter()
    pairs = train.draw_pairs(teacher.with_solver(Adaptive(1e-4)), 0, 100_000)
    apart, drawn = time.perf_counter() - begun, train.draw_pairs(teacher, 1, 5_000)
    pupil, _ = jflow.fit(
        RECIPES["nsf, autoregressive"][0](), pairs, key=0, steps=8_000, batch_size=512,
        learning_rate=3e-3, evaluate_every=1_000, progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    off = np.abs(np.asarray(pupil.log_prob(drawn.y)) - drawn.log_prob).mean()
    told = f"mean abs. log q - log p {off:.3f}, pairs {apart:.0f} s"
    return f"\n| {name} | its student ({told}) | {judged(pupil, new, truth)} | {seconds:.0f} |"


def errors() -> None:
    """Of `solver_error`, and of gradients on the grids of training."""
    print("| density | flow | error of log p | largest | held | gradients off by, relative |")
    print("|---|---|---|---|---|---|")
    for name in NAMES:
        y, new = (np.asarray(data.toy(name).sample(s, n)) for s, n in ((0, 20_000), (1, 5_000)))
        for recipe in ("ffjord", "rnode", "ot_flow"):
            make, _, rate = RECIPES[recipe]
            density, _ = jflow.fit(
                make(), y, key=0, steps=500, learning_rate=rate, validation=None, progress=False
            )
            found = density.log_prob_estimate(new, 0)
            with jax.enable_x64(True):
                exact = density.log_prob(new.astype(np.float64))
            error = np.abs(np.asarray(found.mean, np.float64) - np.asarray(exact))
            held = np.mean(np.asarray(found.solver_error) >= error)
            print(
                f"| {name} | `{recipe}` | {np.median(error):.1e} | {error.max():.1e} | {held:.1%} "
                f"| {gradient_error(density, new[:256]):.1e} |",
                flush=True,
            )


def gradient_error(density: jflow.Density, y: np.ndarray) -> float:
    """Of the mean log p by all parameters: the grid in float32, a fine one in float64."""

    def gradient(density: jflow.Density, y: np.ndarray) -> np.ndarray:
        def mean(params: Any) -> Array:
            variables: Any = {**density.variables, "params": params}
            given: Any = variables, y
            found = density.flow.apply(
                *given, method="log_prob", mutable=["losses"], rngs={"noise": jax.random.key(0)}
            )
            return jnp.mean(found[0])

        found = jax.jit(jax.grad(mean))(density.variables["params"])
        return np.concatenate([np.ravel(a) for a in jax.tree.leaves(found)]).astype(np.float64)

    ours = gradient(density, y)
    with jax.enable_x64(True):
        fine = rebuild(density.flow, lambda n, v: FixedGrid(200) if n == "solver" else v)
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), dict(density.variables))
        exact = gradient(jflow.Density(fine, wide), y.astype(np.float64))
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


def train_steps() -> None:
    """Value and gradient of the mean log p of 256 points, beside other libraries' solves of it."""
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

    rows: dict[str, Any] = {
        "rk4, 24 steps": ours(FixedGrid(24)),
        "rk4, 16 steps": ours(FixedGrid(16)),
        "rk4, 8 steps": ours(FixedGrid(8)),
        "tsit5, 8 steps": ours(FixedGrid(8, "tsit5")),
        "the same, stored": ours(FixedGrid(8, "tsit5", memory="store")),
        **of_diffrax(net),
        **of_bijx(net),
    }
    programs: dict[str, Any] = {}
    spent: dict[str, list[float]] = {}
    for name, log_prob in rows.items():
        loss = jax.value_and_grad(lambda v, y, log_prob=log_prob: jnp.mean(log_prob(v, y)))
        begun = time.process_time()
        programs[name] = jax.jit(loss).lower(variables, y).compile()
        compiled = time.process_time() - begun
        error = np.sqrt(np.mean((np.asarray(jax.jit(log_prob)(variables, y)) - exact) ** 2))
        memory = programs[name].memory_analysis().temp_size_in_bytes / 1e6
        rows[name] = f"{error:.1e} | {compiled:.1f} | {memory:.1f}"
    programs |= of_zuko(np.asarray(y), rows)
    spent |= {name: [] for name in programs}
    for _ in range(10):  # in turn
        for name, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(variables, y))
            spent[name].append(time.perf_counter() - begun)
    print("| solve | value and gradient, ms | rms error of log p | compile, CPU s | MB |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {min(spent[name]) * 1e3:.0f} | {row} |")


def of_diffrax(net: Any) -> dict[str, Any]:
    """log p by Diffrax, with the same network and parameters.

    Of the batch, to a tolerance; and as its example of a continuous flow does: each point
    by itself, ten steps of one length, traces by the identity's vector-Jacobian products.
    """
    import diffrax

    def field(variables: Any) -> Any:
        params = {"params": variables["params"]["bijector"]["net"]}
        return lambda t, y: net(2).apply(params, y, jnp.full((1,), t, y.dtype))

    def log_base(z: Array) -> Array:
        return -jnp.sum(z**2, -1) / 2 - jnp.log(2 * jnp.pi)

    def adaptive(variables: Any, y: Array) -> Array:
        f = field(variables)
        basis = [jnp.zeros_like(y).at[:, i].set(1) for i in (0, 1)]

        def moved(t: Any, state: Any, args: Any) -> Any:
            pushed = [jax.jvp(lambda y: f(t, y), (state[0],), (e,)) for e in basis]
            return pushed[0][0], sum(push[:, i] for i, (_, push) in enumerate(pushed))

        found = diffrax.diffeqsolve(
            diffrax.ODETerm(moved), diffrax.Tsit5(), 1.0, 0.0, None, (y, jnp.zeros(len(y))),
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5), max_steps=256,
        )  # fmt: skip
        z, log_det = (a[-1] for a in found.ys)  # type: ignore[union-attr]
        return log_base(z) + log_det

    def example(variables: Any, y: Array) -> Array:
        f = field(variables)

        def moved(t: Any, state: Any, args: Any) -> Any:
            value, pull = jax.vjp(lambda y: f(t, y), state[0])
            return value, jnp.trace(jax.vmap(pull)(jnp.eye(2))[0])

        def one(y: Array) -> Array:
            start = y, jnp.zeros(())
            found = diffrax.diffeqsolve(
                diffrax.ODETerm(moved), diffrax.Tsit5(), 1.0, 0.0, -0.1, start
            )
            z, log_det = (a[-1] for a in found.ys)  # type: ignore[union-attr]
            return log_base(z) + log_det

        return jax.vmap(one)(y)

    return {"Diffrax, Tsit5 to 1e-5": adaptive, "Diffrax, as its example of a CNF": example}


def of_bijx(net: Any) -> dict[str, Any]:
    """log p by bijx's two continuous flows, with the same network and parameters."""
    try:
        bijx: Any = import_module("bijx")
    except ImportError:
        return {}
    from flax import nnx

    class Field(nnx.Module):
        def __init__(self, params: Any):
            self.params = nnx.data(jax.tree.map(nnx.Param, params))

        def __call__(self, t: Any, x: Array) -> Array:
            own = jax.tree.map(
                lambda p: p[...], self.params, is_leaf=lambda p: isinstance(p, nnx.Param)
            )
            t = jnp.broadcast_to(jnp.asarray(t, x.dtype), (*x.shape[:-1], 1))
            return net(2).apply({"params": own}, x, t)

    def log_prob(variables: Any, y: Array, make: Any) -> Array:
        field = bijx.AutoJacVF(Field(variables["params"]["bijector"]["net"]))
        z, moved = make(field).reverse(y, jnp.zeros(len(y)))
        return -jnp.sum(z**2, -1) / 2 - jnp.log(2 * jnp.pi) - moved

    return {
        "bijx, ContFlowDiffrax": lambda v, y: log_prob(v, y, bijx.ContFlowDiffrax),
        "bijx, ContFlowRK4": lambda v, y: log_prob(v, y, bijx.ContFlowRK4),
    }


def of_zuko(y: np.ndarray, rows: dict[str, Any]) -> dict[str, Any]:
    """A step of zuko's flow with as wide a network, which has learned as much of these points."""
    try:
        torch, zuko = import_module("torch"), import_module("zuko")
    except ImportError:
        return {}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    flow = zuko.flows.CNF(2, hidden_features=(64, 64, 64), activation=torch.nn.Tanh)
    points = torch.tensor(y)

    def step(*_: Any) -> float:
        flow.zero_grad()
        loss = -flow().log_prob(points).mean()
        loss.backward()
        return loss.item()

    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(100):
        step()
        optimizer.step()
    rows["zuko, CNF"] = "not known | none | not known"
    return {"zuko, CNF": step}


def main() -> None:
    """Prints a table."""
    if sys.argv[1:] in (["train"], ["errors"]):
        return train_steps() if sys.argv[1] == "train" else errors()
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    print(f"{steps} steps of 256 points, of flow matching {10 * steps}; one seed.\n")
    print(
        "| density | flow | KL, nats | evaluations, most | in shared steps | log p of 5,000, ms "
        "| 5,000 samples, ms | fit, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        for recipe in RECIPES:
            print(row(name, recipe, steps), flush=True)
    return None


if __name__ == "__main__":
    main()
