"""Train step of Glow, 32x32x3, 3 levels: compile time, time, memory and gradients in depth.

python -m benchmarks.glow [compile | loop | fit | memory | gradients | deep]
"""

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jflow
from benchmarks.timing import interleaved, print_table
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.functional.convolution import conv2d, matmul_last
from jflow.functional.sharding import Placement
from jflow.nets import layers
from jflow.train import Batch, MaximumLikelihood, gradient_step
from jflow.train.steps import advance

SHAPE, BATCH = (32, 32, 3), 16
KEY = jax.random.key(2)
KINDS = ("store", "remat", "reversible")


def batch(size: int = BATCH) -> jax.Array:
    """The same synthetic images for all."""
    return jax.random.uniform(jax.random.key(0), (size, *SHAPE))


def glow(steps: int, hidden: int, memory: Any = "store") -> jflow.Flow:
    """Of continuous images, so that no noise is drawn."""
    return flows.glow(SHAPE, 3, steps, hidden, values=None, memory=memory)


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
    return jflow.Flow(jb.Chain((centre, pyramid)), SHAPE)


def compile_times(rounds: int = 3) -> None:
    """Trace, lower and compile a train step at two depths, in turn."""
    seconds: dict[int, list] = {6: [], 48: []}
    for _ in range(rounds):
        for steps, values in seconds.items():
            jax.clear_caches()
            step, params, state = train_step(glow(steps, 64))
            start = time.perf_counter()
            jax.jit(step).lower(params, state, batch()).compile()
            values.append(time.perf_counter() - start)
            print(f"K={steps:2d}: {values[-1]:.2f} s", flush=True)
    print(f"K=48 / K=6, minima: {min(seconds[48]) / min(seconds[6]):.3f}")


def loop_against_unrolled(steps: int = 8, hidden: int = 128) -> None:
    """Time of one train step: scanned (store, remat, reversible) and unrolled."""
    programs = {}
    for name, flow, convolution in (
        ("scanned", glow(steps, hidden), conv2d),
        ("scanned, remat", glow(steps, hidden, "remat"), conv2d),
        ("scanned, reversible", glow(steps, hidden, "reversible"), conv2d),
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


def in_loop(steps: int = 8, hidden: int = 128, count: int = 8) -> None:
    """Time of `count` train steps in one call, as `fit` makes them."""
    programs = {}
    optimizer, index = optax.adam(1e-3), jnp.tile(jnp.arange(BATCH)[None], (count, 1))
    for kind in KINDS:
        flow = glow(steps, hidden, memory=kind)
        variables = jflow.init(flow, jax.random.key(1), batch())
        step = gradient_step(MaximumLikelihood(flow), optimizer)
        state = [Placement().build(step.start, variables)]
        rest = Batch((batch(), None)), index, jnp.asarray(count), KEY
        compiled = advance.lower(*state, *rest, step=step).compile()

        def take(compiled: Any = compiled, state: list = state, rest: tuple = rest) -> Any:
            state[:] = compiled(*state, *rest)[:1]
            return state

        programs[f"{kind}, {count} steps"] = take
    print_table(interleaved(programs), against=f"store, {count} steps")


def memory(hidden: int = 64) -> None:
    """XLA's temporary bytes of one train step, in depth."""
    for kind in KINDS:
        for steps in (8, 64):
            step, params, state = train_step(glow(steps, hidden, memory=kind))
            compiled = jax.jit(step).lower(params, state, batch()).compile()
            analysis: Any = compiled.memory_analysis()
            size = analysis.temp_size_in_bytes
            print(f"{kind:10s} K={steps:2d}: {size / 1e6:7.1f} MB", flush=True)


def images(count: int) -> jax.Array:
    """Smooth images with a little noise."""
    keys = jax.random.split(jax.random.key(3), 2)
    coarse = jax.random.uniform(keys[0], (count, 4, 4, 3))
    smooth = jax.image.resize(coarse, (count, *SHAPE), "linear")
    return jnp.clip(smooth + 0.02 * jax.random.normal(keys[1], smooth.shape), 0, 1)


def gradients(steps: int = 32, hidden: int = 64, training: int = 200) -> None:
    """Reversible gradients against stored ones, on trained parameters: relative L2 distance."""
    y = images(training * BATCH)
    flows_of = {kind: glow(steps, hidden, memory=kind) for kind in KINDS}
    density, history = jflow.fit(
        flows_of["reversible"], y, key=jax.random.key(0), steps=training, batch_size=BATCH,
        check_drift=True, validation=None,
    )  # fmt: skip
    first, last = history.rows[0], history.rows[-1]
    print(f"K={steps}, hidden {hidden}, {training} steps: nll {first['train_nll']:.0f} -> "
          f"{last['train_nll']:.0f}, drift {last['drift']:.1e}", flush=True)  # fmt: skip
    found = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            wide = lambda v, dtype=dtype: v.astype(dtype) if v.dtype == jnp.float32 else v  # noqa: E731
            variables = jax.tree.map(wide, density.variables)
            for kind, flow in flows_of.items():

                def loss(params: Any, y: jax.Array, flow=flow, rest=variables) -> Any:
                    return -jnp.mean(jflow.Density(flow, {**rest, "params": params}).log_prob(y))

                grad = jax.jit(jax.grad(loss))
                found[dtype, kind] = grad(variables["params"], wide(y[:BATCH]))
        for kind in KINDS[1:]:
            distance = apart(found[dtype, kind], found[dtype, "store"])
            print(f"{dtype}: {kind} against store {distance:.1e}")
    for kind in KINDS:
        distance = apart(found["float32", kind], found["float64", "store"])
        print(f"float32 {kind} against float64 store: {distance:.1e}")


def apart(a: Any, b: Any) -> float:
    """Distance of two trees in L2, relative to the second."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    squares = [
        (np.square(np.subtract(x, y, dtype=np.float64)).sum(), np.square(y).sum()) for x, y in pairs
    ]
    return float(np.sqrt(sum(s for s, _ in squares) / sum(s for _, s in squares)))


def deep(steps: int = 128, hidden: int = 128, size: int = 32) -> None:
    """A very deep flow: seconds of a step of `fit`, losses, and XLA's temporary bytes of a step."""
    print(f"K={steps} at each of 3 levels, hidden {hidden}, batch {size}")
    for kind in KINDS:
        flow = glow(steps, hidden, memory=kind)
        step, params, state = train_step(flow)
        analysis: Any = jax.jit(step).lower(params, state, batch(size)).compile().memory_analysis()
        _, history = jflow.fit(
            flow, images(1000), key=jax.random.key(0), steps=30, batch_size=size,
            evaluate_every=5, validation=None, progress=False,
        )  # fmt: skip
        rows = history.rows
        seconds = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(rows)]
        losses = " ".join(f"{row['train_nll']:.0f}" for row in rows)
        print(f"{kind:10s} {min(seconds) / 5:.2f} s a step, "
              f"{analysis.temp_size_in_bytes / 1e6:.0f} MB, nll {losses}", flush=True)  # fmt: skip


if __name__ == "__main__":
    parts = {
        "compile": compile_times,
        "loop": loop_against_unrolled,
        "fit": in_loop,
        "memory": memory,
        "gradients": gradients,
        "deep": deep,
    }
    for part in sys.argv[1:] or parts:
        parts[part]()
