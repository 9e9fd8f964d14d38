"""log p of flows that estimate it, or solve for it: with its errors."""

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.bijectors.walk import rebuild
from jflow.distributions.flow import Flow
from jflow.functional.arrays import is_hidden
from jflow.functional.solvers import Solver
from jflow.functional.traces import mean_and_error


class LogProbEstimate(NamedTuple):
    """log p, and how wrong it may be; each (*batch), in nats.

    Attributes:
      mean: of independent estimates, or the logarithm of the mean of p, where they are bounds.
      standard_error: of the mean, by chance; 0 for flows whose log_det is exact, NaN of one draw.
      solver_error: a bound on what solvers of differential equations are off: how far log p moves
        if they are less, or more, exact; 0 for flows without. It is an estimate, too: where a path
        is much harder than its steps saw, it is too small.
    """

    mean: Array
    standard_error: Array
    solver_error: Array


def log_prob_estimate(
    flow: Flow, variables: Any, y: Any, context: Any, key: Array, probes: int
) -> LogProbEstimate:
    """Of so many estimates; see `Density.log_prob_estimate`. It warns if a solver limits it."""
    found = _estimate(flow, variables, y, context, key, probes)
    if _has_solvers(flow) and not is_hidden(found.mean):
        _warn(found)
    return found


def _warn(found: LogProbEstimate) -> None:
    chance, solver = np.asarray(found.standard_error), np.asarray(found.solver_error)
    worse = (solver > np.where(chance > 0, chance, _MUCH)) & np.isfinite(found.mean)
    if worse.any():
        warnings.warn(
            f"log_prob_estimate: of {worse.sum()} of {worse.size} points the error of the solver, "
            f"up to {solver[worse].max():.2g} nats, exceeds "
            + ("that of chance" if (chance > 0).any() else f"{_MUCH} nats")
            + ". Lower the tolerance of the layer's evaluation (functional.Adaptive), or take more "
            "steps (functional.FixedGrid)",
            UserWarning,
            stacklevel=4,
        )


# An error of the solver to be warned of where there is none by chance, in nats.
_MUCH = 0.01


def _has_solvers(flow: Flow) -> bool:
    return bool(_with_others(flow, 0, jnp.float32)[1])


def _with_others(flow: Flow, i: int, dtype: Any) -> tuple[Flow, list[float]]:
    """The flow with the i-th others in place of its solvers, and what their differences bound."""
    shares: list[float] = []

    def change(name: str, value: Any) -> Any:
        if name != "evaluation" or not isinstance(value, Solver):
            return value
        other, share = value.others(dtype)[i]
        shares.append(share)
        return other

    return rebuild(flow, change), shares


@partial(jax.jit, static_argnums=(0, 5))
def _estimate(
    flow: Flow, variables: Any, y: Array, context: Any, key: Array, probes: int
) -> LogProbEstimate:
    """Of so many estimates of log p: their mean, or the log of that of p; and its error."""

    def one(key: Array, flow: Flow = flow) -> Any:
        return flow.apply(variables, y, context, method="log_prob", rngs={"noise": key})

    kinds = flow.bijector.log_det_kinds
    certain = not flow.bijector.needs_key("inverse")
    keys = jax.random.split(key, 1 if certain else probes)
    draws = lax.map(one, keys)
    if "bound" in kinds and kinds <= {"exact", "bound"}:
        largest = lax.stop_gradient(jnp.max(draws, axis=0, keepdims=True))
        largest = jnp.where(jnp.isfinite(largest), largest, 0)
        p, error = mean_and_error(jnp.exp(draws - largest))
        mean, error = largest[0] + jnp.log(p), error / p
    else:
        mean, error = mean_and_error(draws)
    # Outside the support, all estimates are -inf.
    error = jnp.where(certain | jnp.isneginf(mean), 0, error)
    if not _has_solvers(flow):
        return LogProbEstimate(mean, error, jnp.zeros_like(mean))
    bound = jnp.zeros_like(mean)
    for i in (0, 1):
        other, shares = _with_others(flow, i, y.dtype)
        moved = max(shares) * jnp.abs(draws[0] - one(keys[0], other))
        bound = jnp.maximum(bound, jnp.where(jnp.isnan(moved), jnp.inf, moved))
    rounding = 8 * jnp.finfo(mean.dtype).eps * (1 + jnp.abs(mean))
    bound = jnp.where(jnp.isnan(mean), jnp.nan, bound + rounding)
    return LogProbEstimate(mean, error, jnp.where(jnp.isneginf(mean), 0, bound))
