"""Fitting a flow to a density that is known up to a constant, from no data."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jflow.distributions import Density, Flow, init
from jflow.distributions.base import reparameterized
from jflow.distributions.importance import (
    check_target,
    checked_contexts,
    count_of,
    spread,
)
from jflow.functional.arguments import as_key, check_counts
from jflow.train.history import History, Row
from jflow.train.objectives import ReverseKL, check_trainable
from jflow.train.optimizer import build_optimizer
from jflow.train.sources import Arrays
from jflow.train.steps import GradientStep
from jflow.train.train import train


def fit_to_target(
    flow: Flow, target: Callable[..., Array], *, key: Array | int,
    context: Any = None, steps: int = 2000, samples: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 2e-3, warmup_steps: int = 100,
    clip_norm: float | None = 1.0, clip_ratio: float | None = None, ema_decay: float | None = None,
    evaluate_every: int = 100, evaluation_samples: int = 4096, patience: int | None = None,
    max_skipped: int = 0, variables: Any = None, mesh: Mesh | None = None,
    directory: str | os.PathLike[str] | None = None, checkpoint_every: int | None = None,
    keep: int = 3, resume: bool = False, cache: str | os.PathLike[str] | None = None,
    progress: bool | str = True, callback: Callable[[Density, Row], Any] | None = None,
) -> tuple[Density, History]:  # fmt: skip
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
      evaluate_every: steps between rows of metrics: `train_kl`, `validation_kl`, `ess`,
        `log_normalizer`.
      evaluation_samples: for the latter three, of the same noise each time.
      patience: stop after so many of these rows in a row without a better one; None for never.
      clip_ratio: see `fit`, as for all that follow.
      ema_decay: of averaged parameters.
      max_skipped: steps in a row that may be skipped.
      variables: to start from; None to initialise them on samples of a standard normal.
      mesh: of devices.
      directory: for metrics and checkpoints.
      checkpoint_every: steps between checkpoints.
      keep: how many checkpoints.
      resume: whether to go on; with the target that the run began with.
      cache: a directory for compiled programs.
      progress: what to show.
      callback: told the density and each row.

    Returns:
      The density with the parameters whose `validation_kl` was least, and the history of the run.

    Raises:
      ValueError: arguments that do not fit, or a flow whose samples are not differentiable (a
        mixture as the base, `RAD`), before any time is spent.
      FileExistsError, CheckpointError, NonFiniteLossError, Preempted: as `fit`.
    """
    check_counts(
        "fit_to_target", steps=steps, samples=samples, evaluation_samples=evaluation_samples
    )
    key, contexts = as_key("fit_to_target", key), checked_contexts(flow, context)
    check_reparameterized(flow)
    check_target(flow, target, contexts)
    tx, falls = build_optimizer(optimizer, learning_rate, warmup_steps, clip_norm, clip_ratio)
    given = jnp.zeros((samples, 0)) if contexts is None else contexts
    judged, groups = spread(jax.random.fold_in(key, 2), contexts, evaluation_samples)
    objective = ReverseKL(flow, target, groups)
    return train(
        objective, Arrays(given, samples), key=key, validation=Arrays(judged, samples), steps=steps,
        step=GradientStep(objective, tx, ema_decay, max_skipped, falls), patience=patience,
        evaluate_every=evaluate_every,
        variables=partial(_initial, flow, contexts, key) if variables is None else variables,
        mesh=mesh, directory=directory, checkpoint_every=checkpoint_every, keep=keep, resume=resume,
        cache=cache, progress=progress, callback=callback,
    )  # fmt: skip


def _initial(flow: Flow, contexts: Any, key: Array, batch: Any) -> Any:
    """Variables initialised on normal points: there is no data to standardise."""
    points = jax.random.normal(jax.random.fold_in(key, 3), (256, *flow.event_shape))
    rows = jax.random.choice(jax.random.fold_in(key, 4), count_of(contexts), (256,))
    context = jax.tree.map(lambda part: part[rows], contexts)
    return check_trainable(init(flow, jax.random.fold_in(key, 0), points, context))


def check_reparameterized(flow: Flow) -> None:
    """Refuses flows whose samples do not tell how they would change with all parameters.

    Raises:
      ValueError: the bijector or the base is such.
    """
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
