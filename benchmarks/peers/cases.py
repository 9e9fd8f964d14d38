"""The work, the same for every library. Needs numpy alone: every process reads it."""

import dataclasses
import os
from dataclasses import dataclass

import numpy as np

LEARNING_RATE = 1e-4
BINS, BOUND = 8, 4.0
ROWS, VALIDATION = 100_000, 0.1

EVERY = ("train", "log_prob", "sample")
# The libraries by their modules here; after a space, a variant.
JAX = ("jflow", "flowjax", "bijx", "bijx scan", "distrax")
TORCH = ("zuko", "nflows", "normflows")
IMAGES = ("jflow", "jflow remat", "jflow reversible", "freia", "normflows", "nflows")


@dataclass(frozen=True)
class Case:
    """One flow, and what to do with it.

    Attributes:
      title: for the table.
      kind: "spline" (rational-quadratic coupling), "maf" (affine autoregressive) or "glow".
      shape: of one example.
      layers: of the flow; of each of the 3 levels of a "glow".
      hidden: widths of the networks.
      batch: examples at a time.
      programs: what is timed: "train" (gradient of the mean negative log-likelihood and one update
        by Adam), "log_prob", "sample", "per example" (the norm of each example's own gradient),
        "fit" (passes over `ROWS` rows by the library's own loop, with validation after each).
      libraries: which can do it.
    """

    title: str
    kind: str
    shape: tuple[int, ...]
    layers: int
    hidden: tuple[int, ...]
    batch: int
    programs: tuple[str, ...]
    libraries: tuple[str, ...]


def _spline(name: str, features: int, layers: int, width: int, batch: int, *rest) -> Case:
    title = f"{name}: {features} features, {layers} layers, 8 bins, networks 2x{width}"
    return Case(title, "spline", (features,), layers, (width, width), batch, *rest)


def _glow(layers: int, width: int, programs: tuple, libraries: tuple = IMAGES) -> Case:
    title = f"Glow: 32x32x3, 3 levels of {layers} steps, {width} channels"
    return Case(title, "glow", (32, 32, 3), layers, (width, width), 16, programs, libraries)


_STEP = ("train",)
CASES = {
    "spline": _spline(
        "Spline coupling", 64, 10, 128, 512, EVERY, (*JAX, *TORCH, "zuko compile")
    ),
    "maf": Case(
        "MAF: 64 features, 10 layers, networks 2x256", "maf", (64,), 10, (256, 256), 512, EVERY,
        ("jflow", "flowjax", *TORCH),
    ),
    "glow": _glow(8, 128, EVERY),
    **{
        f"depth {n}": _spline("Spline coupling", 16, n, 64, 512, _STEP, (*JAX, *TORCH))
        for n in (4, 16, 64)
    },
    **{f"glow depth {n}": _glow(n, 64, _STEP) for n in (4, 16, 64)},
    "per example": _spline(
        "Per-example gradients", 16, 8, 64, 256, ("per example", "train"),
        ("jflow", "jflow unrolled", *JAX[1:], *TORCH),
    ),
    "fit": _spline(
        "fit, 100,000 rows", 16, 8, 64, 512, ("fit", "train", "log_prob"),
        ("jflow", "flowjax", "zuko"),
    ),
    "tiny": _spline("To try things out", 4, 4, 16, 32, EVERY, (*JAX, *TORCH)),
    "tiny maf": Case("MAF, to try things out", "maf", (4,), 2, (16, 16), 32, EVERY,
        ("jflow", "flowjax", *TORCH)),
    "tiny glow": _glow(1, 8, EVERY),
}  # fmt: skip


# Sizes for an accelerator; see benchmarks/gpu.py.
GPU_CASES = {
    "gpu glow": Case("Glow: 32x32x3, 3 levels of 32 steps, 512 channels", "glow", (32, 32, 3), 32,
        (512, 512), 64, EVERY, IMAGES),
    "gpu maf": Case("MAF: 64 features, 10 layers, networks 2x1024", "maf", (64,), 10, (1024, 1024),
        8192, EVERY, ("jflow", "flowjax", *TORCH)),
    "gpu spline": _spline("Spline coupling", 64, 10, 512, 8192, EVERY, (*JAX, *TORCH)),
}  # fmt: skip


def chosen(name: str) -> Case:
    """A case by its name; BENCH_BATCH in the environment changes its batch."""
    case = {**CASES, **GPU_CASES}[name]
    return dataclasses.replace(case, batch=int(os.environ.get("BENCH_BATCH", case.batch)))


def batch(case: Case) -> np.ndarray:
    """The same examples for every library; images are height, width, channels."""
    rng, shape = np.random.default_rng(0), (case.batch, *case.shape)
    draw = rng.uniform(-0.5, 0.5, shape) if case.kind == "glow" else rng.standard_normal(shape)
    return draw.astype(np.float32)


def table(case: Case) -> np.ndarray:
    """Rows to fit: a correlated, two-humped cloud within the splines' interval."""
    rng, features = np.random.default_rng(0), case.shape[0]
    mix = rng.standard_normal((features, features)) / features**0.5
    side = rng.choice([-1.0, 1.0], (ROWS, 1))
    rows = 0.6 * np.tanh(rng.standard_normal((ROWS, features)) @ mix) + 0.5 * side
    return (rows + 0.2 * rng.standard_normal(rows.shape)).astype(np.float32)
