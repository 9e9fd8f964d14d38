"""Train step of Glow, 32x32x3, 3 levels: compile time in depth, and loop against no loop.

python -m benchmarks.glow [compile | loop | memory]
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import optax

import jflow
from benchmarks.timing import interleaved, print_table
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.functional.convolution import conv2d, matmul_last
from jflow.nets import layers

SHAPE, BATCH = (32, 32, 3), 16


def batch() -> jax.Array:
    """The same synthetic images for all."""
    return jax.random.uniform(jax.random.key(0), (BATCH, *SHAPE))


def train_step(flow: jflow.Flow) -> tuple[Callable[..., Any], Any, Any]:
    """A jitted Adam step, its parameters and optimiser state."""
    variables = jax.tree.map(jnp.array, jflow.init(flow, jax.random.key(1), batch()))
    constants = {name: value for name, value in variables.items() if name != "params"}
    optimizer = optax.adam(1e-3)

    def step(params: Any, state: Any, y: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            log_prob = flow.apply({"params": params, **constants}, y, method="log_prob")
            return -jnp.mean(log_prob)  # type: ignore[arg-type]

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    return step, variables["params"], optimizer.init(variables["params"])


def native_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution that XLA brings, 1x1 ones as products."""
    if kernel.shape[:2] == (1, 1):
        return matmul_last(x, kernel[0, 0])
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def unrolled(steps: int, hidden: int) -> jflow.Flow:
    """flows.glow with the steps of each level written out instead of scanned."""

    def level(last: bool) -> jb.Bijector:
        net = nets.ConvNet(hidden)
        parts = [
            part
            for _ in range(steps)
            for part in (
                jb.ActNorm(3),
                jb.Conv1x1(),
                jb.Coupling(jt.Affine(), net, "channel"),
            )
        ]
        prior = () if last else (jb.Coupling(jt.Affine(), nets.ZeroConvNet(), "channel"),)
        return jb.Chain((jb.Squeeze(), *parts, *prior))

    pyramid = jb.MultiScale(tuple(level(i == 2) for i in range(3)), SHAPE)
    centre = jb.Elementwise(jt.FixedAffine(shift=0.5), event_ndim=3)
    return jflow.Flow(jb.Chain((centre, pyramid)), SHAPE, values=256)


def compile_times(rounds: int = 3) -> None:
    """Trace, lower and compile a train step at two depths, in turn."""
    seconds: dict[int, list] = {6: [], 48: []}
    for _ in range(rounds):
        for steps, values in seconds.items():
            jax.clear_caches()
            step, params, state = train_step(flows.glow(SHAPE, 3, steps, 64))
            start = time.perf_counter()
            jax.jit(step).lower(params, state, batch()).compile()
            values.append(time.perf_counter() - start)
            print(f"K={steps:2d}: {values[-1]:.2f} s", flush=True)
    print(f"K=48 / K=6, minima: {min(seconds[48]) / min(seconds[6]):.3f}")


def loop_against_unrolled(steps: int = 8, hidden: int = 128) -> None:
    """Time of one train step: scanned (store, remat) and unrolled."""
    programs = {}
    for name, flow, convolution in (
        ("scanned", flows.glow(SHAPE, 3, steps, hidden), conv2d),
        ("scanned, remat", flows.glow(SHAPE, 3, steps, hidden, memory="remat"), conv2d),
        ("unrolled", unrolled(steps, hidden), conv2d),
        ("unrolled, native convolution", unrolled(steps, hidden), native_conv2d),
    ):
        with mock.patch.object(layers, "conv2d", convolution):
            jax.clear_caches()
            step, params, state = train_step(flow)
            compiled = jax.jit(step).lower(params, state, batch()).compile()
        programs[name] = partial(compiled, params, state, batch())
    print(f"train step, K={steps}, hidden {hidden}, batch {BATCH}")
    print_table(interleaved(programs), against="unrolled")


def memory(hidden: int = 64) -> None:
    """XLA's temporary bytes of one train step, in depth."""
    for kind in ("store", "remat", "reversible"):
        for steps in (8, 64):
            step, params, state = train_step(flows.glow(SHAPE, 3, steps, hidden, memory=kind))
            compiled = jax.jit(step).lower(params, state, batch()).compile()
            analysis: Any = compiled.memory_analysis()
            size = analysis.temp_size_in_bytes
            print(f"{kind:6s} K={steps:2d}: {size / 1e6:7.1f} MB", flush=True)


if __name__ == "__main__":
    parts = {"compile": compile_times, "loop": loop_against_unrolled, "memory": memory}
    for part in sys.argv[1:] or parts:
        parts[part]()
