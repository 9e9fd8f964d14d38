"""One run of `fit`: its steps, its evaluations, and what it takes to go on after an end."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.experimental import multihost_utils

from jflow.distributions import Density, Flow
from jflow.distributions.contractions import settled
from jflow.train import loop
from jflow.train.arrays import Examples
from jflow.train.checkpoints import Checkpoints
from jflow.train.evaluation import all_losses, largest_drift
from jflow.train.feeds import Feed
from jflow.train.history import History, Row
from jflow.train.interruption import Preempted
from jflow.train.loop import MOVING
from jflow.train.objective import MaximumLikelihood, unit
from jflow.train.sharding import Placement

# What one call of the loop should take, so that a run soon hears of a signal.
_SECONDS = 1.0


class NonFiniteLossError(FloatingPointError):
    """Training met too many losses or gradients that are not finite, or no finite validation loss.

    Attributes:
      step: the step that was not taken, counted from 0.
      density: the density with the best parameters so far; without a validation before, those that
        training began with.
      history: of the run up to there.
    """

    def __init__(self, what: str, step: int, density: Density, history: History):
        super().__init__(
            f"{what}. The last good parameters are in this error's `density`. Try a smaller "
            "learning_rate, a longer warmup_steps or a smaller clip_norm, and look in the data for "
            "outliers and for points outside the flow's support; single bad batches may be skipped "
            "by max_skipped"
        )
        self.step, self.density, self.history = step, density, history


@dataclass
class Record:
    """What has happened in a run, as JSON can hold it.

    Attributes:
      rows: of the history.
      best_step: the step after which `Run.best` were the parameters.
      best_loss: in validation.
      misses: validations since.
      seconds: of training, in earlier processes too.
      skipped: steps, up to the last row.
      losses: of the steps since the last row.
      norms: of their gradients.
      position: of the feed.
    """

    rows: list[Row] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = math.inf
    misses: int = 0
    seconds: float = 0.0
    skipped: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    position: Any = None


@dataclass
class Run:
    """All that a run needs to go on.

    Attributes:
      state: of the loop.
      constants: the collections that training leaves alone.
      best: the parameters, and the collections that move, that did best in validation.
      record: of what has happened.
      step: how many steps were taken, those skipped among them.
    """

    state: loop.State
    constants: Mapping[str, Any]
    best: Mapping[str, Any]
    record: Record
    step: int = 0

    def __post_init__(self) -> None:
        self.step = int(self.state.step)

    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds beside the record."""
        return _arrays(self.state, self.constants, self.best)


