"""The optimiser that `fit` builds around the user's."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


def build_optimizer(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | optax.Schedule,
    warmup_steps: int,
    clip_norm: float | None,
) -> optax.GradientTransformation:
    """Clips gradients by global norm, then the optimiser, then scales its updates in warm-up.

    Its `update` is also given `progress`, the share of all steps that have been taken.

    Args:
      optimizer: any optax optimiser; None for Adam with `learning_rate`. It is also given the loss,
        the gradients and the loss as a function of the parameters, which `reduce_on_plateau`,
        `polyak_sgd` and `lbfgs` need.
      learning_rate: of that Adam; a number, from which it falls by a cosine to 0 at the last step,
        or a schedule.
      warmup_steps: over which updates grow linearly from nothing to their full size.
      clip_norm: the largest global norm of gradients; None for no limit.

    Raises:
      TypeError: `optimizer` is none.
      ValueError: a negative `warmup_steps`, or `clip_norm` not positive.
    """
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must be 0 or more; got {warmup_steps}")
    if optimizer is not None and not (
        callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))
    ):
        raise TypeError(
            "optimizer must be an optax.GradientTransformation, such as optax.adam(1e-3); got "
            f"{type(optimizer).__name__}"
        )
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, or None; got {clip_norm}")
    rate = learning_rate if callable(learning_rate) else float(learning_rate)
    return _built(optimizer, rate, warmup_steps, clip_norm)


@cache  # so that equal arguments give one object, and `fit` compiles its loop once for them
def _built(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | optax.Schedule,
    warmup_steps: int,
    clip_norm: float | None,
) -> optax.GradientTransformation:
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    falling = optimizer is None and not callable(learning_rate)
    if optimizer is None:
        optimizer = optax.adam(learning_rate)
    if not isinstance(optimizer, optax.GradientTransformation):  # such as `optax.MultiSteps`
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    parts.append(optimizer)
    if falling:
        parts.append(optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), _fall))
    if warmup_steps:
        ramp = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
        parts.append(optax.scale_by_schedule(ramp))
    return optax.chain(*parts)


def _fall(
    updates: Any, state: Any, params: Any = None, *, progress: Array, **_: Any
) -> tuple[Any, Any]:
    """Updates times cos^2(pi progress / 2). A schedule would be compiled again for other steps."""
    share = jnp.cos(jnp.pi / 2 * jnp.clip(progress, 0, 1)) ** 2
    return jax.tree.map(lambda u: (share * u).astype(u.dtype), updates), state
