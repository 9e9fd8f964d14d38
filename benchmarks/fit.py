"""What `jflow.fit` costs over the bare jitted steps, on data in memory.

python -m benchmarks.fit
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jflow
from benchmarks.timing import print_table
from jflow import flows

STEPS = 400


def bare(flow: jflow.Flow, data: jax.Array, batch_size: int) -> tuple[float, float]:
    """Seconds of STEPS jitted Adam steps on given batches, after the first; and the last loss."""
    variables = jflow.init(flow, jax.random.key(0), data[:batch_size])
    params = variables.pop("params")
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params, state, y):
        def loss(params):
            log_prob = flow.apply({"params": params, **variables}, y, method="log_prob")
            return -jnp.mean(log_prob)  # type: ignore[arg-type]

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    index = np.random.default_rng(0).integers(0, len(data), (STEPS, batch_size))
    batches = [data[i] for i in index]
    state = optimizer.init(params)
    _, _, value = jax.block_until_ready(step(params, state, batches[0]))
    start = time.perf_counter()
    for y in batches:
        params, state, value = step(params, state, y)
    jax.block_until_ready(value)
    return time.perf_counter() - start, float(value)


def fitted(flow: jflow.Flow, data: jax.Array, batch_size: int) -> tuple[float, float]:
    """Seconds of STEPS steps of fit, after its first stretch, without validation."""
    _, history = jflow.fit(
        flow,
        data,
        key=jax.random.key(0),
        validation=None,
        steps=STEPS + 100,
        batch_size=batch_size,
        warmup_steps=0,
        clip_norm=None,
        evaluate_every=100,
        progress=False,
    )
    rows = history.rows
    return rows[-1]["seconds"] - rows[0]["seconds"], rows[-1]["train_nll"]


def main() -> None:
    """Both in turn, for a small flow, where overhead shows, and a larger one."""
    for features, layers, hidden, batch_size in ((4, 4, (32,), 128), (16, 8, (128, 128), 512)):
        flow = flows.real_nvp(features, layers, hidden)
        data = jax.random.normal(jax.random.key(0), (100_000, features))
        seconds: dict[str, list] = {"bare steps": [], "fit": []}
        for _ in range(5):
            seconds["bare steps"].append(bare(flow, data, batch_size)[0] / STEPS)
            seconds["fit"].append(fitted(flow, data, batch_size)[0] / STEPS)
        print(f"\nReal NVP, D={features}, {layers} layers of {hidden}, batch {batch_size}, a step:")
        print_table(seconds, against="bare steps")


if __name__ == "__main__":
    main()
