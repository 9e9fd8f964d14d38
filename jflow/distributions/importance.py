"""How well a density serves for a target that is known up to a constant."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.distributions.contexts import converted
from jflow.distributions.density import Density
from jflow.distributions.examples import check_contexts
from jflow.distributions.flow import Flow
from jflow.functional.arguments import as_key, check_counts
from jflow.functional.arrays import as_wide

# The samples of one context that `importance` judges by.
_EACH = 256


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


def importance(
    density: Density,
    target: Callable[..., Array],
    key: Array | int,
    samples: int = 4096,
    context: Any = None,
) -> Importance:
    """Effective sample size, log-normaliser and reverse KL, from fresh samples of a density.

    Args:
      density: q.
      target: log p up to a constant, the same object from call to call; see `fit_to_target`.
      key: a JAX random key or a whole number.
      samples: how many, in all.
      context: (N, *context_shape), for a conditional flow. Up to samples / 256 of them, drawn at
        random, share the samples.

    Raises:
      ValueError: arguments that do not fit.
    """
    key, contexts = as_key("importance", key), checked_contexts(density.flow, context)
    check_counts("importance", samples=samples)
    check_target(density.flow, target, contexts)
    choice, noise = jax.random.split(key)
    chosen, count = spread(choice, contexts, samples)
    log_w = _log_weights(density.flow, target, density.variables, chosen, noise)
    return quality(np.asarray(log_w, np.float64).reshape(count, -1))


def quality(log_w: np.ndarray) -> Importance:
    """The means over contexts of what their weights tell, (contexts, samples)."""
    return Importance(*(float(mean) for mean in np.mean([_quality(w) for w in log_w], axis=0)))


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


@partial(jax.jit, static_argnums=(0, 1))
def _log_weights(flow: Flow, target: Any, variables: Any, contexts: Any, key: Array) -> Array:
    count = len(jax.tree.leaves(contexts)[0])
    context = None if flow.context_shape is None else contexts
    rngs = {"noise": jax.random.fold_in(key, 1)}
    y, log_q = flow.apply(  # type: ignore[misc]
        variables, key, (count,), context, method="sample_jointly", rngs=rngs
    )
    log_p = target(y) if context is None else target(y, context)
    return log_p.astype(log_q.dtype) - log_q  # type: ignore[operator, union-attr]


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
