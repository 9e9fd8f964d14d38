"""The optimiser that `fit` builds around the user's."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

# What the running average of norms keeps of itself in a step.
_KEPT = 0.98


def build_optimizer(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | optax.Schedule,
    warmup_steps: int,
    clip_norm: float | None,
    clip_ratio: float | None = None,
) -> tuple[optax.GradientTransformation, bool]:
    """Clips gradients by global norm, then the optimiser, then scales its updates in warm-up.

    The loop is to make the updates fall to nothing at its last step if the second result says so.

    Args:
      optimizer: any optax optimiser; None for Adam with `learning_rate`. It is also given the loss,
        the gradients and the loss as a function of the parameters, which `reduce_on_plateau`,
        `polyak_sgd` and `lbfgs` need.
      learning_rate: of that Adam; a number, from which it falls, or a schedule.
      warmup_steps: over which updates grow linearly from nothing to their full size.
      clip_norm: the largest global norm of gradients; None for no limit.
      clip_ratio: the largest global norm over the running average of those before; likewise.

    Raises:
      TypeError: `optimizer` is none.
      ValueError: a negative `warmup_steps`, `clip_norm` not positive, or `clip_ratio` 1 or less.
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
    if isinstance(clip_ratio, str) or (clip_ratio is not None and not clip_ratio > 1):
        raise ValueError(f"clip_ratio must be above 1, None, or 'auto'; got {clip_ratio!r}")
    rate = learning_rate if callable(learning_rate) else float(learning_rate)
    falls = optimizer is None and not callable(learning_rate)
    return _built(optimizer, rate, warmup_steps, clip_norm, clip_ratio), falls


@cache  # so that equal arguments give one object, and `fit` compiles its loop once for them
def _built(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | optax.Schedule,
    warmup_steps: int,
    clip_norm: float | None,
    clip_ratio: float | None,
) -> optax.GradientTransformation:
    parts: list[Any] = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    if clip_ratio is not None:
        parts.append(_clip_by_running_norm(clip_ratio))
    if optimizer is None:
        optimizer = optax.adam(learning_rate)
    if not isinstance(optimizer, optax.GradientTransformation):  # such as `optax.MultiSteps`
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    parts.append(optimizer)
    if warmup_steps:
        ramp = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
        parts.append(optax.scale_by_schedule(ramp))
    return optax.chain(*parts)


def _clip_by_running_norm(ratio: float) -> optax.GradientTransformation:
    """Limits the global norm to `ratio` times the running average of the limited norms before.

    The first gradient has no limit. One example far from all others may have a gradient a million
    times the usual one; unlimited, it would fill Adam's second moments for a thousand steps.
    """

    def init(params: Any) -> tuple[Array, Array]:
        return jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        total, weight = state
        norm = optax.tree.norm(updates).astype(jnp.float32)
        limit = jnp.where(total > 0, ratio * total / jnp.maximum(weight, 1e-6), jnp.inf)
        share = jnp.where(norm > limit, limit / norm, 1)
        clipped = jax.tree.map(lambda g: g * share.astype(g.dtype), updates)
        # Norms of zero say nothing of what is usual.
        new, kept = jnp.where(norm > 0, 1 - _KEPT, 0.0), jnp.where(norm > 0, _KEPT, 1.0)
        return clipped, (kept * total + new * jnp.minimum(norm, limit), kept * weight + new)

    return optax.GradientTransformation(init, update)
