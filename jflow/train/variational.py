"""Fitting a flow to a density that is known up to a constant, from no data."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jflow.distributions import Density, Flow, init
from jflow.distributions.base import reparameterized
from jflow.distributions.contractions import settled
from jflow.functional.arguments import as_key, check_counts
from jflow.train.compilation import cache_compilations
from jflow.train.history import History, Row, progress_bar, writer
from jflow.train.importance import (
    check_target,
    checked_contexts,
    count_of,
    importance,
)
from jflow.train.loop import Report as LoopReport
from jflow.train.loop import Rules, State, constant, run, start
from jflow.train.objective import ReverseKL
from jflow.train.optimizer import build_optimizer
from jflow.train.run import NonFiniteLossError

_UNIT = "kl"
_COLUMNS = ["step", "seconds", "grad_norm", f"train_{_UNIT}", "ess", "log_normalizer"]


def fit_to_target(
    flow: Flow,
    target: Callable[..., Array],
    *,
    key: Array | int,
    context: Any = None,
    steps: int = 2000,
    samples: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 2e-3,
    warmup_steps: int = 100,
    clip_norm: float | None = 1.0,
    evaluate_every: int = 100,
    evaluation_samples: int = 4096,
    variables: Any = None,
    directory: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[Density, History]:
    """Fits q, a flow, to an unnormalised density p by reverse KL, E_q[log q(y) - log p(y)].

    Gradients flow through the samples, so the flow must sample fast and differentiably: IAF and
    couplings do. Reverse KL seeks modes; a high effective sample size says how good q is where
    q is, and cannot see a mode of p that q misses.

    Args:
      flow: q.
      target: log p up to a constant, jittable: y (n, *event) to (n,); for a conditional flow, of y
        and context (n, *context_shape). It must be the same object from call to call, or it
        compiles again.
      key: a JAX random key or a whole number.
      context: (N, *context_shape), for a conditional flow; each step draws `samples` of them.
      steps: how many parameter updates.
      samples: of q, for each.
      optimizer: any optax optimiser, schedule included; None for Adam.
      learning_rate: of that Adam; a number, from which it falls by half a cosine to 0 at the last
        step, or an optax schedule.
      warmup_steps: over which updates grow linearly to their full size.
      clip_norm: the largest global norm of gradients; None for no limit.
      evaluate_every: steps between rows of metrics: `train_kl`, `ess`, `log_normalizer`.
      evaluation_samples: for the latter two.
      variables: to start from; None to initialise them on samples of a standard normal.
      directory: where to write metrics.jsonl and metrics.csv; None for nowhere.
      cache: a directory for compiled programs; see `fit`.
      progress: whether to show a progress bar, if the screen is a terminal.

    Returns:
      The density with the last parameters, and the history of the run.

    Raises:
      ValueError: arguments that do not fit, or a flow whose samples are not differentiable (a
        mixture as the base, `RAD`), before any time is spent.
      NonFiniteLossError: training diverged. The error holds the last good parameters.
    """
    check_counts(
        "fit_to_target",
        steps=steps,
        samples=samples,
        evaluate_every=evaluate_every,
        evaluation_samples=evaluation_samples,
    )
    key, contexts = as_key("fit_to_target", key), checked_contexts(flow, context)
    objective = _objective(flow, target, contexts)
    tx, falls = build_optimizer(optimizer, learning_rate, warmup_steps, clip_norm)
    if variables is None:
        variables = _initial(flow, contexts, key)
    rules = Rules(objective, tx, falls=falls)
    trainer = _Trainer(rules, objective, contexts, samples, evaluation_samples, key)
    with (
        cache_compilations(cache),
        writer(None if directory is None else Path(directory).expanduser(), _COLUMNS) as write,
        progress_bar(steps, samples, _UNIT, enabled=progress) as bar,
    ):
        return trainer.train(variables, steps, evaluate_every, [write, bar.show])


@dataclass
class _Trainer:
    rules: Rules
    objective: ReverseKL
    contexts: Any
    samples: int
    evaluation_samples: int
    key: Array

    def train(
        self,
        variables: Any,
        steps: int,
        evaluate_every: int,
        listeners: list[Callable[[Row], None]],
    ) -> tuple[Density, History]:
        constants, state = constant(variables), start(variables, self.rules)
        history, start_time = History(_UNIT), time.perf_counter()
        density = Density(self.objective.flow, variables)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(self.key)).ravel())
        shape = (min(evaluate_every, steps), self.samples)
        for first in range(0, steps, evaluate_every):
            count = min(evaluate_every, steps - first)
            index = rng.integers(count_of(self.contexts), size=shape)
            state, report = run(
                state,
                constants,
                self.contexts,
                jnp.asarray(index, jnp.int32),
                jnp.asarray(count, jnp.int32),
                jnp.asarray(steps, jnp.int32),
                jax.random.fold_in(self.key, 1),
                rules=self.rules,
            )
            moved = {"params": state.params, **constants, **state.moving}
            density = Density(self.objective.flow, moved)
            row = self._row(state, report, count, density, history)
            row["seconds"] = time.perf_counter() - start_time
            history.rows.append(row)
            history.best_step = int(state.step)
            for listener in listeners:
                listener(row)
        return Density(density.flow, settled(density.flow, density.variables)), history

    def _row(
        self, state: State, report: LoopReport, count: int, density: Density, history: History
    ) -> Row:
        losses, step = np.asarray(report.loss), int(state.step)
        done = int(report.steps)
        if done < count:
            what = f"the loss or its gradient is not finite at step {step} (loss {losses[done]})"
            raise NonFiniteLossError(what, step, density, history)
        key = jax.random.fold_in(self.key, 2 + step)
        target, contexts = self.objective.target, self.contexts
        quality = importance(density, target, key, self.evaluation_samples, contexts)
        return {
            "step": step,
            f"train_{_UNIT}": float(np.mean(losses[:count])),
            "grad_norm": float(np.mean(np.asarray(report.grad_norm)[:count])),
            "ess": quality.ess,
            "log_normalizer": quality.log_normalizer,
        }


def _initial(flow: Flow, contexts: Any, key: Array) -> Any:
    """Variables initialised on normal points: there is no data to standardise."""
    points = jax.random.normal(jax.random.fold_in(key, 3), (256, *flow.event_shape))
    rows = jax.random.choice(jax.random.fold_in(key, 4), count_of(contexts), (256,))
    context = jax.tree.map(lambda part: part[rows], contexts)
    variables = init(flow, jax.random.fold_in(key, 0), points, context)
    if "params" not in variables:
        raise ValueError("the flow has no parameters to fit; use it as Density(flow, variables)")
    return variables


def _objective(flow: Flow, target: Callable[..., Array], contexts: Any) -> ReverseKL:
    """Reverse KL, of samples that tell how they would change with all parameters."""
    kind = flow.bijector.forward_kind
    if kind in ("random", "missing"):
        raise ValueError(
            f"fit_to_target: gradients flow through samples; this flow's forward_kind is {kind!r}"
        )
    if not reparameterized(flow.base):
        raise ValueError(
            f"fit_to_target: the samples of {type(flow.base).__name__} have no gradient with "
            "respect to all of its parameters (which component of a mixture one is from is a "
            "discrete choice), so these would be learned wrongly. Use another base, such as "
            "StandardNormal() or StudentT()"
        )
    objective = ReverseKL(flow, target)
    check_target(objective, contexts)
    return objective
