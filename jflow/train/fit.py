"""Fitting a flow to data that fits in memory."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jflow.bijectors.reversible import is_reversible
from jflow.distributions import Density, Flow, init
from jflow.distributions.contractions import settled
from jflow.train.arrays import Examples, batches, check_examples, split
from jflow.train.compilation import cache_compilations
from jflow.train.evaluation import all_losses, largest_drift
from jflow.train.history import History, Row, progress_bar, writer
from jflow.train.loop import State, constant, run, start
from jflow.train.objective import MaximumLikelihood, unit
from jflow.train.optimizer import build_optimizer


class NonFiniteLossError(FloatingPointError):
    """Training met a loss or gradient that is not finite, or no finite validation loss at all.

    Attributes:
      step: the step that was not taken, counted from 0.
      density: the density with the last good parameters.
      history: of the run up to there.
    """

    def __init__(self, what: str, step: int, density: Density, history: History):
        super().__init__(
            f"{what}. The last good parameters are in this error's `density`. Try a smaller "
            "learning_rate, a longer warmup_steps or a smaller clip_norm, and look in the data for "
            "outliers and for points outside the flow's support"
        )
        self.step, self.density, self.history = step, density, history


def fit(
    flow: Flow,
    data: ArrayLike,
    *,
    key: Array,
    context: ArrayLike | None = None,
    validation: float | ArrayLike | tuple[ArrayLike, ArrayLike] | None = 0.1,
    steps: int = 2000,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 1e-3,
    warmup_steps: int = 100,
    clip_norm: float | None = 1.0,
    ema_decay: float | None = None,
    evaluate_every: int = 100,
    patience: int | None = None,
    validation_samples: int = 1,
    dimensions: int | None = None,
    check_drift: bool = False,
    variables: Any = None,
    directory: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[Density, History]:
    """Fits a flow to data by maximum likelihood.

    Grey levels (a flow with `values`) are dequantized with fresh noise at each step. Steps run
    on the device, `evaluate_every` at a time. Two runs with equal arguments on equal machines
    are equal bit for bit.

    Args:
      flow: the architecture.
      data: (N, *event): floating, or integer grey levels for a flow with `values`.
      key: a JAX random key; it decides the split, the parameters, the order and the noise.
      context: (N, C), for a conditional flow.
      validation: what to validate on: a share of the data, in (0, 1); an array (M, *event); a
        tuple of such an array and its context; or None. Its noise is the same each time. The
        returned parameters are those that did best on it; without it, the last.
      steps: how many parameter updates.
      batch_size: examples for each.
      optimizer: any optax optimiser, schedule included; None for Adam.
      learning_rate: of that Adam; a number or an optax schedule.
      warmup_steps: over which updates grow linearly to their full size.
      clip_norm: the largest global norm of gradients; None for no limit.
      ema_decay: of an exponential moving average of the parameters, which then is what is
        validated and returned; None for none.
      evaluate_every: steps between validations, progress and rows of metrics.
      patience: stop after so many validations in a row without a better one; None for never.
      validation_samples: draws of the dequantization noise in validation.
      dimensions: of bits per dimension, if not the event's size; see `Density.bits_per_dim`.
      check_drift: whether to report, with each validation, how far off the inputs of reversible
        layers are that backward passes compute: the column `drift` of the history, the largest
        error on one batch. Without it, rounding in ill-conditioned layers would go unseen.
      variables: to start from; None to initialise them on the first batch.
      directory: where to write metrics.jsonl and metrics.csv; None for nowhere.
      cache: a directory for compiled programs, which later processes then need not compile; None
        for none. See `cache_compilations`.
      progress: whether to show a progress bar, if the screen is a terminal.

    Returns:
      The density and the history of the run.

    Raises:
      TypeError, ValueError: data or arguments that do not fit, before any time is spent.
      NonFiniteLossError: training diverged. The error holds the last good parameters.
    """
    _check_counts(steps, batch_size, evaluate_every, validation_samples)
    _check_options(flow, patience, validation, ema_decay, check_drift)
    examples, held_out = _prepare(flow, data, context, validation, _host_generator(key, 0))
    order = batches(len(examples), batch_size, _host_generator(key, 1))
    trainer = _Trainer(
        flow, build_optimizer(optimizer, learning_rate, warmup_steps, clip_norm), ema_decay,
        dimensions, examples, held_out, batch_size, validation_samples, key, check_drift,
    )  # fmt: skip
    with (
        cache_compilations(cache),
        writer(None if directory is None else Path(directory), trainer.columns) as write,
        progress_bar(steps, unit(flow), enabled=progress) as show,
    ):
        variables = variables or _initial(flow, examples.take(next(order)), key)
        return trainer.train(variables, order, steps, evaluate_every, patience, [write, show])


@dataclass
class _Trainer:
    flow: Flow
    optimizer: optax.GradientTransformation
    ema_decay: float | None
    dimensions: int | None
    examples: Examples
    held_out: Examples | None
    batch_size: int
    validation_samples: int
    key: Array
    check_drift: bool

    @property
    def columns(self) -> list[str]:
        losses = [f"train_{unit(self.flow)}", f"validation_{unit(self.flow)}"]
        more = ["drift"] if self.check_drift else []
        return ["step", "seconds", "grad_norm", *more, *losses]

    def train(
        self,
        variables: Any,
        order: Any,
        steps: int,
        evaluate_every: int,
        patience: int | None,
        listeners: list[Callable[[Row], None]],
    ) -> tuple[Density, History]:
        """Trains in stretches of `evaluate_every` steps; returns the best parameters seen."""
        history, start_time = History(unit(self.flow)), time.perf_counter()
        constants = constant(variables)
        state = start(variables, self.optimizer, averaged=self.ema_decay is not None)
        best, best_loss, misses = self._density(state, constants), math.inf, 0
        for first in range(0, steps, evaluate_every):
            count = min(evaluate_every, steps - first)
            index = np.zeros((min(evaluate_every, steps), self.batch_size), np.int32)
            index[:count] = list(islice(order, count))
            state, row = self._stretch(state, constants, index, count, history)
            row |= self._drift(state, constants)
            loss = self._validate(state, constants)
            if loss is not None:
                row[self.columns[-1]] = loss
            if loss is None or loss < best_loss:
                # A copy, since the next stretch uses the state up.
                best = jax.tree.map(jnp.copy, self._density(state, constants))
                best_loss, misses = loss or 0.0, 0
                history.best_step = int(state.step)
            else:
                misses += 1
            row["seconds"] = time.perf_counter() - start_time
            history.rows.append(row)
            for listener in listeners:
                listener(row)
            if patience is not None and misses >= patience:
                break
        if not history.best_step:
            what, density = "the validation loss was never finite", self._density(state, constants)
            raise NonFiniteLossError(what, int(state.step), density, history)
        return Density(self.flow, settled(self.flow, best.variables)), history

    def _stretch(
        self, state: State, constants: Any, index: np.ndarray, count: int, history: History
    ) -> tuple[State, Row]:
        state, report = run(
            state,
            constants,
            (self.examples.y, self.examples.context),
            jnp.asarray(index),
            jnp.asarray(count, jnp.int32),
            jax.random.fold_in(self.key, 1),
            objective=MaximumLikelihood(self.flow, self.dimensions),
            optimizer=self.optimizer,
            ema_decay=self.ema_decay,
        )
        done, loss = int(report.steps), np.asarray(report.loss)
        if done < count:
            density = self._density(state, constants)
            what = (
                f"the loss or its gradient is not finite at step {state.step} (loss {loss[done]})"
            )
            raise NonFiniteLossError(what, int(state.step), density, history)
        mean_norm = float(np.mean(np.asarray(report.grad_norm)[:count]))
        row = {"step": int(state.step), self.columns[-2]: float(np.mean(loss[:count]))}
        return state, {**row, "grad_norm": mean_norm}

    def _validate(self, state: State, constants: Any) -> float | None:
        if self.held_out is None:
            return None
        variables = self._density(state, constants).variables
        key = jax.random.fold_in(self.key, 2)
        samples, size = self.validation_samples, self.batch_size
        losses = all_losses(
            self.flow, variables, self.held_out, key, samples, self.dimensions, size
        )
        return float(np.mean(losses))

    def _drift(self, state: State, constants: Any) -> Row:
        if not self.check_drift:
            return {}
        seen = self.held_out or self.examples
        batch = seen.take(np.arange(min(self.batch_size, len(seen))))
        return {"drift": largest_drift(self._density(state, constants), batch)}

    def _density(self, state: State, constants: Any) -> Density:
        params = state.params if self.ema_decay is None else state.average
        return Density(self.flow, {"params": params, **constants, **state.moving})


def _host_generator(key: Array, which: int) -> np.random.Generator:
    """Of what is drawn on the host: the split (0), or the order of examples (1)."""
    seed = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist())
    return np.random.default_rng(seed.spawn(2)[which])


def _prepare(
    flow: Flow,
    data: ArrayLike,
    context: ArrayLike | None,
    validation: Any,
    rng: np.random.Generator,
) -> tuple[Examples, Examples | None]:
    """The examples to train on, and those to validate on."""
    examples = check_examples("data", flow, data, context)
    if validation is None:
        return examples, None
    if isinstance(validation, float | int):
        return split(examples, validation, rng)
    pair = validation if isinstance(validation, tuple) else (validation,)
    return examples, check_examples("validation", flow, *pair)


def _initial(flow: Flow, first: Examples, key: Array) -> dict[str, Any]:
    variables = init(flow, jax.random.fold_in(key, 0), first.y, first.context)
    if "params" not in variables:
        raise ValueError("the flow has no parameters to fit; use it as Density(flow, variables)")
    return variables


def _check_counts(
    steps: int, batch_size: int, evaluate_every: int, validation_samples: int
) -> None:
    for name, count in locals().items():
        if count < 1:
            raise ValueError(f"{name} must be 1 or more; got {count}")


def _check_options(
    flow: Flow, patience: int | None, validation: Any, ema_decay: float | None, check_drift: bool
) -> None:
    if check_drift and not is_reversible(flow.bijector):
        raise ValueError("check_drift needs a flow with memory='reversible'; this one has none")
    if patience is not None and patience < 1:
        raise ValueError(f"patience must be 1 or more, or None; got {patience}")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation examples to wait for; got validation=None")
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be in [0, 1), or None; got {ema_decay}")
