"""Targets that are hard to find all of: flows, importance sampling and sequential Monte Carlo.

python -m benchmarks.targets [TARGET [OBJECTIVE [SEEDS [STEPS [RECIPE]]]]]

Rows of a Markdown table, one for each seed: the errors of log Z, in nats, with their reported
standard errors, by samples of the flow and by `train.smc` (16,384 points); effective sample size;
how many of the target's modes have at least a tenth of their share of the flow's samples; whether
`fit_to_target` or `train.smc` warns; seconds of the fit. OBJECTIVE is "reverse_kl", "alpha", "fab",
or "annealed", which is reverse KL with half of the steps annealed.
"""

import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jflow
from jflow import flows, train

POINTS = 16_384


class Target(NamedTuple):
    """A density whose normaliser is known.

    Attributes:
      log_prob: up to a constant, (n, features) to (n,).
      features: D.
      log_normalizer: in nats.
      shares: of p in each mode.
      mode: which one each sample is in.
    """

    log_prob: Callable[[Array], Array]
    features: int
    log_normalizer: float
    shares: np.ndarray
    mode: Callable[[np.ndarray], np.ndarray]


def two_modes(y: Array) -> Array:
    """Normals at -2 and 2 in every entry, with weights .3 and .7, times e^3."""
    normal = lambda mean: jnp.sum(jax.scipy.stats.norm.logpdf(y, mean), axis=-1)  # noqa: E731
    return 3 + jnp.logaddexp(normal(-2.0) + math.log(0.3), normal(2.0) + math.log(0.7))


def many_wells(y: Array) -> Array:
    """Pairs (a, b) with log p = -a^4 + 6 a^2 + a / 2 - b^2 / 2: two wells each."""
    a, b = y[:, 0::2], y[:, 1::2]
    return jnp.sum(-(a**4) + 6 * a**2 + a / 2 - b**2 / 2, axis=-1)


def funnel(y: Array) -> Array:
    """v = y_1 from N(0, 3^2), and the others from N(0, e^v) (Neal, 2003)."""
    v, rest = y[:, 0], y[:, 1:]
    normal = jax.scipy.stats.norm.logpdf
    return normal(v, 0, 3.0) + jnp.sum(normal(rest, 0, jnp.exp(v / 2)[:, None]), axis=-1)


def _wells(pairs: int) -> tuple[float, np.ndarray]:
    """log Z by quadrature, and the share of each combination of wells."""
    grid = np.linspace(-5, 5, 200_001)
    p = np.exp(-(grid**4) + 6 * grid**2 + grid / 2)
    log_z = pairs * (math.log(np.trapezoid(p, grid)) + math.log(2 * math.pi) / 2)
    right = float(np.sum(p[grid > 0]) / np.sum(p))
    codes = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
    return log_z, np.prod(np.where(codes, right, 1 - right), axis=1)


def targets() -> dict[str, Target]:
    """All by name."""
    log_z, shares = _wells(4)
    bits = 2 ** np.arange(4)
    one = np.ones(1)
    return {
        "two modes, 8-D": Target(
            two_modes, 8, 3.0, np.asarray([0.3, 0.7]), lambda y: (y.mean(axis=1) > 0).astype(int)
        ),
        "many wells, 8-D": Target(
            many_wells, 8, log_z, shares, lambda y: ((y[:, 0::2] > 0) * bits).sum(axis=1)
        ),
        "funnel, 10-D": Target(funnel, 10, 0.0, one, lambda y: np.zeros(len(y), int)),
    }


def row(name: str, objective: str, seed: int, steps: int, recipe: str) -> str:
    """One fit, as a row."""
    target = targets()[name]
    options: dict[str, Any] = {"objective": objective}
    if objective == "annealed":
        options = {"anneal": steps // 2}
    flow = getattr(flows, recipe)(target.features)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `warned` tells
        density, history = jflow.fit_to_target(
            flow, target.log_prob, key=seed, steps=steps, progress=False, **options
        )
        seconds = time.perf_counter() - began
        own = train.importance(density, target.log_prob, seed + 1, POINTS)
        found = train.smc(density, target.log_prob, seed + 2, POINTS)
    warned = bool(history.notes or found.advice)
    y = np.asarray(density.sample(seed + 3, 50_000))
    drawn = np.bincount(target.mode(y), minlength=len(target.shares)) / len(y)
    modes = int(np.sum(drawn > 0.1 * target.shares))
    errors = [
        f"{each.log_normalizer - target.log_normalizer:+.3f} ± {each.error:.3f}"
        for each in (own, found)
    ]
    return (
        f"| {name} | {recipe} | {objective} | {seed} | {errors[0]} | {errors[1]} | {own.ess:.2f} | "
        f"{modes} of {len(target.shares)} | {'yes' if warned else 'no'} | {seconds:.0f} |"
    )


def main(
    name: str = "", objective: str = "", seeds: str = "1", steps: str = "2000", recipe: str = "nsf"
) -> None:
    """Prints the table."""
    print("| target | flow | objective | seed | importance | SMC | ESS | modes | warned | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for each in [name] if name else targets():
        for goal in [objective] if objective else ("reverse_kl", "annealed", "alpha", "fab"):
            for seed in range(int(seeds)):
                print(row(each, goal, seed, int(steps), recipe), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
