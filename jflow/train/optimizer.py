"""The optimiser that `fit` builds around the user's."""

from functools import cache

import optax


def build_optimizer(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | optax.Schedule,
    warmup_steps: int,
    clip_norm: float | None,
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
    falls = optimizer is None and not callable(learning_rate)
    return _built(optimizer, rate, warmup_steps, clip_norm), falls


@cache  # so that equal arguments give one object, and `fit` compiles its loop once for them
def _built(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | optax.Schedule,
    warmup_steps: int,
    clip_norm: float | None,
) -> optax.GradientTransformation:
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    if optimizer is None:
        optimizer = optax.adam(learning_rate)
    if not isinstance(optimizer, optax.GradientTransformation):  # such as `optax.MultiSteps`
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    parts.append(optimizer)
    if warmup_steps:
        ramp = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
        parts.append(optax.scale_by_schedule(ramp))
    return optax.chain(*parts)
