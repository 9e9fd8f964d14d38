"""Annealing to a target, from a density and from afar: what importance sampling cannot see."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.distributions.contexts import check_batch_of, converted
from jflow.distributions.density import Density
from jflow.distributions.flow import Flow
from jflow.distributions.importance import Importance, WeightedPoints, weighed
from jflow.distributions.targets import (
    check_afar,
    check_deterministic,
    check_gradient,
    check_target,
    has_gradient,
)
from jflow.functional.annealing import Annealed, anneal
from jflow.functional.arguments import as_key, check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.supports import Supports, entries, onto

# Standard errors between two estimates, from which on they disagree.
_DISAGREE = 3.0
# A share of the mass that is worth a warning after a fit.
_SMALL = 0.05
# Moves at a temperature, and temperatures; so many of these, and a look after a fit gives up.
_MOVES, _LEAPFROGS, _MOST, _FEW = 4, 5, 1000, 64
FLOW, AFAR = "from the flow", "from afar"


@dataclass(frozen=True)
class SMC(WeightedPoints):
    """What sequential Monte Carlo finds of a target p.

    Estimates of int p are unbiased (but for what adapts): one can be far below the truth, where it
    misses something, but hardly above it. Of runs that disagree, the higher one counts.

    Attributes:
      log_normalizer: log int p, in nats.
      error: its standard error.
      importance: the same from samples of the flow alone, without annealing.
      runs: (log_normalizer, error) of "from the flow" and "from afar".
      forward_ess: the effective sample size of the flow's samples as the points from afar see it,
        int p / E_p[p/q]: near 0 where the flow lacks a mode. NaN without a run from afar.
    """

    log_normalizer: float
    error: float
    importance: Importance
    runs: dict[str, tuple[float, float]]
    forward_ess: float

    @property
    def missed(self) -> float:
        """The share of p's mass that importance sampling with the flow does not find, or 0."""
        return _share(self.importance.log_normalizer, self.log_normalizer)

    @property
    def advice(self) -> list[str]:
        """What to know of the target and of the flow, in words."""
        found, own = [], self.importance
        if math.isnan(own.log_normalizer):
            found.append("the target is NaN or infinite for some samples of the flow")
        elif _apart(self.log_normalizer, self.error, own.log_normalizer, own.error):
            found.append(
                f"importance sampling with the flow finds log Z {own.log_normalizer:.3f} +- "
                f"{own.error:.3f}, sequential Monte Carlo {self.log_normalizer:.3f} +- "
                f"{self.error:.3f}: samples of the flow lack {self.missed:.0%} of the target's "
                "mass, such as modes. Fit it with fit_to_target(objective='fab') or anneal=, and "
                "use the points and weights found here until then"
            )
        for name, run in self.runs.items():
            if name == FLOW and not math.isnan(self.forward_ess) and math.isinf(run[1]):
                found.append(
                    "points from afar are where the flow has no samples to speak of: log Z is "
                    f"about {run[0]:.3f}, as found from the flow, or higher"
                )
            elif not all(map(math.isfinite, run)):
                found.append(
                    f"the run {name} is not to be trusted (log Z {run[0]:.4g} +- {run[1]:.2g}): "
                    "most of its points come from one, or none is where the target is above zero. "
                    "Take more samples, give afar= the target's scale, or end the flow where the "
                    "target lives"
                )
        return found

    def __str__(self) -> str:
        runs = ", ".join(f"{name} {value:.4f} +- {e:.4f}" for name, (value, e) in self.runs.items())
        text = f"log Z {self.log_normalizer:.4f} +- {self.error:.4f} nats ({runs}; importance "
        own = self.importance
        text += f"{own.log_normalizer:.4f} +- {own.error:.4f}); effective sample size {own.ess:.3f}"
        text += f", as points from afar see it {self.forward_ess:.3f}"
        return "; ".join([text, *self.advice])


