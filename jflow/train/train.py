"""The machine that trains: any objective, any source, any step, and no work lost."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jax import Array
from jax.sharding import Mesh

from jflow.data.batches import Arrays, Source
from jflow.data.streams import Stream
from jflow.distributions.compiled import cache_compilations
from jflow.functional.arguments import as_key, check_counts
from jflow.functional.sharding import place
from jflow.train.checkpoints import open_checkpoints
from jflow.train.history import History, Row, writer
from jflow.train.objectives import Objective
from jflow.train.run import Run
from jflow.train.steps import Step
from jflow.train.terminal import show_progress, watch


def train(
    objective: Objective, source: Source, *, key: Array | int, step: Step,
    validation: Arrays | Stream | None = None, steps: int = 2000, evaluate_every: int = 100,
    patience: int | None = None, variables: Any = None, mesh: Mesh | None = None,
    directory: str | os.PathLike[str] | None = None, checkpoint_every: int | None = None,
    keep: int = 3, resume: bool = False, cache: str | os.PathLike[str] | None = None,
    progress: bool | str = True, callback: Callable[[Any, Row], Any] | None = None,
) -> tuple[Any, History]:  # fmt: skip
    """Trains whatever has an objective, on whatever has batches, by whatever step.

    Steps run on the device, many at a time. Two runs with equal arguments on equal machines are
    equal bit for bit, and so is a run that ended early, by whatever cause, and was resumed.

    Args:
      objective: what is minimised.
      source: of batches: `Arrays`, `Stream`, or your own.
      key: a JAX random key or a whole number.
      step: such as `gradient_step(objective, optimizer)`, or `alternating(...)`.
      validation: examples to validate on; the returned variables are those that did best on them.
        A stream is read whole. With a `directory` it is kept there, and resumptions, which compare
        256 examples of it, do not read it again.
      steps: how many.
      evaluate_every: steps between validations, progress and rows of metrics.
      patience: stop after so many validations in a row without a better one; None for never.
      variables: to start from; a function of a batch that makes them; None for `objective.init`.
        Both are traced, where there is a directory: for shapes alone.
      mesh: of devices, to train on all of them; see `make_mesh`.
      directory: where to write metrics.jsonl, metrics.csv and checkpoints; None for nowhere.
      checkpoint_every: steps between checkpoints; None for `evaluate_every`.
      keep: how many checkpoints, the last ones; each holds the best parameters, too.
      resume: whether to go on from the last good checkpoint in `directory`, if there is one.
      cache: a directory for compiled programs; see `cache_compilations`.
      progress: "bar", "log" for a line each row, False for silence; True for what fits the screen.
      callback: called after each validation with what `objective.view` makes of the variables, and
        the row of metrics; if it returns "stop", the run ends.

    Returns:
      What `objective.finish` makes of the best variables, and the history of the run, which tells
      how it ended: "done", "patience", "stopped" (by the callback) or "interrupted" (by SIGINT,
      which Ctrl-C and a notebook's stop button send; a second one raises KeyboardInterrupt at
      once).

    Raises:
      ValueError: arguments that do not fit.
      FileExistsError: another run is in `directory`, or was and is not to be resumed.
      CheckpointError: a checkpoint could not be written, or all that are there are damaged.
      NonFiniteLossError: training diverged.
      Preempted: SIGTERM came, and there is a `directory`; a `SystemExit` with status 75.
    """
    check_counts("fit", keep=keep)
    if directory is None and resume:
        raise ValueError("resume=True needs a directory to look in; got directory=None")
    if not isinstance(validation, Arrays | Stream | None):
        what = type(validation).__name__
        raise TypeError(f"validation must be train.Arrays or a train.Stream; got {what}")
    if getattr(step, "objective", objective) != objective:
        raise ValueError("the objective of the step is another than that of train")
    plan = Plan(steps, evaluate_every, checkpoint_every, patience)
    placement = place(mesh, source.batch_size)
    run = Run(objective, source, step, as_key("train", key), plan, placement, validation, callback)
    folder = None if directory is None else Path(directory).expanduser()
    with (
        cache_compilations(cache),
        open_checkpoints(folder, keep, resume) as checkpoints,
        watch(folder is not None) as asked,
        show_progress(progress, steps, source.batch_size, objective.unit) as bar,
    ):
        run.start(variables, checkpoints)
        with writer(folder, run.record.rows) as write:
            listeners = [write, bar.show]
            return run.go(listeners, bar.reach, asked)


@dataclass(frozen=True)
class Plan:
    """How far to go, and when to look up; see `train`.

    Raises:
      ValueError: a number below 1.
    """

    steps: int
    evaluate_every: int
    checkpoint_every: int | None
    patience: int | None

    def __post_init__(self) -> None:
        given = asdict(self).items()
        optional = ("checkpoint_every", "patience")
        check_counts("fit", **{n: v for n, v in given if n not in optional or v is not None})

    def next_stop(self, step: int) -> int:
        """The next step after which there is something to do."""
        each = (self.evaluate_every, self.checkpoint_every or self.evaluate_every)
        return min(self.steps, *((step // every + 1) * every for every in each))
