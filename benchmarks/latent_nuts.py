"""Does a flow help the No-U-Turn sampler: effective sample sizes in latents and in raw coordinates.

    python -m benchmarks.latent_nuts [steps]

The target is curved, in 8 dimensions: pairs (a, b) with a normal and b | a normal around a^2, of
standard deviation 0.2. Needs `pip install 'jflow[interop]'`.
"""

import sys
import time

import jax.numpy as jnp

import jflow
from jflow import bijectors as jb
from jflow import flows
from jflow import transformers as jt
from jflow.interop.blackjax import Chains, nuts

FEATURES = 8


def target(y):
    """log p of y (n, 8), up to a constant."""
    a, b = y[:, 0::2], y[:, 1::2]
    return -jnp.sum(a**2 / 2 + (b - a**2) ** 2 / (2 * 0.2**2), axis=-1)


def told(name: str, chains: Chains, seconds: float) -> None:
    """Prints a row."""
    least, steps = chains.ess.min(), chains.steps.mean()
    print(
        f"| {name} | {least:,.0f} | {least / chains.steps.sum() * 1e3:,.2f} | {steps:.1f} | "
        f"{chains.r_hat.max():.3f} | {chains.diverging.sum()} | {seconds:.0f} |",
        flush=True,
    )


def main() -> None:
    """Prints the table: fit of the flow, then both samplers, three seeds each."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    start = time.time()
    flow = flows.iaf(FEATURES, layers=6, hidden=(64, 64))
    posterior, history = jflow.fit_to_target(flow, target, key=0, steps=steps, progress=False)
    share = history.rows[-1]["ess"]
    print(f"fit: {steps:,} steps, {time.time() - start:.0f} s, ess {share:.2f}\n")
    same = jflow.Flow(jb.Elementwise(jt.FixedAffine()), (FEATURES,))
    raw = jflow.Density(same, {})
    print(
        "| | least ess of 4,000 | per 1,000 gradients | gradients a draw | r_hat | diverging | s |"
    )
    print("|---|---|---|---|---|---|---|")
    for seed in range(3):
        for name, density in (("raw", raw), ("latents", posterior)):
            start = time.time()
            chains = nuts(density, target, key=seed)
            told(f"{name}, seed {seed}", chains, time.time() - start)


if __name__ == "__main__":
    main()