def smc(
    density: Density, target: Callable[..., Array], key: Array | int, samples: int = 4096,
    context: Any = None, *, afar: float | None = 2.0, moves: int = _MOVES,
    leapfrogs: int = _LEAPFROGS,
) -> SMC:  # fmt: skip
    """Sequential Monte Carlo to a target: from the samples of a flow, and from afar.

    The first run goes from the flow q to p, moving points by Hamiltonian Monte Carlo where q has
    made p simple, on latents. It cannot leave the modes that q has. So another one starts from
    normals of a wide spread, wherever the flow's events may live, and knows nothing of q. It warns,
    in words, where importance sampling with q disagrees with what they find.

    Args:
      density: q; it need not have been fitted.
      target: log p up to a constant, differentiable, the same object from call to call; see
        `fit_to_target`.
      key: a JAX random key or a whole number.
      samples: how many points, in each run.
      context: for a conditional flow: one, (*context_shape).
      afar: the spread of the normals that the second run starts from; of entries that live on an
        interval or a half line, before they are mapped there. None for no such run.
      moves: at each temperature.
      leapfrogs: of each move; 0 for random walks, for targets without gradients.

    Raises:
      ValueError: arguments that do not fit, a target without a gradient, or a flow whose samples
        are random functions of its latents, or whose log-determinants are estimates.
    """
    key, flow = as_key("smc", key), density.flow
    check_counts("smc", samples=samples, moves=moves)
    check_counts("smc", 0, leapfrogs=leapfrogs)
    check_afar("smc", afar)
    one = converted(context, as_wide)
    check_batch_of(flow.context_shape, one, ())
    given = None if one is None else jax.tree.map(lambda part: jnp.stack([part] * 2), one)
    check_target(flow, target, given)
    check_deterministic("smc", flow)
    check_gradient(flow, target, given, leapfrogs)
    near, far = jax.random.split(key)
    how = (samples, moves, leapfrogs, _MOST)
    gain, y, own = _from_flow(flow, target, how, density.variables, one, near)
    importance = weighed(y, np.asarray(gain, np.float64)[None])
    found = {FLOW: own}
    if afar is not None:
        found[AFAR] = _from_afar(flow.support, flow.event_shape, target, how, one, float(afar), far)
    runs = {n: (float(run.log_normalizer), float(run.error)) for n, run in found.items()}
    raw, forward_ess = dict(runs), math.nan
    if afar is not None and all(map(math.isfinite, runs[AFAR])):
        forward_ess = float(_seen(flow, target, density.variables, found[AFAR], one))
        runs[FLOW] = (runs[FLOW][0], _surely(runs[FLOW][1], importance, forward_ess, samples))
    name = judged(raw, runs)
    best = found[name]
    weights = np.asarray(jax.nn.softmax(best.log_weights), np.float64)
    result = SMC(best.points, weights, *runs[name], importance, runs, forward_ess)
    if result.advice:
        warnings.warn(f"smc: {'; '.join(result.advice)}", stacklevel=2)
    return result


def _surely(error: float, importance: Importance, forward_ess: float, samples: int) -> float:
    """The error of the run from the flow, with what its own samples do not see of it.

    Where q is too thin, weights are large, and rarely drawn: then points of p tell of more variance
    than samples of q do, and families know no more than these. Above 1 nat, nobody knows.
    """
    seen = math.sqrt((1 / max(forward_ess, 1e-30) - 1) / samples)
    return math.hypot(error, max(0.0, seen - importance.error)) if seen < 1 else math.inf


def missing(
    flow: Flow, target: Callable[..., Array], own: tuple[float, ...], key: Array, samples: int,
    spread: float,
) -> str:  # fmt: skip
    """What a run from afar finds that importance sampling with the flow did not, in words.

    Args:
      flow: without contexts.
      target: log p up to a constant.
      own: log_normalizer and its error, by importance sampling.
      key: a JAX random key.
      samples: how many points.
      spread: of the normals that they start from.
    """
    how = (samples, _MOVES, _LEAPFROGS if has_gradient(flow, target) else 0, _FEW)
    run = _from_afar(flow.support, flow.event_shape, target, how, None, float(spread), key)
    value, error = float(run.log_normalizer), float(run.error)
    share = _share(own[0], value)
    if not math.isfinite(value + error) or share < _SMALL or not _apart(value, error, *own):
        return ""
    return (
        f"samples of the flow lack about {share:.0%} of the target's mass: annealed from afar, log "
        f"Z is {value:.2f} +- {error:.2f}; importance sampling with the flow finds {own[0]:.2f} +- "
        f"{own[1]:.2f}. Fit with objective='fab' or anneal=, or take train.smc"
    )


