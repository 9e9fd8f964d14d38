"""On one GPU: what it can do at most, and jflow and the PyTorch libraries beside that.

python -m benchmarks.gpu [maf | spline | glow] [--torch PYTHON] [--minutes M] [--tiny]

It needs JAX for the GPU with jflow; and, for the others, a Python with PyTorch and the libraries of
benchmarks/peers/requirements-torch.txt (those that are missing are left out). Each library has the
GPU to itself, one after the other; those whose turn comes after `--minutes` are named and left
out. `--tiny` tries it out anywhere.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.compare import Library, LibraryError
from benchmarks.peers.cases import Case, chosen

# XLA otherwise takes most of the memory at once; then nobody sees what a program needs.
MEMORY = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
PRECISIONS = ("bfloat16", "tf32", "float32")
# What says most comes first: time may end before the list.
OURS = ("", "bfloat16", "reversible", "bfloat16 reversible", "bfloat16 remat:dots_saveable")
REPEATS = 5


def _seconds(program: Callable[..., Any], *args: Any) -> float:
    jax.block_until_ready(program(*args))
    found = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(program(*args))
        found.append(time.perf_counter() - start)
    return min(found)


def ceilings(size: int) -> dict[str, Any]:
    """The device, and measured: operations a second of large products, and bytes a second."""
    found: dict[str, Any] = {
        "platform": jax.devices()[0].platform,
        "kind": jax.devices()[0].device_kind,
    }
    for name, dtype, precision in (
        ("bfloat16", jnp.bfloat16, None),
        ("tf32", jnp.float32, "tensorfloat32"),
        ("float32", jnp.float32, "highest"),
    ):
        x = jnp.ones((size, size), dtype)
        product = jax.jit(lambda x, p=precision: jnp.matmul(x, x, precision=p))
        found[name] = 2 * size**3 / _seconds(product, x)
    x = jnp.ones(16 * size**2, jnp.float32)
    found["bytes"] = 2 * x.nbytes / _seconds(jax.jit(lambda x: x + 1), x)
    return found


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Its result, from a process of its own, which leaves the device's memory to the next one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _levels(case: Case) -> Iterator[tuple[int, int]]:
    """Pixels and channels of each level of a Glow."""
    height, width, channels = case.shape
    for level in range(1, 4):
        yield height * width // 4**level, channels * 2 ** (level + 1)


def work(case: Case, bytes_each: int) -> tuple[float, float]:
    """Operations and bytes that a train step of Glow cannot do without, for one image.

    Those of the coupling networks and the 1x1 convolutions: the forward pass and, at twice its
    cost, the backward one. Bytes are those of the networks' inputs, hidden layers and outputs, each
    written once and read once.
    """
    hidden, operations, moved = case.hidden[0], 0.0, 0.0
    for pixels, c in _levels(case):
        products = 9 * (c // 2) * hidden + hidden * hidden + 9 * hidden * c + c * c
        operations += 3 * case.layers * pixels * 2 * products
        moved += 3 * case.layers * pixels * 2 * bytes_each * (c // 2 + 2 * hidden + c)
    return operations, moved


def largest(name: str, library: str, python: str, limit: int, **environment: str) -> list[dict]:
    """Measurements at batches from 256, fourfold until memory ends or `limit` is reached."""
    found, batch = [], 256
    while batch <= limit:
        try:
            process = Library(library, name, python, BENCH_BATCH=str(batch), **environment)
            least = {p: min(process.run(p, REPEATS)) for p in chosen(name).programs}
            process.close()
        except LibraryError as error:
            print(f"  {library}, batch {batch}: {error}", file=sys.stderr, flush=True)
            break
        found.append({"batch": batch, **least, **process.about})
        batch *= 4
    return found


def glow(options: Any, most: dict[str, Any]) -> None:
    """Images a second at the best batch; shares of the matrix rate and of the roofline."""
    name = "tiny glow" if options.tiny else "gpu glow"
    case = chosen(name)
    heads = (
        "largest batch | best batch | images/s | of bf16 rate | of roofline | log_prob, sample, ms"
    )
    print(f"\n### {case.title}\n\n| | {heads} | first step, s |\n{'|---' * 8}|")
    ours = [(f"jflow {v}".strip(), sys.executable, v, MEMORY) for v in OURS]
    theirs = []
    for precision in PRECISIONS:
        given = {"BENCH_DEVICE": options.device, "BENCH_PRECISION": precision}
        theirs += [(lib, options.torch, precision, given) for lib in ("normflows", "nflows")]
    for library, python, variant, environment in options.in_time([*ours[:2], *theirs, *ours[2:]]):
        found = largest(name, library, python, options.limit, **environment)
        if not found:
            continue
        best = min(found, key=lambda v: v["train"] / v["batch"])
        rate = best["batch"] / best["train"]
        half = "bfloat16" in variant
        operations, moved = work(case, 2 if half else 4)
        arithmetic = most["bfloat16" if half else "float32" if variant == "float32" else "tf32"]
        roofline = max(operations / arithmetic, moved / most["bytes"])
        label = library if library.startswith("jflow") else f"{library}, {variant}"
        print(f"| {label} | {found[-1]['batch']} | {best['batch']} | {rate:.0f} | "
              f"{rate * operations / most['bfloat16']:.2f} | {rate * roofline:.2f} | "
              f"{1e3 * best['log_prob']:.1f}, {1e3 * best['sample']:.1f} | "
              f"{best['first_call']['train']:.1f} |", flush=True)  # fmt: skip


def vectors(kind: str, options: Any) -> None:
    """Milliseconds of each program at one batch."""
    name = {"maf": "tiny maf", "spline": "tiny"}[kind] if options.tiny else f"gpu {kind}"
    case = chosen(name)
    print(f"\n### {case.title}, batch {case.batch}\n\n| | {' | '.join(case.programs)} | first, s |")
    print("|---" * (len(case.programs) + 2) + "|")
    runs = [("jflow", sys.executable, MEMORY), ("jflow bfloat16", sys.executable, MEMORY)]
    given = {"BENCH_DEVICE": options.device, "BENCH_PRECISION": "tf32"}
    runs += [(library, options.torch, given) for library in ("zuko", "nflows", "normflows")]
    for library, python, environment in options.in_time(runs):
        try:
            process = Library(library, name, python, **environment)
            cells = [f"{1e3 * min(process.run(p, REPEATS)):.2f}" for p in case.programs]
            process.close()
        except LibraryError as error:
            print(f"  {error}", file=sys.stderr, flush=True)
            continue
        first = process.about["first_call"]["train"]
        print(f"| {library} | {' | '.join(cells)} | {first:.1f} |", flush=True)


def main() -> None:
    """The command line."""
    parts = ("maf", "spline", "glow")
    parser = argparse.ArgumentParser(description="Flows on one GPU.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--torch", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--limit", type=int, default=256, help="the largest batch of Glow to try")
    parser.add_argument("--minutes", type=float, default=8.0, help="when to begin nothing more")
    parser.add_argument("--tiny", action="store_true", help="small flows, on whatever there is")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    end = time.monotonic() + 60 * options.minutes

    def in_time(runs: list) -> Iterator[Any]:
        for run in runs:
            if time.monotonic() < end:
                yield run
            else:
                print(f"  {run[0]}: no time left", file=sys.stderr, flush=True)

    options.in_time = in_time
    most = in_own_process(ceilings, 256 if options.tiny else 8192)
    if most["platform"] == "cpu" and not options.tiny:
        parser.error("JAX finds no GPU here; --tiny tries this out on a processor")
    options.device = "cpu" if most["platform"] == "cpu" else "cuda"
    rates = ", ".join(f"{name} {most[name] / 1e12:.3g}" for name in PRECISIONS)
    print(f"{most['kind']}, jax {jax.__version__}. Measured here: {rates} TFLOP/s; "
          f"{most['bytes'] / 1e9:.0f} GB/s", flush=True)  # fmt: skip
    for part in options.parts or parts:
        glow(options, most) if part == "glow" else vectors(part, options)


if __name__ == "__main__":
    main()
