"""Fitting a flow to a density that is known up to a constant, from no data."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jflow.distributions import Density, Flow, init
from jflow.distributions.contractions import settled
from jflow.functional.arguments import as_key
from jflow.train.compilation import cache_compilations
from jflow.train.history import History, Row, progress_bar, writer
from jflow.train.loop import Report as LoopReport
from jflow.train.loop import Rules, State, constant, run, start
from jflow.train.objective import ReverseKL
from jflow.train.optimizer import build_optimizer
from jflow.train.run import NonFiniteLossError

_UNIT = "kl"
# The samples of one context that `importance` judges by.
_EACH = 256
_COLUMNS = ["step", "seconds", "grad_norm", f"train_{_UNIT}", "ess", "log_normalizer"]


class Importance(NamedTuple):
    """How well samples of q serve for p, by their weights w = p / q.

    With contexts, all three are means over contexts of what is true of each, since p(y | c) may
    have another normaliser for each c.

    Attributes:
      ess: the effective sample size (sum w)^2 / sum w^2, as a share of the samples, in [0, 1]. NaN,
        as the rest, where a weight is NaN or infinite.
      log_normalizer: log of the mean weight: an estimate of log int p, in nats.
      kl: E_q[log q - log p], in nats: KL(q || p) - log int p.
    """

    ess: float
    log_normalizer: float
    kl: float


def fit_to_target(
    flow: Flow,
    target: Callable[..., Array],
    *,
    key: Array | int,
    context: ArrayLike | None = None,
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
        and context (n, C). It must be the same object from call to call, or it compiles again.
      key: a JAX random key or a whole number.
      context: (N, C), for a conditional flow; each step draws `samples` of them.
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
      ValueError: arguments that do not fit, before any time is spent.
      NonFiniteLossError: training diverged. The error holds the last good parameters.
    """
    _check_counts(
        steps=steps,
        samples=samples,
        evaluate_every=evaluate_every,
        evaluation_samples=evaluation_samples,
    )
    key, contexts = as_key("fit_to_target", key), _contexts(flow, context)
    objective = ReverseKL(flow, target)
    tx, falls = build_optimizer(optimizer, learning_rate, warmup_steps, clip_norm)
    _check_target(objective, contexts)
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
    contexts: Array | None
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
            index = rng.integers(_count(self.contexts), size=shape)
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


def importance(
    density: Density,
    target: Callable[..., Array],
    key: Array | int,
    samples: int = 4096,
    context: ArrayLike | None = None,
) -> Importance:
    """Effective sample size, log-normaliser and reverse KL, from fresh samples of a density.

    Args:
      density: q.
      target: log p up to a constant, the same object from call to call; see `fit_to_target`.
      key: a JAX random key or a whole number.
      samples: how many, in all.
      context: (N, C), for a conditional flow. Up to samples / 256 of them, drawn at random, share
        the samples.

    Raises:
      ValueError: arguments that do not fit.
    """
    key, contexts = as_key("importance", key), _contexts(density.flow, context)
    _check_counts(samples=samples)
    count = min(_count(contexts), max(1, samples // _EACH))
    choice, noise = jax.random.split(key)
    chosen = jax.random.choice(choice, _count(contexts), (count,), replace=False)
    index = jnp.repeat(chosen.astype(jnp.int32), samples // count)
    objective = ReverseKL(density.flow, target)
    _check_target(objective, contexts)
    log_w = _log_weights(objective, density.variables, contexts, index, noise)
    each = [_quality(w) for w in np.asarray(log_w, np.float64).reshape(count, -1)]
    return Importance(*(float(mean) for mean in np.mean(each, axis=0)))


def _quality(log_w: np.ndarray) -> Importance:
    """That of the samples for one context."""
    if np.isnan(log_w).any() or np.isposinf(log_w).any():
        return Importance(math.nan, math.nan, math.nan)
    largest = log_w.max()
    w = np.exp(log_w - largest) if np.isfinite(largest) else np.zeros_like(log_w)
    total = w.sum()
    ess = float(total**2 / (len(w) * (w**2).sum())) if total > 0 else 0.0
    log_mean = float(largest + np.log(total / len(w))) if total > 0 else float("-inf")
    return Importance(ess, log_mean, float(-np.mean(log_w)))


@partial(jax.jit, static_argnums=0)
def _log_weights(
    objective: ReverseKL, variables: Any, contexts: Array | None, index: Array, key: Array
) -> Array:
    return objective.log_weights(variables, contexts, index, key)


def _contexts(flow: Flow, context: ArrayLike | None) -> Array | None:
    features = flow.context_features
    shape = None if context is None else jnp.shape(context)
    if (features is None) != (context is None) or (
        shape is not None and (len(shape) != 2 or shape[0] == 0 or shape[1] != features)
    ):
        wanted = "None" if features is None else f"(N, {features})"
        raise ValueError(f"context must be {wanted} for this flow; got {shape}")
    return None if context is None else jnp.asarray(context, jax.dtypes.canonicalize_dtype(float))


def _count(contexts: Array | None) -> int:
    return 1 if contexts is None else len(contexts)


def _initial(flow: Flow, contexts: Array | None, key: Array) -> Any:
    """Variables initialised on normal points: there is no data to standardise."""
    points = jax.random.normal(jax.random.fold_in(key, 3), (256, *flow.event_shape))
    context = None if contexts is None else contexts[jnp.arange(256) % len(contexts)]
    variables = init(flow, jax.random.fold_in(key, 0), points, context)
    if "params" not in variables:
        raise ValueError("the flow has no parameters to fit; use it as Density(flow, variables)")
    return variables


def _check_target(objective: ReverseKL, contexts: Array | None) -> None:
    """Refuses a target of the wrong shape, which would broadcast silently."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    y = jax.ShapeDtypeStruct((2, *objective.flow.event_shape), dtype)
    given = (y,) if contexts is None else (y, jax.ShapeDtypeStruct((2, contexts.shape[1]), dtype))
    result = jax.eval_shape(objective.target, *given)
    got = f"shape {result.shape}" if hasattr(result, "shape") else f"a {type(result).__name__}"
    if getattr(result, "shape", None) != (2,):
        raise ValueError(
            "target must return one log-density for each y, (n, *event) to (n,); for n = 2 it "
            f"returned {got}"
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be 1 or more; got {count}")
