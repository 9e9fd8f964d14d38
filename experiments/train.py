"""Runs an experiment: python -m experiments.train NAME [--steps 100] [--resume] [--profile].

The folder of a run, runs/NAME unless --directory says otherwise, holds config.json and
environment.json, metrics (JSON lines, CSV, TensorBoard), checkpoints, pictures of samples, the
best density and result.json. A run that ended early goes on with --resume; on SIGTERM it saves and
exits with status 75. --profile writes a trace for TensorBoard or Perfetto.
"""

import dataclasses
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import jflow
from experiments.baselines import fit_baselines
from experiments.config import Experiment, ImageExperiment, TableExperiment, mesh
from experiments.report import draw_pictures, print_result, tile
from experiments.tracking import environment, tracker, write_json
from jflow.data.told import spread

HERE = Path(__file__).parent
EXPERIMENTS = tuple(
    sorted(path.stem for path in HERE.glob("*.py") if "\nCONFIG = " in path.read_text())
)


def run(
    config: Experiment, directory: Path, *, resume: bool = False, profile: bool = False
) -> dict[str, Any]:
    """Fits, tests and draws; writes everything into `directory` and returns result.json.

    Args:
      config: of the experiment.
      directory: where everything is written.
      resume: whether to go on from the last checkpoint there, if there is one.
      profile: whether to trace some steps.

    Raises:
      FileExistsError: a run is or was in `directory`, and is not to be resumed.
    """
    began = time.perf_counter()
    check = directory / "checkpoints"
    if not resume and check.is_dir() and any(check.iterdir()):
        raise FileExistsError(
            f"{directory} holds a run. Continue it with --resume, or choose another --directory"
        )
    write_json(directory / "config.json", dataclasses.asdict(config))
    write_json(directory / "environment.json", environment())
    kind = _run_images if isinstance(config, ImageExperiment) else _run_table
    result = kind(config, directory, {"resume": resume}, profile)  # type: ignore[arg-type]
    result["seconds"] = time.perf_counter() - began
    write_json(directory / "result.json", result)
    return result


def _run_images(
    config: ImageExperiment, directory: Path, options: dict[str, Any], profile: bool
) -> dict[str, Any]:
    splits = config.load()
    seen, dimensions = splits.map(config.seen), splits.test.y[0].size

    def draw(density: jflow.Density) -> Any:
        samples = density.sample(jax.random.key(config.seed), 64, config.context_of(64))
        return tile(config.shown(samples), 8, splits.values)

    train = seen.train.y if isinstance(seen.train, jflow.data.Labelled) else seen.train
    every = config.samples_every
    # Flow matching is validated by its own loss.
    likelihood = config.recipe != "flow_matching"
    of_bits = {"dimensions": dimensions, "validation_samples": 4} if likelihood else {}
    held_out = seen.validation.y
    if config.classes is not None:
        of_bits["context"] = config.context(seen.train.labels)
        held_out = held_out, config.context(seen.validation.labels)
    with tracker(directory, profile=profile, draw=draw, draw_every=every) as track:
        density, history = _fit(
            config, config.flow(splits), train, held_out, directory, track,
            augment=config.augment(), workers=config.workers, **of_bits, **options,
        )  # fmt: skip
    test = {
        "key": jax.random.key(config.seed + 1),
        "samples": config.test_samples,
        "dimensions": dimensions,
        "mesh": mesh(config),
    }
    given = config.context(seen.test.labels)
    tested = jflow.evaluate(density, seen.test.y, given, **test)
    # The mean of p asks for log-determinants that are not estimates.
    weighted = {}
    if density.flow.bijector.log_det_kinds <= {"exact", "bound"}:
        mean = jflow.evaluate(density, seen.test.y, given, importance_weighted=True, **test).mean
        weighted = {"test_bits_per_dim_importance_weighted": mean}
    draw_pictures(config, density, history, seen.test, directory)
    return {
        "test_bits_per_dim": tested.mean,
        "standard_error": tested.standard_error,
        **weighted,
        **({} if given is None else {"test_accuracy": _accuracy(config, density, seen.test)}),
        "baselines": fit_baselines(splits, config.test_samples) if config.baselines else {},
        **_course(config, history),
    }