def judged(raw: dict[str, tuple[float, float]], runs: dict[str, tuple[float, float]]) -> str:
    """The run that counts: the higher one, if they disagree; or else the surer one.

    Whether they disagree, errors tell as the runs know them; how sure they are, those that points
    of the other run have raised.
    """
    finite = {name: run for name, run in raw.items() if all(map(math.isfinite, run))}
    if len(finite) < 2:
        return next(iter(finite or runs))
    for higher, lower in ((FLOW, AFAR), (AFAR, FLOW)):
        if _apart(*raw[higher], *raw[lower]):
            return higher
    return min(runs, key=lambda name: runs[name][1])


@partial(jax.jit, static_argnums=(0, 1))
def _seen(flow: Flow, target: Any, variables: Any, run: Annealed, context: Any) -> Array:
    """The effective sample size of the flow's samples, as points of p see it: int p / E_p[p/q]."""
    log_q: Any = flow.apply(variables, run.points, context, method="log_prob")
    log_w = _of(target, run.points, context) - log_q
    log_mean = jax.nn.logsumexp(jnp.where(jnp.isnan(log_w), jnp.inf, log_w) + run.log_weights)
    return jnp.minimum(jnp.exp(run.log_normalizer - log_mean), 1)


def _share(found: float, value: float) -> float:
    """The share of e^value that e^found lacks, or 0."""
    return max(0.0, -math.expm1(min(found - value, 0.0)))


def _apart(value: float, error: float, other: float, other_error: float) -> bool:
    """Whether a value is above another by more than chance."""
    both = math.hypot(error, other_error) if math.isfinite(other_error) else error
    return not value - other <= _DISAGREE * both


@partial(jax.jit, static_argnums=(0, 1, 2))
def _from_flow(
    flow: Flow, target: Any, how: tuple[int, ...], variables: Any, context: Any, key: Array
) -> tuple[Array, Array, Annealed]:
    """log p - log q of samples of q, these, and where they were annealed to."""
    samples, *rest = how

    def path(x: Array) -> tuple[Array, Array]:
        y, log_det, log_base = pulled_back(flow, variables, x, context)
        return log_base, _of(target, y, context) + log_det - log_base

    draw, walk = jax.random.split(key)
    x: Any = flow.apply(variables, draw, (samples,), context, method="sample_latents")
    run = anneal(path, x, walk, *rest)
    moved = lambda x: pulled_back(flow, variables, x, context)[0]  # noqa: E731
    return path(x)[1], moved(x), run._replace(points=moved(run.points))


def pulled_back(
    flow: Flow, variables: Any, x: Array, context: Any = None
) -> tuple[Array, Array, Array]:
    """`Flow.pulled_back`, from outside."""
    found: Any = flow.apply(variables, x, context, method="pulled_back")
    return found


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _from_afar(
    support: Supports, event_shape: tuple[int, ...], target: Any, how: tuple[int, ...],
    context: Any, spread: Any, key: Array,
) -> Annealed:  # fmt: skip
    """Annealed from normals of a spread, mapped to where events live."""
    samples, *rest = how
    parts = entries(support, event_shape[-1]) if event_shape else (support,)

    def mapped(x: Array) -> tuple[Array, Array]:
        y, log_slope = x, jnp.zeros_like(x)
        for part in dict.fromkeys(parts):  # each kind once, on all entries: there may be thousands
            own = np.asarray([other == part for other in parts])
            found = onto(part)(x)  # type: ignore[arg-type]
            y, log_slope = (
                jnp.where(own, new, old) for new, old in zip(found, (y, log_slope), strict=True)
            )
        return y, log_slope

    over = tuple(range(1, len(event_shape) + 1))

    def path(x: Array) -> tuple[Array, Array]:
        y, log_slope = mapped(x)
        start = jnp.sum(jax.scipy.stats.norm.logpdf(x, 0, spread), axis=over)
        return start, _of(target, y, context) + jnp.sum(log_slope, axis=over) - start

    draw, walk = jax.random.split(key)
    x = spread * jax.random.normal(draw, (samples, *event_shape))
    run = anneal(path, x, walk, *rest)
    return run._replace(points=mapped(run.points)[0])


def _of(target: Callable[..., Array], y: Array, context: Any) -> Array:
    """The target of points, all for one context, where there is one."""
    if context is None:
        return target(y).astype(y.dtype)
    every = lambda part: jnp.broadcast_to(part, (len(y), *part.shape))  # noqa: E731
    return target(y, jax.tree.map(every, context)).astype(y.dtype)
