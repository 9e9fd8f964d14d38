"""What is asked of targets, and of flows that are to serve for them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Direction
from jflow.distributions.contexts import converted
from jflow.distributions.examples import check_contexts
from jflow.distributions.flow import Flow
from jflow.functional.arrays import as_wide

# The samples of one context that `importance` judges by.
_EACH = 256


def checked_contexts(flow: Flow, context: Any) -> Any:
    """The contexts that samples are drawn for, (N, *context_shape); None for a flow without."""
    contexts = converted(context, as_wide)
    check_contexts("context", flow, contexts, None)
    if len({len(part) for part in jax.tree.leaves(contexts)}) > 1:
        raise ValueError(
            f"context must have as many rows in all parts; got {jax.tree.map(len, contexts)}"
        )
    return contexts


def count_of(contexts: Any) -> int:
    """How many contexts there are: one, if there are none."""
    return 1 if contexts is None else len(jax.tree.leaves(contexts)[0])


def spread(key: Array, contexts: Any, samples: int) -> tuple[Any, int]:
    """Contexts for about so many samples, drawn at random, each often enough to be judged.

    Returns:
      (n, *context_shape), or (n, 0) if there are none; and how many different ones there are, as
      many times each, one after the other.
    """
    total = count_of(contexts)
    count = min(total, max(1, samples // _EACH))
    if contexts is None:
        return jnp.zeros((samples, 0)), 1
    chosen = jax.random.choice(key, total, (count,), replace=False)
    index = jnp.repeat(chosen, samples // count)
    return jax.tree.map(lambda part: part[index], contexts), count


def check_target(flow: Flow, target: Callable[..., Array], contexts: Any) -> None:
    """Refuses a target of the wrong shape, which would broadcast silently, and of whole numbers."""
    if flow.integers is not None:
        raise ValueError(
            f"a target is a density of continuous values; this flow is of {flow.integers}"
        )
    dtype = jax.dtypes.canonicalize_dtype(float)
    y = jax.ShapeDtypeStruct((2, *flow.event_shape), dtype)
    two = lambda part: jax.ShapeDtypeStruct((2, *part.shape[1:]), part.dtype)  # noqa: E731
    given = (y,) if contexts is None else (y, jax.tree.map(two, contexts))
    result = jax.eval_shape(target, *given)
    got = f"shape {result.shape}" if hasattr(result, "shape") else f"a {type(result).__name__}"
    if getattr(result, "shape", None) != (2,):
        raise ValueError(
            "target must return one log-density for each y, (n, *event) to (n,); for n = 2 it "
            f"returned {got}"
        )


def check_afar(owner: str, afar: float | None) -> None:
    """Refuses a spread that is none.

    Raises:
      ValueError: naming the owner.
    """
    if afar is not None and not (math.isfinite(afar) and afar > 0):
        raise ValueError(f"{owner}: afar must be a positive number, or None; got {afar}")


def check_deterministic(owner: str, flow: Flow, *directions: Direction) -> None:
    """Refuses flows whose directions or log_dets are drawn, or are not there.

    Args:
      owner: for the error.
      flow: the flow.
      directions: those that are needed; forward, if none is given.

    Raises:
      ValueError: naming the owner, and the kinds of the flow.
    """
    bijector = flow.bijector
    needed = directions or ("forward",)
    kinds = {d: getattr(bijector, f"{d}_kind") for d in needed}
    drawn = any(kind in ("random", "missing") for kind in kinds.values())
    drawn |= any(bijector.needs_key(d) for d in needed)
    if drawn or not bijector.log_det_kinds <= {"exact"}:
        told = ", ".join(f"{d}_kind is {kind!r}" for d, kind in kinds.items())
        raise ValueError(
            f"{owner} needs a flow whose values and log_dets are functions of points; this flow's "
            f"{told}, its log_det {sorted(bijector.log_det_kinds)}. Estimated log-determinants are "
            "exchanged by density.with_estimator(ExactLogDet()); grey levels need a flow of "
            "numbers (values=None)"
        )


def has_gradient(flow: Flow, target: Callable[..., Array], *context: Any) -> bool:
    """Whether log p has derivatives by y, which loops of unknown length have not."""
    y = jax.ShapeDtypeStruct((2, *flow.event_shape), jax.dtypes.canonicalize_dtype(float))
    try:
        jax.eval_shape(jax.grad(lambda y: jnp.sum(target(y, *context))), y)
    except (ValueError, TypeError, NotImplementedError):
        return False
    return True


def check_gradient(flow: Flow, target: Any, given: Any, leapfrogs: int) -> None:
    """Refuses a target without a gradient, where moves need one.

    Raises:
      ValueError: telling what moves do not.
    """
    context = () if given is None else (given,)
    if leapfrogs and not has_gradient(flow, target, *context):
        raise ValueError(
            "smc: the target has no gradient, which Hamiltonian moves need; take random walks by "
            "leapfrogs=0"
        )
