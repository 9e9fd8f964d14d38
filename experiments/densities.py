"""Two-dimensional densities: recipes against the truth, in nats, with pictures.

python -m experiments.densities [--densities two_moons rings] [--recipes nsf] [--steps 5000]

KL(true || flow) is E[log p - log q] over fresh samples of the true density, whose log p is exact.
Expected of nsf_autoregressive, about: two moons 0.003, eight Gaussians 0.008, pinwheel 0.010, rings
0.013, checkerboard 0.025 nats. A fit takes half a minute to two minutes on two CPU cores, of most
continuous flows ten, and their KL as long.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tyro

import jflow
from jflow import data, flows, train
from jflow.functional import Adaptive

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DENSITIES = (
    "eight_gaussians", "rings", "two_moons", "pinwheel", "checkerboard", "two_spirals",
)  # fmt: skip
# ReLU units make sharper edges between far modes than SiLU, which is better for tables. Of eight
# Gaussians `real_nvp` is .12 off with ReLU, .18 with GELU and .26 with SiLU; `sos` .03, .11, .13.
SHARP: dict[str, Any] = {"hidden": (64, 64), "activation": "relu"}
RECIPES: dict[str, Callable[[], jflow.Flow]] = {
    "nice": lambda: flows.nice(2, layers=16, **SHARP),
    "real_nvp": lambda: flows.real_nvp(2, layers=16, **SHARP),
    "maf": lambda: flows.maf(2, layers=16, **SHARP),
    "iaf": lambda: flows.iaf(2, layers=16, **SHARP),
    "nsf": lambda: flows.nsf(2, layers=8, bins=16, mixing="lu", **SHARP),
    # Two layers are enough, if each conditional density may have many modes.
    "nsf_autoregressive": lambda: flows.nsf(
        2,
        layers=2,
        bins=64,
        autoregressive=True,
        mixing="reverse",
        hidden=(128, 128),
        activation="relu",
    ),
    "naf": lambda: flows.naf(2, layers=4, units=16, **SHARP),
    "bnaf": lambda: flows.bnaf(2, layers=1, units=64, depth=3),
    "sos": lambda: flows.sos(2, layers=4, degree=8, bound=4.0, **SHARP),
    "umnn": lambda: flows.umnn(2, layers=4, **SHARP),
    "hint": lambda: flows.hint(2, layers=12, **SHARP),
    # In the plane, their log-determinants are exact.
    "i_resnet": lambda: flows.i_resnet(2, layers=16, hidden=(64, 64, 64)),
    "residual_flow": lambda: flows.residual_flow(2, layers=16, hidden=(64, 64, 64)),
    "i_densenet": lambda: flows.i_densenet(2, layers=16, growth=32),
    # Closed form from data to base: these are fitted to data.
    "planar": lambda: flows.planar(2, layers=32, direction="inverse"),
    "radial": lambda: flows.radial(2, layers=32, direction="inverse"),
    "sylvester": lambda: flows.sylvester(2, layers=32, direction="inverse"),
    "ffjord": lambda: flows.ffjord(2),
    "rnode": lambda: flows.rnode(2),
    "ot_flow": lambda: flows.ot_flow(2),
    "flow_matching": lambda: flows.flow_matching(2),
}
# An `nsf_autoregressive` that learns from pairs of `flow_matching`.
STUDENT = "student"
CONTINUOUS = ("ffjord", "rnode", "ot_flow", "flow_matching")


@dataclass(frozen=True)
class Config:
    """What decides the results.

    Attributes:
      densities: names of `jflow.data.toy`.
      recipes: of RECIPES, or "student".
      seed: of parameters, data and order.
      steps: parameter updates.
      batch_size: examples for each.
      train_samples: drawn once, to fit on.
      test_samples: fresh ones, for the KL.
      pairs: drawn of the student's teacher.
      learning_rate: of Adam, at first; see `jflow.fit`.
      continuous_learning_rate: the same, of continuous flows.
      directory: of pictures and results.json.
    """

    densities: tuple[str, ...] = DENSITIES
    recipes: tuple[str, ...] = (*RECIPES, STUDENT)
    seed: int = 0
    steps: int = 5_000
    batch_size: int = 512
    train_samples: int = 500_000
    test_samples: int = 100_000
    pairs: int = 100_000
    learning_rate: float = 2e-3
    continuous_learning_rate: float = 1e-2
    directory: Path = Path("runs/densities")


def fit(config: Config, density: data.ToyDensity, recipe: str) -> jflow.Density:
    """The recipe fitted to samples of the density, or of a flow that was."""
    keys = jax.random.split(jax.random.key(config.seed), 2)
    if recipe == STUDENT:
        teacher = fit(config, density, "flow_matching").with_solver(Adaptive(1e-4))
        examples: Any = train.draw_pairs(teacher, keys[0], config.pairs)
        recipe = "nsf_autoregressive"
    else:
        examples = density.sample(keys[0], config.train_samples)
    continuous = recipe in CONTINUOUS
    fitted, _ = jflow.fit(
        RECIPES[recipe](),
        examples,
        key=keys[1],
        validation=None,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=(config.continuous_learning_rate if continuous else config.learning_rate),
        clip_norm=1.0,
        clip_ratio=None,
        ema_decay=0.999,
        evaluate_every=max(1, config.steps // 4),
    )
    return fitted


def divergence(
    density: data.ToyDensity, fitted: jflow.Density, key: jax.Array, samples: int
) -> tuple[float, float]:
    """KL(true || flow) in nats, and its standard error."""
    y = density.sample(key, samples)
    difference = np.asarray(density.log_prob(y) - fitted.log_prob(y), np.float64)
    return float(difference.mean()), float(difference.std() / np.sqrt(samples))


def draw(density: data.ToyDensity, fits: dict[str, jflow.Density], path: Path) -> None:
    """The true density beside the learned ones."""
    axis = jnp.linspace(-5, 5, 300)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)
    panels = {"true": density.log_prob, **{name: fit.log_prob for name, fit in fits.items()}}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3 * len(panels), 3.2), layout="constrained", squeeze=False
    )
    top = float(jnp.exp(jnp.max(density.log_prob(grid))))
    for ax, (name, log_prob) in zip(axes[0], panels.items(), strict=True):
        ax.imshow(np.exp(np.asarray(log_prob(grid))), origin="lower", vmin=0, vmax=top)
        ax.set_title(name)
        ax.axis("off")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def run(config: Config) -> dict[str, dict[str, list[float]]]:
    """Fits, measures and draws everything; writes results.json after each density."""
    config.directory.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, list[float]]] = {}
    for name in config.densities:
        density = data.toy(name)
        fits = {recipe: fit(config, density, recipe) for recipe in config.recipes}
        results[name] = {}
        for recipe, fitted in fits.items():
            key = jax.random.key(config.seed + 1)
            results[name][recipe] = list(divergence(density, fitted, key, config.test_samples))
            mean, error = results[name][recipe]
            print(f"{name:16s} {recipe:20s} KL {mean:.4f} +- {error:.4f}", flush=True)
        draw(density, fits, config.directory / f"{name}.png")
        settings = {f.name: getattr(config, f.name) for f in fields(config)}
        record = {"config": settings, "kl_nats": results}
        (config.directory / "results.json").write_text(json.dumps(record, indent=2, default=str))
    return results


if __name__ == "__main__":
    run(tyro.cli(Config))
