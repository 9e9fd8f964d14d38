"""Both directions of invertible convolutions: python -m benchmarks.invertible_convolutions.

32x32x12 images in batches of 64, parameters moved off their first values. The fast direction is
that of likelihoods (inverse). As many steps as the structure leaves: a row at a time for causal
kernels, none for Fourier transforms, beside 1,024 for a loop over pixels.
"""

import jax

import jflow
from benchmarks.timing import interleaved
from jflow import bijectors as jb
from jflow import transformers as jt

SHAPE = (64, 32, 32, 12)
LAYERS = {
    "Conv1x1('plu')": (jb.Conv1x1(), 0),
    "EmergingConv()": (jb.EmergingConv(), 2 * 32),
    "PeriodicConv()": (jb.PeriodicConv(), 0),
    "WoodburyConv()": (jb.WoodburyConv(), 0),
    "RowAutoregressive(Affine())": (jb.RowAutoregressive(jt.Affine()), 32),
}


def main() -> None:
    """Prints the table."""
    print("| layer | fast direction, ms | other direction, ms | ratio | sequential steps |")
    print("|---|---|---|---|---|")
    y = jax.random.normal(jax.random.key(0), SHAPE)
    for name, (layer, steps) in LAYERS.items():
        variables = jflow.init(layer, jax.random.key(1), y)
        variables = {**variables, "params": jax.tree.map(lambda v: v * 1.1, variables["params"])}
        runs = {
            method: jax.jit(lambda x, m=method, b=layer, v=variables: b.apply(v, x, method=m))
            for method in ("inverse_and_log_det", "forward_and_log_det")
        }
        x = runs["inverse_and_log_det"](y)[0]
        seconds = interleaved(
            {
                "fast": lambda run=runs["inverse_and_log_det"]: run(y),
                "slow": lambda run=runs["forward_and_log_det"], x=x: run(x),
            }
        )
        fast, slow = (min(seconds[key]) * 1e3 for key in ("fast", "slow"))
        print(f"| `{name}` | {fast:.1f} | {slow:.1f} | {slow / fast:.1f} | {steps} |", flush=True)


if __name__ == "__main__":
    main()
