"""Round trip of the full-size Glow (32x32x3, L=3, K=32, hidden 512) after training on images.

python -m benchmarks.round_trip IMAGES.npz [STEPS] [BATCH]

IMAGES.npz holds x_train, y_train, x_test and y_test, 8-bit 32x32x3, such as CIFAR-10.
"""

import math
import sys

import jax
import jax.numpy as jnp

import jflow
from jflow import data, flows


def bits(nll: float) -> float:
    """Nats of an image in [0, 1] as bits for each of its 256 levels' numbers."""
    return nll / (32 * 32 * 3 * math.log(2)) + 8


def main(path: str, steps: int = 200, batch_size: int = 8) -> None:
    """Fits, evaluates, samples, and prints the largest errors."""
    splits = data.npz(path, validation=64)
    flow = flows.glow((32, 32, 3), levels=3, steps=32, hidden=512, values=None, memory="remat")
    train = data.dequantize(jax.random.key(2), jnp.asarray(splits.train.y), 256)
    density, history = jflow.fit(
        flow,
        train,
        key=jax.random.key(0),
        validation=None,
        steps=steps,
        batch_size=batch_size,
        learning_rate=5e-4,
        evaluate_every=10,
    )
    rows = [history.rows[0], history.rows[-1]]
    for row in rows:
        print(f"step {row['step']}: train {bits(row['train_nll']):.3f} bits/dim")
    key = jax.random.key(1)
    y = data.dequantize(key, jnp.asarray(splits.test.y[:32]), 256)
    tested = jflow.evaluate(density, y, key=key, batch_size=8)
    print(f"test bits/dim, 32 images: {bits(tested.mean):.3f}")
    error = jnp.abs(density.from_latents(density.latents(y)) - y)
    print(f"round trip of 32 test images in [0, 1]: max {error.max():.2e}, mean {error.mean():.2e}")
    samples, log_prob = density.sample_and_log_prob(key, 16)
    again = density.log_prob(samples)
    print(
        f"16 samples: finite {bool(jnp.isfinite(samples).all())}, range {samples.min():.2f} to "
        f"{samples.max():.2f}; log_prob of a sample again, largest relative difference "
        f"{jnp.abs(again / log_prob - 1).max():.1e}"
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
