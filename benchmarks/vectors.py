"""Flows of vectors: train step, log_prob and samples, beside their bare matrix products.

python -m benchmarks.vectors [nsf | maf | depth | width]
"""

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jflow
from benchmarks.timing import interleaved, print_table
from jflow import flows

BATCH = 512
Parts = tuple[Any, Callable[..., Any], Callable[..., Any]]  # params, log_prob, sample


def of_jflow(flow: jflow.Flow) -> Parts:
    """A jflow flow, with variables off their initial values."""
    features = flow.event_shape[0]
    variables = jflow.init(flow, jax.random.key(1), data(features))
    constants = {name: value for name, value in variables.items() if name != "params"}
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [v + 0.01 * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]

    def log_prob(params: Any, y: jax.Array) -> Any:
        return flow.apply({"params": params, **constants}, y, method="log_prob")

    def sample(params: Any, key: jax.Array) -> Any:
        return flow.apply({"params": params, **constants}, key, (BATCH,), method="sample")

    return jax.tree.unflatten(tree, moved), log_prob, sample


def data(features: int) -> jax.Array:
    """The same synthetic batch for all."""
    return jax.random.normal(jax.random.key(0), (BATCH, features))


def programs(parts: Parts, features: int) -> dict[str, Callable[[], Any]]:
    """Compiled: a train step, log_prob, and samples."""
    params, log_prob, sample = parts
    y, optimizer = data(features), optax.adam(1e-4)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(lambda p: -jnp.mean(log_prob(p, y)))(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    copy = jax.tree.map(lambda v: v + 0, params)
    state = [copy, optimizer.init(copy)]
    compiled = step.lower(*state).compile()

    def train() -> Any:
        *state[:], value = compiled(*state)
        return value

    score, draw = jax.jit(log_prob), jax.jit(sample)
    return {
        "train": train,
        "log_prob": partial(score, params, y),
        "sample": partial(draw, params, jax.random.key(3)),
    }


def bare_products(
    features: int, layers: int, widths: tuple[int, ...]
) -> dict[str, Callable[[], Any]]:
    """The matrix products of the networks alone: one pass, and with those of the gradient."""
    keys = jax.random.split(jax.random.key(0), len(widths))
    pairs = list(itertools.pairwise(widths))
    kernels = [
        jax.random.normal(k, (layers, m, n)) / m for k, (m, n) in zip(keys, pairs, strict=False)
    ]
    x = jax.random.normal(jax.random.key(1), (BATCH, widths[0]))

    def run(kernels: Any, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, kernels: Any) -> Any:
            h = x
            for kernel in kernels:
                h = h @ kernel
            return x + h[:, : x.shape[1]], None

        return jnp.sum(jax.lax.scan(layer, x, kernels)[0])

    one, both = jax.jit(run), jax.jit(jax.grad(run))
    return {"log_prob": partial(one, kernels, x), "train": partial(both, kernels, x)}


def compare(name: str, every: dict[str, dict[str, Callable[[], Any]]], rounds: int) -> None:
    """Prints one table for each kind of program."""
    for kind in ("train", "log_prob", "sample"):
        seconds = interleaved({k: v[kind] for k, v in every.items() if kind in v}, rounds)
        print(f"\n{name}: {kind}")
        print_table(seconds, against="jflow")


def nsf(rounds: int = 15) -> None:
    """Coupling spline flow: 64 features, 10 layers, 8 bins, networks 2x128."""
    flow = flows.nsf(64, layers=10, bins=8, hidden=(128, 128), bound=4.0)
    every = {"jflow": programs(of_jflow(flow), 64)}
    every["bare products"] = bare_products(64, 10, (32, 128, 128, 32 * 23))
    compare("NSF, D=64, 10 layers, 8 bins, 2x128, batch 512", every, rounds)


def maf(rounds: int = 15) -> None:
    """Affine autoregressive flow: 64 features, 10 layers, networks 2x256."""
    flow = flows.maf(64, layers=10, hidden=(256, 256))
    every = {"jflow": programs(of_jflow(flow), 64)}
    every["bare products"] = bare_products(64, 10, (64, 256, 256, 128))
    compare("MAF, D=64, 10 layers, 2x256, batch 512", every, rounds)


def width(rounds: int = 5) -> None:
    """MAF: samples and their gradients against likelihoods, for more and more features."""
    for features, hidden in ((16, 256), (64, 256), (256, 512), (1024, 2048)):
        flow = flows.maf(features, layers=2, hidden=(hidden, hidden))
        params, log_prob, sample = of_jflow(flow)
        parts = programs((params, log_prob, sample), features)
        del parts["train"]
        slope = jax.jit(jax.grad(lambda p, key, f=sample: jnp.sum(jnp.square(f(p, key)))))
        parts["gradient of samples"] = partial(slope, params, jax.random.key(3))
        print(f"\nMAF, D={features}, 2 layers, 2x{hidden}, batch {BATCH}")
        print_table(interleaved(parts, rounds), against="log_prob")


def depth(rounds: int = 3) -> None:
    """Trace, lower and compile a train step at two depths, in turn."""
    for name, build in (("nsf", flows.nsf), ("maf", flows.maf)):
        seconds: dict[int, list] = {4: [], 64: []}
        for _ in range(rounds):
            for layers, values in seconds.items():
                jax.clear_caches()
                params, log_prob, _ = of_jflow(build(16, layers=layers, hidden=(64, 64)))
                loss = lambda p, f=log_prob: -jnp.mean(f(p, data(16)))  # noqa: E731
                start = time.perf_counter()
                jax.jit(jax.value_and_grad(loss)).lower(params).compile()
                values.append(time.perf_counter() - start)
        low = {layers: min(values) for layers, values in seconds.items()}
        print(f"{name}: compile 4 layers {low[4]:.2f} s, 64 layers {low[64]:.2f} s, "
              f"ratio {low[64] / low[4]:.3f}")  # fmt: skip


if __name__ == "__main__":
    parts = {"nsf": nsf, "maf": maf, "width": width, "depth": depth}
    for part in sys.argv[1:] or parts:
        parts[part]()
