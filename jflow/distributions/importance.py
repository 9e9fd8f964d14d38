"""How well a density serves for a target that is known up to a constant."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.distributions.density import Density
from jflow.distributions.flow import Flow
from jflow.distributions.targets import check_target, checked_contexts, spread
from jflow.functional.annealing import resample
from jflow.functional.arguments import as_key, check_counts
from jflow.functional.pareto import pareto_k

# Above it, means of weights are not to be trusted (Vehtari et al., 2024, section 3.2.4).
_HEAVY = 0.7


@dataclass(frozen=True)
class WeightedPoints:
    """Points that stand for a target p, each with its weight.

    Attributes:
      points: (n, *event); for several contexts those of one after those of the other.
      weights: (n,); their sum is 1.
    """

    points: Array = field(repr=False)
    weights: np.ndarray = field(repr=False)

    def resampled(self, key: Array | int, samples: int) -> Array:
        """Points of equal weight, (samples, *event), drawn by the weights (systematic resampling).

        Args:
          key: a JAX random key or a whole number.
          samples: how many; of many more than `1 / sum(weights**2)`, many are equal.

        Raises:
          ValueError: weights that are not numbers, or all zero.
        """
        check_counts("resampled", samples=samples)
        total = float(np.sum(self.weights))
        if not (math.isfinite(total) and total > 0):
            raise ValueError(
                "resampled: weights must be numbers, and not all of them zero; got a sum of "
                f"{total}. Look where the target is NaN or zero"
            )
        log_weights = jnp.log(jnp.asarray(self.weights, self.points.dtype))
        return self.points[resample(log_weights, as_key("resampled", key), samples)]


@dataclass(frozen=True)
class Importance(WeightedPoints):
    """How well samples of q serve for p, by their weights w = p / q.

    With contexts, all numbers are means over contexts of what is true of each, since p(y | c) may
    have another normaliser for each c; and the weights of each context have equal sums. What q
    never draws, none of this can see: `smc` looks for it.

    Attributes:
      ess: the effective sample size (sum w)^2 / sum w^2, as a share of the samples, in [0, 1]. NaN,
        as the rest, where a weight is NaN or infinite.
      log_normalizer: log of the mean weight: an estimate of log int p, in nats.
      error: its standard error (of the mean over contexts, if there are some), sqrt((1/ess - 1)/n).
      kl: E_q[log q - log p], in nats: KL(q || p) - log int p.
      pareto_k: the shape of the weights' tail; of several contexts, what nine of ten do not exceed.
        Above .7 the estimates are not to be trusted.
    """

    ess: float
    log_normalizer: float
    error: float
    kl: float
    pareto_k: float

    def __str__(self) -> str:
        return (
            f"log Z {self.log_normalizer:.4f} +- {self.error:.4f} nats, effective sample size "
            f"{self.ess:.3f}, reverse KL - log Z {self.kl:.4f}, Pareto k {self.pareto_k:.2f}"
        )


def importance(
    density: Density,
    target: Callable[..., Array],
    key: Array | int,
    samples: int = 4096,
    context: Any = None,
) -> Importance:
    """Effective sample size, log-normaliser and reverse KL, from fresh samples of a density.

    It warns where the weights have so heavy a tail that none of these can be trusted.

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
    y, log_w = _log_ratios(density.flow, target, density.variables, chosen, noise)
    found = weighed(y, np.asarray(log_w, np.float64).reshape(count, -1))
    if found.pareto_k > _HEAVY:
        warnings.warn(
            f"importance: the weights p/q have a heavy tail (Pareto k {found.pareto_k:.2f}, above "
            f"{_HEAVY}): log_normalizer, error and ess are not to be trusted. Fit the flow longer, "
            "or by fit_to_target(objective='fab'), or take train.smc",
            stacklevel=2,
        )
    return found


def weighed(points: Array, log_w: np.ndarray) -> Importance:
    """What the weights of points tell, in the mean over contexts: (contexts, samples)."""
    with np.errstate(invalid="ignore"):
        shares = np.exp(log_w - _log_sum(log_w))
    return Importance(points, shares.ravel() / len(log_w), **quality(log_w))


def quality(log_w: np.ndarray) -> dict[str, float]:
    """The numbers of an `Importance`, by their names: weights are (contexts, samples)."""
    each = np.asarray([_quality(w) for w in log_w])
    ess, log_normalizer, errors, kl, k = each.T
    found = {"ess": ess, "log_normalizer": log_normalizer, "kl": kl, "pareto_k": k}
    error = math.sqrt(np.sum(errors**2)) / len(errors)
    known = k[~np.isnan(k)]
    found["pareto_k"] = np.quantile(known, 0.9, method="higher") if known.size else k
    return {name: float(np.mean(values)) for name, values in found.items()} | {"error": error}


def _log_sum(log_w: np.ndarray) -> np.ndarray:
    """The logarithm of the sum over the last axis, which is kept."""
    largest = log_w.max(axis=-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        return largest + np.log(np.sum(np.exp(log_w - largest), axis=-1, keepdims=True))


def _quality(log_w: np.ndarray) -> tuple[float, ...]:
    """Effective sample size, log-normaliser, its error, reverse KL and Pareto k of one context."""
    if np.isnan(log_w).any() or np.isposinf(log_w).any():
        return (math.nan,) * 5
    total, n = float(_log_sum(log_w)[0]), len(log_w)
    ess, error = 0.0, math.inf
    if math.isfinite(total):
        ess = float(1 / (n * np.sum(np.exp(log_w - total) ** 2)))
        error = math.sqrt(max(1 / ess - 1, 0) / n)
    return ess, total - math.log(n), error, float(-np.mean(log_w)), pareto_k(log_w)


@partial(jax.jit, static_argnums=(0, 1))
def _log_ratios(
    flow: Flow, target: Any, variables: Any, contexts: Any, key: Array
) -> tuple[Array, Array]:
    """Samples, one for each context, and log p - log q of them."""
    count = len(jax.tree.leaves(contexts)[0])
    context = None if flow.context_shape is None else contexts
    rngs = {"noise": jax.random.fold_in(key, 1)}
    y, log_q = flow.apply(  # type: ignore[misc]
        variables, key, (count,), context, method="sample_jointly", rngs=rngs
    )
    log_p = target(y) if context is None else target(y, context)
    return y, log_p.astype(log_q.dtype) - log_q  # type: ignore[operator, union-attr]