def _accuracy(config: ImageExperiment, density: jflow.Density, test: Any) -> float:
    """The share of images that are more likely given their own class than given any other."""
    bits = [
        jflow.evaluate(density, test.y, config.context(np.full(len(test), c)), key=0).examples
        for c in range(config.classes or 1)
    ]
    return float(np.mean(np.argmin(bits, axis=0) == test.labels))


def _run_table(
    config: TableExperiment, directory: Path, options: dict[str, Any], profile: bool
) -> dict[str, Any]:
    table = config.load()
    with tracker(directory, profile=profile) as track:
        density, history = _fit(
            config, config.flow(table), table.train, table.validation, directory, track, **options
        )
    key = jax.random.key(config.seed + 1)
    test = jflow.evaluate(density, table.test, key=key, mesh=mesh(config))
    _, log_dets = spread(table.schema.numbers, jnp.asarray(table.rows[2].values), key)
    log_det = float(log_dets.sum(-1).mean())
    return {
        "test_nll": test.mean,
        "standard_error": test.standard_error,
        "test_nll_raw_units": test.mean - log_det,
        "columns": len(table.columns),
        **_course(config, history),
    }


def _fit(
    config: Experiment,
    flow: jflow.Flow,
    train: Any,
    validation: Any,
    directory: Path,
    track: Any,
    **options: Any,
) -> tuple[jflow.Density, jflow.train.History]:
    decay_steps = max(1, config.steps - config.warmup_steps)
    density, history = jflow.fit(
        flow,
        train,
        key=jax.random.key(config.seed),
        validation=validation,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=optax.cosine_decay_schedule(
            config.learning_rate, decay_steps, config.final_rate
        ),
        warmup_steps=config.warmup_steps,
        clip_norm=config.clip_norm,
        clip_ratio=None,
        ema_decay=config.ema_decay,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        patience=config.patience,
        max_skipped=config.max_skipped,
        mesh=mesh(config),
        directory=directory,
        callback=track,
        **options,
    )
    density.save(directory / "density")
    return density, history


def _course(config: Experiment, history: jflow.train.History) -> dict[str, Any]:
    """How the training went."""
    last = history.rows[-1]
    return {
        "best_step": history.best_step,
        "steps": last["step"],
        "examples_per_second": last["step"] * config.batch_size / last["seconds"],
        "skipped_steps": sum(history.column("skipped")[1]),
    }


def main() -> None:
    """The command line."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in EXPERIMENTS:
        sys.exit(
            f"usage: python -m experiments.train NAME [options]; NAME: {', '.join(EXPERIMENTS)}"
        )
    default = import_module(f"experiments.{name}").CONFIG

    def command(
        config: Any = default,
        directory: Path = Path("runs") / default.name,
        resume: bool = False,
        profile: bool = False,
        smoke: bool = False,
        cache: Path | None = None,
        distributed: bool = False,
        coordinator: str | None = None,
        processes: int | None = None,
        process: int | None = None,
    ) -> None:
        """Fits, tests and draws.

        Args:
          config: of the experiment.
          directory: where everything is written.
          resume: go on from the last checkpoint there, if there is one.
          profile: trace the steps between the first two validations.
          smoke: two steps of a small model on noise, to see that all works.
          cache: a directory for compiled programs, which later runs then need not compile.
          distributed: this is one of several processes, each started by the same command, which see
            the same `directory`. On TPU pods, Slurm, Open MPI and Kubernetes the rest is found out.
          coordinator: HOST:PORT of the first process, elsewhere.
          processes: how many there are.
          process: which of them this is, from 0.
        """
        if distributed:
            jax.distributed.initialize(coordinator, processes, process)
        config = config.smoke() if smoke else config
        with jflow.train.cache_compilations(cache):
            result = run(config, directory, resume=resume, profile=profile)
            if jax.process_index() == 0:
                print_result(result, directory)

    # On the command line, --steps and not --config.steps.
    kind = Annotated[type(default), tyro.conf.arg(name="")]
    command.__annotations__["config"] = kind
    try:
        tyro.cli(command, args=sys.argv[2:], prog=f"python -m experiments.train {name}")
    except FileExistsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