@dataclass
class Plan:
    """How far to go, and when to look up; see `fit`."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None

    def next_stop(self, step: int) -> int:
        """The next step after which there is something to do."""
        each = (self.evaluate_every, self.checkpoint_every)
        return min(self.steps, *((step // every + 1) * every for every in each))


@dataclass
class Trainer:
    """What stays the same during a run; see `fit`."""

    flow: Flow
    optimizer: optax.GradientTransformation
    ema_decay: float | None
    objective: MaximumLikelihood
    feed: Feed
    held_out: Examples | None
    drift_batch: Examples | None
    batch_size: int
    validation_samples: int
    max_skipped: int
    key: Array
    placement: Placement

    @property
    def columns(self) -> list[str]:
        """Of the history's rows."""
        losses = [f"train_{unit(self.flow)}", f"validation_{unit(self.flow)}"]
        more = ["drift"] if self.drift_batch else []
        more += ["skipped"] if self.max_skipped else []
        return ["step", "seconds", "grad_norm", *more, *losses]

    def start(self, initial: Any, checkpoints: Checkpoints | None) -> Run:
        """The run as the last good checkpoint has it, or else at its first step.

        Args:
          initial: variables, or a function that makes them.
          checkpoints: of the run, if it has any.
        """
        variables = jax.eval_shape(initial) if callable(initial) else initial
        fresh = jax.eval_shape(self._fresh, variables)
        found = checkpoints and checkpoints.restore(self.placement.shapes(fresh))
        if found:
            arrays, record = found[0], Record(**found[1])
            self.feed.seek(record.position)
        else:
            variables = initial() if callable(initial) else initial
            arrays, record = self.placement.build(self._fresh, variables), Record()
        state = loop.State(**arrays.pop("state"))
        return Run(state, **arrays, record=record)

    def _fresh(self, variables: Any) -> dict[str, Any]:
        state = loop.start(variables, self.optimizer, averaged=self.ema_decay is not None)
        return _arrays(state, loop.constant(variables), _trained(variables))

    def train(
        self,
        run: Run,
        plan: Plan,
        listeners: Sequence[Callable[[Row], None]],
        reach: Callable[[int], None],
        checkpoints: Checkpoints | None,
        interrupted: Callable[[], bool],
    ) -> tuple[Density, History]:
        """Trains to the plan's end; returns the best parameters seen.

        Args:
          run: where to begin.
          plan: where to end.
          listeners: told each row of the history.
          reach: told the step, about once in a second.
          checkpoints: where to keep the run, if anywhere.
          interrupted: whether to end now.
        """
        history = History(unit(self.flow), run.record.rows, run.record.best_step)
        clock, pace, saved = time.perf_counter() - run.record.seconds, 1, run.step
        while run.step < plan.steps and run.record.misses < (plan.patience or math.inf):
            pace, stop = _agreed(min(pace, self.feed.rows), interrupted())
            if stop and checkpoints:
                self._keep(run, checkpoints, clock)
                checkpoints.wait()
                raise Preempted
            pace = self._advance(run, plan, pace, history)
            reach(run.step)
            if run.step % plan.evaluate_every == 0 or run.step == plan.steps:
                self._evaluate(run, history, clock)
                for listener in listeners:
                    listener(history.rows[-1])
            if checkpoints and run.step % plan.checkpoint_every == 0:
                self._keep(run, checkpoints, clock)
                saved = run.step
        if checkpoints and saved < run.step:
            self._keep(run, checkpoints, clock)
        best = self._best(run)
        if not run.record.best_step:
            what = "the validation loss was never finite"
            raise NonFiniteLossError(what, run.step, best, history)
        return Density(self.flow, settled(self.flow, best.variables)), history

    def _keep(self, run: Run, checkpoints: Checkpoints, clock: float) -> None:
        run.record.seconds = time.perf_counter() - clock
        checkpoints.save(run.step, run.arrays(), asdict(run.record))

    def _advance(self, run: Run, plan: Plan, pace: int, history: History) -> int:
        """Takes up to `pace` steps in one call; returns how many to take in the next."""
        count = min(pace, plan.next_stop(run.step) - run.step)
        chunk = self.feed.take(count)
        run.record.position, began = self.feed.position, time.perf_counter()
        run.state, report = loop.run(
            run.state,
            run.constants,
            *chunk,
            self.placement.replicate(np.asarray(count, np.int32)),
            jax.random.fold_in(self.key, 1),
            objective=self.objective,
            optimizer=self.optimizer,
            ema_decay=self.ema_decay,
            max_skipped=self.max_skipped,
            placement=self.placement,
        )
        self.feed.read_ahead(pace)  # while the device is busy
        done, losses = int(report.steps), np.asarray(report.loss)[:count]
        run.step = int(run.state.step)
        if done < count:
            what = (
                f"the loss or its gradient is not finite at step {run.step} (loss {losses[done]})"
            )
            raise NonFiniteLossError(what, run.step, self._best(run), history)
        run.record.losses += losses.tolist()
        run.record.norms += np.asarray(report.grad_norm)[:count].tolist()
        seconds = time.perf_counter() - began
        if seconds < _SECONDS / 2:
            return 2 * pace
        return max(1, pace // 2) if seconds > 2 * _SECONDS else pace

    def _evaluate(self, run: Run, history: History, clock: float) -> None:
        """Adds the row of the steps since the last, and keeps the parameters if they are best."""
        record, density = run.record, self._density(run)
        row = {"step": run.step, self.columns[-2]: _mean(record.losses)}
        row["grad_norm"] = _mean(record.norms)
        record.losses, record.norms = [], []
        if self.max_skipped:
            skipped = int(run.state.skipped)
            row["skipped"], record.skipped = skipped - record.skipped, skipped
        if self.drift_batch:
            row["drift"] = largest_drift(density, self.drift_batch)
        loss = self._validate(density)
        if loss is not None:
            row[self.columns[-1]] = loss
        if loss is None or loss < record.best_loss:
            # A copy, since the next steps use the state up.
            run.best = jax.tree.map(jnp.copy, _trained(density.variables))
            record.best_loss, record.misses = loss or 0.0, 0
            record.best_step = history.best_step = run.step
        else:
            record.misses += 1
        row["seconds"] = time.perf_counter() - clock
        history.rows.append(row)

    def _validate(self, density: Density) -> float | None:
        if self.held_out is None:
            return None
        losses = all_losses(
            self.flow,
            density.variables,
            self.held_out,
            jax.random.fold_in(self.key, 2),
            self.validation_samples,
            self.objective.dimensions,
            self.batch_size,
            self.placement,
        )
        return float(np.mean(losses))

    def _density(self, run: Run) -> Density:
        params = run.state.params if self.ema_decay is None else run.state.average
        return Density(self.flow, {"params": params, **run.constants, **run.state.moving})

    def _best(self, run: Run) -> Density:
        return Density(self.flow, {**run.constants, **run.best})


def _arrays(state: loop.State, constants: Any, best: Any) -> dict[str, Any]:
    return {"state": state._asdict(), "constants": dict(constants), "best": dict(best)}


def _trained(variables: Any) -> dict[str, Any]:
    return {name: v for name, v in variables.items() if name in ("params", *MOVING)}


def _mean(values: Sequence[float]) -> float:
    """Of those that are finite, as those of steps taken are."""
    array = np.asarray(values, np.float32)
    finite = array[np.isfinite(array)]
    return float(np.mean(finite)) if finite.size else math.nan


def _agreed(count: int, interrupted: bool) -> tuple[int, bool]:
    """The first process's count, and whether any process is interrupted: the same on all."""
    if jax.process_count() == 1:
        return count, interrupted
    both = np.asarray(multihost_utils.process_allgather(np.asarray([count, interrupted])))
    return int(both[0, 0]), bool(both[:, 1].any())
