"""Fitting a flow to a density that is known up to a constant, from no data."""

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jflow.data.batches import Arrays
from jflow.distributions import Density, Flow
from jflow.distributions.base import reparameterized
from jflow.distributions.smc import missing
from jflow.distributions.targets import check_afar, check_target, checked_contexts, spread
from jflow.functional.arguments import as_key, check_counts
from jflow.train.history import History, Row
from jflow.train.matching import has_means
from jflow.train.optimizer import build_optimizer
from jflow.train.steps import GradientStep
from jflow.train.targets import FAB, AlphaDivergence, OfTarget, ReverseKL
from jflow.train.train import train

# A look from afar takes some 400 evaluations of the target for a point, 1,500 at most. It may have
# a point for each thousand of training, and is not worth it with fewer points than the least.
_EVALUATIONS, _LEAST, _MOST = 1_000, 128, 4_096
_OBJECTIVES: dict[str, Callable[..., OfTarget]] = {
    "reverse_kl": ReverseKL, "alpha": AlphaDivergence, "fab": FAB,
}  # fmt: skip


def fit_to_target(
    flow: Flow, target: Callable[..., Array], *, key: Array | int,
    context: Any = None, steps: int = 2000, samples: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 2e-3, warmup_steps: int = 100,
    clip_norm: float | None = 1.0, clip_ratio: float | None = None, ema_decay: float | None = None,
    evaluate_every: int = 100, evaluation_samples: int = 4096, patience: int | None = None,
    max_skipped: int = 0, objective: str | Callable[..., OfTarget] = "reverse_kl", anneal: int = 0,
    afar: float | None = 2.0, variables: Any = None, mesh: Mesh | None = None,
    directory: str | os.PathLike[str] | None = None, checkpoint_every: int | None = None,
    keep: int = 3, resume: bool = False, cache: str | os.PathLike[str] | None = None,
    progress: bool | str = True, callback: Callable[[Density, Row], Any] | None = None,
) -> tuple[Density, History]:  # fmt: skip
    """Fits q, a flow, to a density p that is known up to a constant.

    Reverse KL, E_q[log q(y) - log p(y)], seeks modes; a high effective sample size says how good q
    is where q is, and cannot see a mode of p that q misses. `train.smc` can. For a p with several
    modes, take `objective="fab"` or, cheaper, `anneal`.

    Gradients of reverse KL flow through the samples, so the flow must sample fast and
    differentiably: IAF and couplings do. Those of "alpha" and "fab" flow through log_prob at given
    points, so both must be fast: couplings.

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
      objective: "reverse_kl", "alpha" (`train.AlphaDivergence`: least variance of weights, for
        importance sampling), "fab" (`train.FAB`: annealed samples find modes), or a function of the
        flow and the target, `groups=` and `anneal=` that makes one, such as
        `partial(train.FAB, temperatures=16)`.
      anneal: so many of the first steps, the target is p^b, with b rising from .01 to 1.
      afar: the spread of normals from which, after long enough a fit without contexts, a short run
        of `train.smc` looks for mass of the target that the flow misses; it warns where there is
        some. None for no such look.
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
    check_counts("fit_to_target", 0, anneal=anneal)
    check_counts(
        "fit_to_target", steps=steps, samples=samples, evaluation_samples=evaluation_samples
    )
    key, contexts = as_key("fit_to_target", key), checked_contexts(flow, context)
    check_afar("fit_to_target", afar)
    check_target(flow, target, contexts)
    tx, falls = build_optimizer(optimizer, learning_rate, warmup_steps, clip_norm, clip_ratio)
    given = jnp.zeros((samples, 0)) if contexts is None else contexts
    judged, groups = spread(jax.random.fold_in(key, 2), contexts, evaluation_samples)
    goal = _made(objective, flow, target, groups, anneal)
    check_reparameterized(flow, through_samples=goal.through_samples)
    step = GradientStep(goal, tx, average=ema_decay, max_skipped=max_skipped, falls=falls)
    density, history = train(
        goal, Arrays(given, samples), key=key, validation=Arrays(judged, samples), steps=steps,
        step=step, patience=patience, evaluate_every=evaluate_every,
        variables=partial(_started, goal, variables, key),
        mesh=mesh, directory=directory, checkpoint_every=checkpoint_every, keep=keep, resume=resume,
        cache=cache, progress=progress, callback=callback,
    )  # fmt: skip
    if afar is not None and contexts is None:
        _look(flow, target, history, jax.random.fold_in(key, 6), samples, afar)
    return density, history


def _look(
    flow: Flow, target: Callable[..., Array], history: History, key: Array, samples: int,
    afar: float,
) -> None:  # fmt: skip
    """Adds a note to the history, and warns, if there is more of the target than the flow has."""
    taken = int(history.rows[-1]["step"]) if history.rows else 0
    count = min(taken * samples // _EVALUATIONS, _MOST)
    if count < _LEAST or history.ended not in ("done", "patience"):
        return
    own = tuple(history.best[name] for name in ("log_normalizer", "log_normalizer_error"))
    if note := missing(flow, target, own, key, count, afar):
        history.notes.append(note)
        warnings.warn(f"fit_to_target: {note}", stacklevel=3)


def _made(
    objective: Any, flow: Flow, target: Callable[..., Array], groups: int, anneal: int
) -> OfTarget:
    made: Any = _OBJECTIVES.get(objective) if isinstance(objective, str) else objective
    if not callable(made):
        raise ValueError(
            f"fit_to_target: objective must be one of {sorted(_OBJECTIVES)}, or a function that "
            f"makes one; got {objective!r}"
        )
    if has_means(flow):
        raise ValueError(
            "fit_to_target: mean velocities are learned by fit(objective='mean_flow') alone; build "
            "the flow without mean_velocities"
        )
    goal = made(flow, target, groups=groups, anneal=anneal)
    if not isinstance(goal, OfTarget):
        raise TypeError(
            "fit_to_target: objective must make a train.ReverseKL, train.AlphaDivergence, train.FAB"
            f", or a subclass of what they share; it made a {type(goal).__name__}"
        )
    return goal


def _started(objective: OfTarget, variables: Any, key: Array, batch: Any) -> Any:
    """Given variables, or those to begin with, and what the objective is to remember."""
    if variables is None:
        return objective.init(key, batch)
    return objective.begun(variables, batch, key)


def check_reparameterized(flow: Flow, *, through_samples: bool) -> None:
    """Refuses flows whose samples do not tell how they would change with all parameters.

    Raises:
      ValueError: the bijector or the base is such.
    """
    kind = flow.bijector.forward_kind
    if kind in ("random", "missing"):
        raise ValueError(
            "fit_to_target: samples must be functions of latents; this flow's forward_kind is "
            f"{kind!r}"
        )
    if through_samples and not reparameterized(flow.base):
        raise ValueError(
            f"fit_to_target: the samples of {type(flow.base).__name__} have no gradient with "
            "respect to all of its parameters (which component of a mixture one is from is a "
            "discrete choice), so these would be learned wrongly. Use another base, such as "
            "StandardNormal() or StudentT(), or objective='fab', which needs no such gradient"
        )
