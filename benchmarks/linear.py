"""What linear flows cost: python -m benchmarks.linear [SIZE ...], by default 64 512 4096.

Milliseconds for 16 vectors: one direction, the other, and log|det W| alone, beside a product, a
solve and a slogdet of an unstructured matrix. Parameters are arguments, so nothing is computed in
advance. A family whose cost has the promised order becomes cheaper, relative to these, as D grows.
"""

import sys

import jax
import jax.numpy as jnp

import jflow
from benchmarks.timing import interleaved
from jflow import bijectors as jb
from jflow.bijectors.matrices import FAMILIES

VECTORS = 16


def programs(kind: str, size: int) -> dict:
    """The three programs of one family, and what they are called with."""
    layer = jb.Linear(kind, rank=8 if kind == "low_rank" else None)
    x = jax.random.normal(jax.random.key(0), (VECTORS, size))
    if kind == "plu":
        # A random rotation of 4096 takes minutes to draw; any triangles do for timing.
        layer = jb.Linear("plu")
        shapes = jax.eval_shape(lambda: jflow.init(layer, jax.random.key(1), x))
        variables = jax.tree.map(lambda s: jnp.full(s.shape, 1e-4, s.dtype), shapes)
        order = jnp.arange(size, dtype=shapes["constants"]["order"].dtype)
        sign = jnp.ones((size,), shapes["constants"]["sign"].dtype)
        variables = {"params": variables["params"], "constants": {"order": order, "sign": sign}}
    else:
        variables = jflow.init(layer, jax.random.key(1), x)

    def run(method: str, part: int):
        compiled = jax.jit(lambda v, x: layer.apply(v, x, method=method)[part])
        return lambda: compiled(variables, x)

    return {
        "inverse": run("inverse_and_log_det", 0),
        "forward": run("forward_and_log_det", 0),
        "log_det": run("inverse_and_log_det", 1),
    }


def unstructured(size: int) -> dict:
    """Product, solve and slogdet of a full matrix."""
    x = jax.random.normal(jax.random.key(0), (VECTORS, size))
    w = jax.random.normal(jax.random.key(1), (size, size)) / size**0.5
    product, solve, log_det = (
        jax.jit(f)
        for f in (jnp.matmul, lambda x, w: jnp.linalg.solve(w.T, x.T).T,
                  lambda x, w: jnp.linalg.slogdet(w)[1])
    )  # fmt: skip
    return {
        "inverse": lambda: product(x, w),
        "forward": lambda: solve(x, w),
        "log_det": lambda: log_det(x, w),
    }


def main(sizes: list[int]) -> None:
    """Prints one row for each family."""
    print("| kind | " + " | ".join(f"{n}: x W, x W^-1, log det" for n in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for kind in ("unstructured", *FAMILIES):
        cells = []
        for size in sizes:
            runs = unstructured(size) if kind == "unstructured" else programs(kind, size)
            seconds = interleaved(runs, rounds=5 if size > 1000 else 15)
            cells.append(", ".join(f"{min(seconds[key]) * 1e3:.2f}" for key in runs))
            jax.clear_caches()
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [64, 512, 4096])
