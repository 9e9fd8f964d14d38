"""float32 against float64 on trained flows: log_det, latents and round trips, 64 features.

python -m benchmarks.precision [STEPS]
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jflow
from jflow import flows

FEATURES, LAYERS = 64, 10


def data(count: int) -> jax.Array:
    """Correlated, skewed, partly bimodal points."""
    keys = jax.random.split(jax.random.key(0), 3)
    mix = jax.random.normal(keys[0], (FEATURES, FEATURES), jnp.float32) / FEATURES**0.5
    z = jax.random.normal(keys[1], (count, FEATURES), jnp.float32)
    side = jnp.sign(jax.random.normal(keys[2], (count, 1), jnp.float32))
    return jnp.tanh(z @ mix) + 0.3 * z + 0.5 * side


def report(name: str, flow: jflow.Flow, steps: int) -> None:
    """Fits in float32, then runs the same parameters in both precisions."""
    density, history = jflow.fit(flow, data(20_000), key=jax.random.key(1), steps=steps)
    y, bijector = data(22_000)[20_000:], flow.bijector

    def run(dtype: Any) -> list[np.ndarray]:
        variables = jax.tree.map(
            lambda v: v.astype(dtype) if v.dtype == jnp.float32 else v, density.variables
        )
        variables = {kind: v["bijector"] for kind, v in variables.items()}
        apply = jax.jit(lambda y, m: bijector.apply(variables, y, method=m), static_argnums=1)
        x, log_det = apply(y.astype(dtype), "inverse_and_log_det")
        back, _ = apply(x, "forward_and_log_det")
        return [np.asarray(v, np.float64) for v in (log_det, x, back)]

    (low, x, back), (high, exact_x, _) = run(jnp.float32), run(jnp.float64)
    print(
        f"{name:20s} nll {history.rows[0]['train_nll']:.1f} -> {history.rows[-1]['train_nll']:.1f}"
        f"  log_det error: max {np.abs(low - high).max():.1e}, rms {(low - high).std():.1e} nats"
        f"  latent error: max {np.abs(x - exact_x).max():.1e}"
        f"  round trip: max {np.abs(back - np.asarray(y)).max():.1e}",
        flush=True,
    )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    report("maf", flows.maf(FEATURES, LAYERS), steps)
    report("nsf", flows.nsf(FEATURES, LAYERS), steps)
    report("nsf autoregressive", flows.nsf(FEATURES, LAYERS, autoregressive=True), steps // 2)
