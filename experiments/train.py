"""Runs an experiment: python -m experiments.train NAME [--steps 100] [--cache DIRECTORY]."""

import dataclasses
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated

import jax
import optax
import tyro

import jflow
from experiments.baselines import fit_baselines
from experiments.config import ImageExperiment
from experiments.report import draw_pictures, print_result
from jflow.data import Splits
from jflow.train import History

# On the command line, --steps and not --config.steps.
Config = Annotated[ImageExperiment, tyro.conf.arg(name="")]
EXPERIMENTS = (
    "digits_glow",
    "digits_residual_flow",
    "mnist_glow",
    "mnist_real_nvp",
    "mnist_residual_flow",
)


def run(config: ImageExperiment, directory: Path) -> dict:
    """Fits, tests and draws; writes everything into `directory` and returns result.json."""
    start = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2))
    splits = config.load()
    density, history = _fit(config, splits, directory)
    density.save(directory / "density")
    test = jflow.evaluate(
        density,
        config.pad(splits.test.y),
        key=jax.random.key(config.seed + 1),
        samples=config.test_samples,
        dimensions=splits.test.y[0].size,
    )
    draw_pictures(density, history, config.pad(splits.test.y), directory)
    result = {
        "test_bits_per_dim": test.mean,
        "standard_error": test.standard_error,
        "baselines": fit_baselines(splits, config.test_samples) if config.baselines else {},
        "best_step": history.best_step,
        "seconds": time.perf_counter() - start,
    }
    (directory / "result.json").write_text(json.dumps(result, indent=2))
    return result


def _fit(config: ImageExperiment, splits: Splits, directory: Path) -> tuple[jflow.Density, History]:
    decay_steps = max(1, config.steps - config.warmup_steps)
    return jflow.fit(
        config.flow(splits),
        config.pad(splits.train.y),
        key=jax.random.key(config.seed),
        validation=config.pad(splits.validation.y),
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=optax.cosine_decay_schedule(
            config.learning_rate, decay_steps, config.final_rate
        ),
        warmup_steps=config.warmup_steps,
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
        evaluate_every=config.evaluate_every,
        patience=config.patience,
        validation_samples=4,
        dimensions=splits.train.y[0].size,
        directory=directory,
    )


def main() -> None:
    """The command line."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in EXPERIMENTS:
        sys.exit(
            f"usage: python -m experiments.train NAME [options]; NAME: {', '.join(EXPERIMENTS)}"
        )
    default = import_module(f"experiments.{name}").CONFIG

    def command(
        config: Config = default,
        directory: Path = Path("runs") / default.name,
        cache: Path | None = None,
    ) -> None:
        """Fits, tests and draws.

        Args:
          config: of the experiment.
          directory: where everything is written.
          cache: a directory for compiled programs, which later runs then need not compile.
        """
        with jflow.train.cache_compilations(cache):
            print_result(run(config, directory), directory)

    tyro.cli(command, args=sys.argv[2:], prog=f"python -m experiments.train {name}")


if __name__ == "__main__":
    main()
