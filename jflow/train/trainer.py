"""One run of `fit`: its steps, its evaluations, and what it takes to go on after an end."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jflow.bijectors.reversible import is_reversible
from jflow.distributions import Density, Flow
from jflow.distributions.contractions import settled
from jflow.functional.arguments import check_counts
from jflow.train import loop
from jflow.train.checkpoints import Checkpoints
from jflow.train.evaluation import all_losses, largest_drift
from jflow.train.history import History, Row
from jflow.train.inputs import Inputs
from jflow.train.interruption import Preempted
from jflow.train.loop import MOVING
from jflow.train.objective import unit
from jflow.train.run import NonFiniteLossError, Plan, Record, Run, run_arrays

# What one call of the loop should take, so that a run soon hears of a signal.
_SECONDS = 1.0


@dataclass
class Trainer:
    """What stays the same during a run; see `fit`."""

    flow: Flow
    dimensions: int | None
    rules: loop.Rules
    plan: Plan
    inputs: Inputs
    validation_samples: int
    check_drift: bool

    def __post_init__(self) -> None:
        check_counts("fit", validation_samples=self.validation_samples)
        check_counts("fit", dimensions=1 if self.dimensions is None else self.dimensions)
        if self.check_drift and not is_reversible(self.flow.bijector):
            raise ValueError("check_drift needs a flow with memory='reversible'; this one has none")
        if self.plan.patience is not None and self.inputs.held_out is None:
            raise ValueError("patience needs validation examples to wait for; got validation=None")
        rows = min(self.plan.evaluate_every, self.plan.steps)
        self.feed = self.inputs.feed(rows, self.rules.placement)

    @property
    def columns(self) -> list[str]:
        """Of the history's rows."""
        losses = [f"train_{unit(self.flow)}", f"validation_{unit(self.flow)}"]
        more = ["drift"] if self.check_drift else []
        more += ["skipped"] if self.rules.max_skipped else []
        return ["step", "seconds", "grad_norm", *more, *losses]

    @property
    def settings(self) -> dict[str, Any]:
        """What a run may not be resumed without, as JSON can hold it."""
        return self.inputs.settings | {
            "dimensions": self.dimensions,
            "validation_samples": self.validation_samples,
            "ema_decay": None if self.rules.ema_decay is None else "given",
        }

    def start(self, variables: Any, checkpoints: Checkpoints | None) -> Run:
        """The run as the last good checkpoint has it, or else at its first step.

        Args:
          variables: to begin with; None to initialise them.
          checkpoints: of the run, if it has any.
        """
        placement = self.rules.placement
        initial = partial(self.inputs.initial, self.feed.first())
        shapes = jax.eval_shape(initial) if variables is None else variables
        fresh = jax.eval_shape(self._fresh, shapes)
        found = checkpoints and checkpoints.restore(placement.shapes(fresh))
        if found:
            arrays, record = found[0], Record(**found[1])
            self.feed.seek(record.position)
        else:
            begun = initial() if variables is None else variables
            arrays, record = placement.build(self._fresh, begun), Record()
        state = loop.State(**arrays.pop("state"))
        return Run(state, **arrays, record=record)

    def _fresh(self, variables: Any) -> dict[str, Any]:
        state = loop.start(variables, self.rules)
        return run_arrays(state, loop.constant(variables), _trained(variables))

    def train(
        self,
        run: Run,
        listeners: Sequence[Callable[[Density, Row], Any]],
        reach: Callable[[int], None],
        checkpoints: Checkpoints | None,
        interrupted: Callable[[], bool],
    ) -> tuple[Density, History]:
        """Trains to the plan's end; returns the best parameters seen.

        Args:
          run: where to begin.
          listeners: told the density and each row of the history.
          reach: told the step, about once in a second.
          checkpoints: where to keep the run, if anywhere.
          interrupted: whether to end now.
        """
        plan, history = self.plan, History(unit(self.flow), run.record.rows, run.record.best_step)
        clock, pace, saved = time.perf_counter() - run.record.seconds, 1, run.step
        while run.step < plan.steps and run.record.misses < (plan.patience or math.inf):
            pace, stop = _agreed(min(pace, self.feed.rows), interrupted())
            if stop and checkpoints:
                if saved < run.step:
                    self._keep(run, checkpoints, clock)
                checkpoints.wait()
                raise Preempted
            pace = self._advance(run, pace, history)
            reach(run.step)
            if run.step % plan.evaluate_every == 0 or run.step == plan.steps:
                self._evaluate(run, history, clock)
                for listener in listeners:
                    listener(self._density(run), history.rows[-1])
            if checkpoints and run.step % (plan.checkpoint_every or plan.evaluate_every) == 0:
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

    def _advance(self, run: Run, pace: int, history: History) -> int:
        """Takes up to `pace` steps in one call; returns how many to take in the next."""
        count = min(pace, self.plan.next_stop(run.step) - run.step)
        chunk = self.feed.take(count)
        run.record.position, began = self.feed.position, time.perf_counter()
        run.state, report = loop.run(
            run.state,
            run.constants,
            *chunk,
            *self.rules.placement.replicate([np.int32(count), np.int32(self.plan.steps)]),
            jax.random.fold_in(self.inputs.key, 1),
            rules=self.rules,
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
        if self.rules.max_skipped:
            skipped = int(run.state.skipped)
            row["skipped"], record.skipped = skipped - record.skipped, skipped
        if self.check_drift:
            seen = self.inputs.held_out or self.feed.first()
            row["drift"] = largest_drift(density, seen.head(self.inputs.batch_size))
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
        if self.inputs.held_out is None:
            return None
        losses = all_losses(
            self.flow,
            density.variables,
            self.inputs.held_out,
            jax.random.fold_in(self.inputs.key, 2),
            self.validation_samples,
            self.dimensions,
            self.inputs.batch_size,
            self.rules.placement,
        )
        return float(np.mean(losses))

    def _density(self, run: Run) -> Density:
        params = run.state.params if self.rules.ema_decay is None else run.state.average
        return Density(self.flow, {"params": params, **run.constants, **run.state.moving})

    def _best(self, run: Run) -> Density:
        return Density(self.flow, {**run.constants, **run.best})


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
