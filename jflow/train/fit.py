"""Fitting a flow to data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import optax
from jax import Array
from jax.sharding import Mesh

from jflow.distributions import Density, Flow
from jflow.functional.arguments import as_key, check_counts
from jflow.train.checkpoints import open_checkpoints
from jflow.train.compilation import cache_compilations
from jflow.train.history import History, Row, progress_bar, writer
from jflow.train.inputs import Inputs
from jflow.train.interruption import watch_for_termination
from jflow.train.loop import Rules
from jflow.train.objective import MaximumLikelihood, unit
from jflow.train.optimizer import build_optimizer
from jflow.train.run import Plan
from jflow.train.sharding import Placement, place
from jflow.train.trainer import Trainer


def fit(
    flow: Flow,
    data: Any,
    *,
    key: Array | int,
    context: Any = None,
    validation: Any = 0.1,
    steps: int = 2000,
    batch_size: int = 256,
    augment: Callable[[Array, Array], Array] | None = None,
    workers: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 2e-3,
    warmup_steps: int = 100,
    clip_norm: float | None = None,
    clip_ratio: float | Literal["auto"] | None = "auto",
    ema_decay: float | None = None,
    evaluate_every: int = 100,
    patience: int | None = None,
    validation_samples: int = 1,
    dimensions: int | None = None,
    check_drift: bool = False,
    max_skipped: int = 0,
    variables: Any = None,
    mesh: Mesh | None = None,
    directory: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    keep: int = 3,
    resume: bool = False,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callback: Callable[[Density, Row], None] | None = None,
) -> tuple[Density, History]:
    """Fits a flow to data by maximum likelihood.

    Noise that the flow draws, as to dequantize grey levels, is new at each step. Steps run
    on the device, many at a time. Two runs with equal arguments on equal machines are equal bit for
    bit, and so is a run that ended early, by whatever cause, and was resumed.

    Args:
      flow: the architecture.
      data: (N, *event): floating, or integers for a flow of them (grey levels). Or a stream, for
        data that are read as they are needed: a `grain.MapDataset` of examples, {"y": ...,
        "context": ...} or y alone, as `jflow.data.tfds`, `folder` and `arrays` give.
      key: a JAX random key or a whole number; it decides the split, the parameters, the order and
        the noise.
      context: (N, *context_shape), or a dict of such, for a conditional flow. Up to 10,000
        of them (of a stream, the first batch) give the units that they are taken in; see `Flow`.
      validation: what to validate on: a share of the data, in (0, 1); an array (M, *event), a tuple
        of such an array and its context, or a stream, which is read whole; or None. Its noise is
        the same each time. The returned parameters are those that did best on it; without it, the
        last.
      steps: how many parameter updates.
      batch_size: examples for each.
      augment: what is done to each batch: a function of a key and y, compiled with the step, such
        as `jflow.data.flip_left_right`.
      workers: processes that read a stream; 0 for threads of this one.
      optimizer: any optax optimiser, schedule included; None for Adam.
      learning_rate: of that Adam: a number, from which it falls by half a cosine to 0 at the last
        of `steps`, or an optax schedule, such as `optax.constant_schedule(1e-3)`.
      warmup_steps: over which updates grow linearly to their full size.
      clip_norm: the largest global norm of gradients; None for no limit. A limit that most steps
        meet moves the optimum: E[g / |g|] is zero elsewhere than E[g].
      clip_ratio: the largest global norm over the running average of the norms before, so that few
        examples far from all others do not spoil Adam's moments; None for no limit. "auto" is 3
        for images; of tables, outliers are what the fit must learn to bear.
      ema_decay: of an exponential moving average of the parameters, which then is what is
        validated and returned; None for none.
      evaluate_every: steps between validations, progress and rows of metrics.
      patience: stop after so many validations in a row without a better one; None for never.
      validation_samples: draws of that noise in validation.
      dimensions: of bits per dimension, if not the event's size; see `Density.bits_per_dim`.
      check_drift: whether to report, with each validation, how far off the inputs of reversible
        layers are that backward passes compute: the column `drift` of the history, the largest
        error on one batch. Without it, rounding in ill-conditioned layers would go unseen.
      max_skipped: how many steps in a row may be skipped because their loss or gradient is not
        finite, before training stops; the column `skipped` counts them.
      variables: to start from; None to initialise them on the first batch.
      mesh: of devices, to train on all of them; see `train.make_mesh`. Each process of a run on
        several hosts calls `fit` with the same arguments.
      directory: where to write metrics.jsonl, metrics.csv and checkpoints; None for nowhere. With
        it, SIGTERM writes a checkpoint and raises `Preempted`.
      checkpoint_every: steps between checkpoints; None for `evaluate_every`.
      keep: how many checkpoints, the last ones; each holds the best parameters, too.
      resume: whether to go on from the last good checkpoint in `directory`, if there is one. The
        flow, the data, the key, the batch size and the kind of optimizer must be those that the run
        began with. Numbers of the optimizer, `steps`, `patience` and the like may be others.
      cache: a directory for compiled programs, which later processes then need not compile; None
        for none. See `cache_compilations`.
      progress: whether to show a progress bar, if the screen is a terminal.
      callback: called after each validation with the density as it is then, which the next steps
        use up, and the row of metrics.

    Returns:
      The density and the history of the run.

    Raises:
      TypeError, ValueError: data or arguments that do not fit, before any time is spent.
      FileExistsError: another run is in `directory`, or was and is not to be resumed.
      CheckpointError: a checkpoint could not be written, or all that are there are damaged.
      NonFiniteLossError: training diverged. The error holds the best parameters so far.
      Preempted: SIGTERM came; a `SystemExit` with status 75.
    """
    plan = Plan(steps, evaluate_every, checkpoint_every, patience)
    data = Inputs(flow, data, context, validation, as_key("fit", key), batch_size, augment, workers)
    tx = build_optimizer(optimizer, learning_rate, warmup_steps, clip_norm, _clip(flow, clip_ratio))
    rules = _rules(flow, dimensions, augment, tx, ema_decay, max_skipped, place(mesh, batch_size))
    trainer = Trainer(flow, dimensions, rules, plan, data, validation_samples, check_drift)
    return _run(trainer, variables, directory, keep, resume, cache, progress, callback)


def _clip(flow: Flow, ratio: float | Literal["auto"] | None) -> float | None:
    """The limit of gradients: unless told otherwise, images have one."""
    if ratio == "auto":
        return 3.0 if len(flow.event_shape) == 3 else None
    return ratio


def _rules(
    flow: Flow,
    dimensions: int | None,
    augment: Callable[[Array, Array], Array] | None,
    built: tuple[optax.GradientTransformation, bool],
    ema_decay: float | None,
    max_skipped: int,
    placement: Placement,
) -> Rules:
    optimizer, falls = built
    objective = MaximumLikelihood(flow, dimensions, augment)
    return Rules(objective, optimizer, ema_decay, falls, max_skipped, placement)


def _run(
    trainer: Trainer,
    variables: Any,
    directory: Any,
    keep: int,
    resume: bool,
    cache: Any,
    progress: bool,
    callback: Any,
) -> tuple[Density, History]:
    """Trains with all that is outside of the numbers: files, signals, the screen."""
    check_counts("fit", keep=keep)
    if directory is None and resume:
        raise ValueError("resume=True needs a directory to look in; got directory=None")
    folder = None if directory is None else Path(directory).expanduser()
    settings = {} if folder is None else trainer.settings
    steps, size, name = trainer.plan.steps, trainer.inputs.batch_size, unit(trainer.flow)
    with (
        cache_compilations(cache),
        open_checkpoints(folder, settings, keep, resume) as checkpoints,
        watch_for_termination(folder is not None) as interrupted,
        progress_bar(steps, size, name, enabled=progress) as bar,
    ):
        run = trainer.start(variables, checkpoints)
        with writer(folder, trainer.columns, run.record.rows) as write:
            told = [lambda _, row: write(row), lambda _, row: bar.show(row)]
            told += [] if callback is None else [callback]
            return trainer.train(run, told, bar.reach, checkpoints, interrupted)
