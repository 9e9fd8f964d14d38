"""One run of training: its steps, its evaluations, and what it takes to go on after an end."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from jflow.data.batches import Arrays, Chunk, Source
from jflow.data.streams import Stream
from jflow.functional.sharding import Placement
from jflow.train.checkpoints import CheckpointError, Checkpoints
from jflow.train.evaluation import all_losses
from jflow.train.history import History, NonFiniteLossError, Record, Row
from jflow.train.objectives import MEMORY, MOVING, Objective
from jflow.train.steps import State, Step, advance
from jflow.train.terminal import ENDS, Preempted

if TYPE_CHECKING:
    from jflow.train.train import Plan

# What one call of the loop should take, so that a run soon hears of a signal.
_SECONDS = 1.0


class Run:
    """One run: its state, its best parameters, and what has happened."""

    state: State
    validation: Arrays | None
    best: Mapping[str, Any]
    record: Record
    step: int

    def __init__(
        self, objective: Objective, source: Source, step: Step, key: Array, plan: "Plan",
        placement: Placement, validation: Arrays | Stream | None,
        callback: Callable[[Any, Row], Any] | None,
    ):  # fmt: skip
        if plan.patience is not None and validation is None:
            raise ValueError("patience needs validation examples to wait for; got validation=None")
        self.objective, self.source, self.key = objective, source, key
        self._take = step.placed(placement)
        self.plan, self._held_out, self._callback = plan, validation, callback
        self.placement = placement
        self.rows = min(plan.evaluate_every, plan.steps, source.most)
        entropy = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist())
        self.seed = int(entropy.generate_state(1)[0] >> 1)
        self._stopped, self._asked = False, lambda: ""

    @property
    def settings(self) -> dict[str, Any]:
        """What a run may not be resumed without, as JSON can hold it."""
        return {
            "objective": self.objective.fingerprint(),
            "step": self._take.fingerprint(),
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "batch_size": self.source.batch_size,
            "validation": self.validation and self.validation.fingerprint(),
            "data": self.source.fingerprint(),
        }

    def start(self, variables: Any, checkpoints: Checkpoints | None) -> None:
        """Begins as the last good checkpoint has it, or else at the first step.

        Args:
          variables: see `train`.
          checkpoints: of the run, if it has any.
        """
        make = variables if callable(variables) else None
        if variables is None:
            make = partial(self.objective.init, jax.random.fold_in(self.key, 0))
        initial = partial(make, self._first()) if make else lambda: variables
        found = None
        held_out, file = self._held_out, checkpoints and checkpoints.validation
        self.validation = held_out.in_memory(file) if isinstance(held_out, Stream) else held_out
        if checkpoints is not None:
            shapes = jax.eval_shape(initial) if make else variables
            fresh = jax.eval_shape(self._fresh, shapes)
            found = checkpoints.restore(self.placement.shapes(fresh), self.settings)
        if found:
            arrays, self.record = found[0], Record(**found[1])
        else:
            arrays, self.record = self.placement.build(self._fresh, initial()), Record()
        total = self.placement.replicate(np.int32(self.plan.steps))
        self.state = State(**arrays["state"])._replace(total=total)
        self.best, self.step = arrays["best"], int(self.state.step)
        self._checkpoints, self._saved = checkpoints, self.step
        self.history = History(self.objective.unit, self.record.rows, self.record.best_step)

    def _fresh(self, variables: Any) -> dict[str, Any]:
        return self._arrays(self._take.start(variables), _trained(variables))

    def _arrays(self, state: State, best: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds beside the record."""
        return {"state": state._asdict(), "best": dict(best)}

    @cached_property
    def _some(self) -> Any:
        """A batch to look at: of validation, or the first."""
        if self.validation is None:
            return self._first()
        count = min(self.source.batch_size, len(self.validation))
        return jax.tree.map(jnp.asarray, self.validation.at(np.arange(count)).values)

    def _first(self) -> Any:
        """A batch to initialise on."""
        examples, rows, whole = self.source.first(self.seed)
        in_parts = rows is None and not whole
        put = self.placement.local_batch if in_parts else self.placement.batch
        return put(jax.tree.map(lambda a: a[0 if rows is None else rows[0]], examples.values))

    def go(
        self, listeners: list[Callable[[Row], Any]], reach: Callable[[int], None],
        asked: Callable[[], str],
    ) -> tuple[Any, History]:  # fmt: skip
        """Trains to the plan's end, or until asked to end.

        Args:
          listeners: told each row of the history.
          reach: told the step, about once in a second.
          asked: how to end now, if at all: one of `ENDS`.
        """
        pace, self._began, self._asked = 1, time.perf_counter() - self.record.seconds, asked
        every = self.plan.checkpoint_every or self.plan.evaluate_every
        try:
            while not self.history.ended:
                own = max(asked(), ENDS[self._stopped], key=ENDS.index)
                pace, self.history.ended = _agreed(min(pace, self.rows), own)
                if self.history.ended:
                    break
                if self._due:
                    if self._evaluate():
                        self._tell(listeners)
                elif self.step % every == 0 and self._saved < self.step:
                    self._save()
                elif self.record.misses >= (self.plan.patience or math.inf):
                    self.history.ended = "patience"
                elif self.step >= self.plan.steps:
                    self.history.ended = "done"
                else:
                    pace = self._advance(pace)
                    reach(self.step)
            self._save(last=True)
        except CheckpointError as error:
            error.density, error.history = self.objective.finish(self._best()), self.history
            raise
        if "terminated" in (self.history.ended, asked()):
            raise Preempted
        if not self.record.best_step and self.history.ended in ("done", "patience"):
            what = "the validation loss was never finite"
            raise self._not_finite(what)
        best = self.objective.finish(self._best())
        if asked() == "terminated":
            raise Preempted
        return best, self.history

    def _save(self, *, last: bool = False) -> None:
        """Begins to write a checkpoint, if one is due; the last one is written when it returns."""
        due, self._saved = self._saved < self.step, self.step
        if self._checkpoints is None:
            return
        if due:
            self.record.seconds = time.perf_counter() - self._began
            arrays = self._arrays(self.state, self.best)
            self._checkpoints.save(self.step, arrays, asdict(self.record))
        if last:
            self._checkpoints.wait()

    @property
    def _due(self) -> bool:
        """Whether a row is to be added."""
        last = self.record.rows[-1]["step"] if self.record.rows else 0
        now = self.step % self.plan.evaluate_every == 0 or self.step == self.plan.steps
        return now and self.step > last

    def _advance(self, pace: int) -> int:
        """Takes up to `pace` steps in one call; returns how many to take in the next."""
        count, began = min(pace, self.plan.next_stop(self.step) - self.step), time.perf_counter()
        try:
            chunk = self.source.take(self.seed, self.step, count)
        except Exception:
            if self._asked():  # signals reach processes that read, too, and end them
                return pace
            raise
        self.state, told = advance(
            self.state,
            *self._placed(chunk),
            self.placement.replicate(np.int32(count)),
            jax.random.fold_in(self.key, 1),
            step=self._take,
        )
        done, self.step = int(told.pop("taken")), int(self.state.step)
        if done < count:
            loss = np.asarray(told["loss"])[done]
            what = f"the loss or its gradient is not finite at step {self.step} (loss {loss})"
            raise self._not_finite(what)
        for name, values in told.items():
            self.record.told.setdefault(name, []).extend(np.asarray(values)[:count].tolist())
        seconds = time.perf_counter() - began
        if seconds < _SECONDS / 2:
            return 2 * pace
        return max(1, pace // 2) if seconds > 2 * _SECONDS else pace

    def _placed(self, chunk: Chunk) -> tuple[Any, Any]:
        """Examples and index on the devices, of one shape whatever the number of batches."""

        def filled(array: np.ndarray) -> np.ndarray:
            whole = np.zeros((self.rows, *array.shape[1:]), array.dtype)
            whole[: len(array)] = array
            return whole

        if chunk.rows is not None:
            return chunk.examples, self.placement.batch(filled(chunk.rows), axis=1)
        index = self.placement.replicate(np.arange(self.rows, dtype=np.int32))
        put = self.placement.batch if chunk.whole else self.placement.local_batch
        return put(jax.tree.map(filled, chunk.examples), axis=1), index

    def _evaluate(self) -> bool:
        """Adds the row of the steps since the last, and keeps the parameters if they are best.

        Returns:
          False if validation was cut short, because the run is to end.
        """
        losses = loss = None
        variables = self.state.variables
        if self.validation is not None:
            key, size = jax.random.fold_in(self.key, 2), self.source.batch_size
            alone = jax.process_count() == 1  # others would wait
            stop = lambda: alone and bool(self._asked())  # noqa: E731
            found = all_losses(
                self.objective, variables, self.validation, key, size, self.placement, stop
            )
            if found is None:
                return False
            losses, weights = found
            loss = float(np.average(losses, weights=weights))
        self.history.rows.append(self._row(variables, losses, loss))
        record = self.record
        best = math.inf if record.best_loss is None else record.best_loss
        if loss is None or (math.isfinite(loss) and loss < best):
            # A copy, since the next steps use the state up.
            self.best = jax.tree.map(jnp.copy, _trained(variables))
            record.best_loss, record.misses = loss, 0
            record.best_step = self.history.best_step = self.step
        else:
            record.misses += 1
        return True

    def _row(self, variables: Any, losses: Any, loss: float | None) -> Row:
        record, unit = self.record, self.objective.unit
        means = record.means()
        row = {"step": self.step, f"train_{unit}": means.pop("loss", math.nan)}
        if loss is not None:
            row[f"validation_{unit}"] = loss
        told = self.objective.metrics(variables, self._some, losses)
        row |= means | {name: float(value) for name, value in told.items()}
        skipped = int(self.state.skipped)
        row["skipped"], record.skipped, record.told = skipped - record.skipped, skipped, {}
        return row | {"seconds": time.perf_counter() - self._began}

    def _tell(self, listeners: list[Callable[[Row], Any]]) -> None:
        row = self.record.rows[-1]
        for listener in listeners:
            listener(row)
        if self._callback is not None:
            # A copy, too: the callback may keep it.
            variables = jax.tree.map(jnp.copy, self.state.variables)
            self._stopped = self._callback(self.objective.view(variables), row) == "stop"

    def _best(self) -> Mapping[str, Any]:
        """The best variables; those of now, where there was nothing to judge them by."""
        ended_early = self.history.ended in ("stopped", "interrupted")
        if ended_early and (self.validation is None or not self.record.best_step):
            self.history.best_step = self.step
            return self.state.variables
        return {**self.state.constants, **self.best}

    def _not_finite(self, what: str) -> NonFiniteLossError:
        goal, history = self.objective, self.history
        return NonFiniteLossError(what, self.step, goal.view(self._best()), history, goal.cause)


def _trained(variables: Any) -> dict[str, Any]:
    return {n: v for n, v in variables.items() if n in {"params", *MOVING} - {MEMORY}}


def _agreed(count: int, asked: str) -> tuple[int, str]:
    """The first process's count, and what any process is asked for: the same on all."""
    if jax.process_count() == 1:
        return count, asked
    both = np.asarray(multihost_utils.process_allgather(np.asarray([count, ENDS.index(asked)])))
    return int(both[0, 0]), ENDS[int(both[:, 1].max())]
