"""The check of flows: samples and log_prob are of one distribution, of mass one."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jflow.distributions import Density, Flow, init
from jflow.functional.arguments import check_counts
from jflow.functional.supports import Circle, Integers, Interval, Support, entries
from jflow.testing.points import moved
from jflow.testing.report import Checks, Report, describe

_SIGMAS = 4.5
_CHUNK = 20_000
_OUTCOMES = 100_000
_PROBES = 200  # of bounds of probabilities


def check_flow(
    flow: Flow,
    *,
    variables: Mapping[str, Any] | None = None,
    data: ArrayLike | None = None,
    context: ArrayLike | None = None,
    bounds: tuple[tuple[float, float], ...] | None = None,
    samples: int = 4_000,
    scale: float = 0.1,
    seed: int = 0,
) -> Report:
    """Checks that a flow is one distribution: what it draws, what it scores, and a mass of one.

    - the log_prob that comes with a sample is that of `log_prob`, if exact; latents lead back to y;
    - with one or two numbers an event, the density integrates to one, by quadrature, and samples
      fall into its level sets as often as it says (4.5 standard errors); of whole numbers between
      two ends, the sum of probabilities is one, or less of bounds;
    - with more, the mean of q(y) / p(y) over samples is one, for a normal density q (4.5 standard
      errors): so samples follow p, and p has a mass of one where q has its.

    Args:
      flow: what is checked.
      variables: of the flow, such as trained ones; None for new ones, moved off their first values.
      data: (N, *event) to initialise from. None for uniform numbers where the flow's support is
        bounded, and standard normals elsewhere.
      context: one, of the shape that a conditional flow takes.
      bounds: for one or two numbers an event, the interval of each that holds the mass. None for
        those of the flow's support: on the line, far out.
      samples: how many are drawn, 2 or more.
      scale: of the steps by which new parameters are moved.
      seed: of what is drawn.

    Returns:
      The properties that were checked, with their errors: a table that prints.

    Raises:
      ContractError: properties do not hold; it names each, with its largest error and the point.
      TypeError: not a flow.
      ValueError: data or context that do not fit the flow, or too few samples.
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"check_flow: flow must be a jflow.Flow; got {flow!r}")
    check_counts("check_flow", 2, samples=samples)
    random, key = np.random.default_rng(seed), jax.random.key(seed)
    checks = Checks(f"Flow of {type(flow.bijector).__name__} on events of shape {flow.event_shape}")
    context = None if context is None else np.asarray(context)
    if variables is None:
        y = _points(flow, random) if data is None else np.asarray(data)
        y = y.astype(float) if flow.integers is None else y
        variables = moved(init(flow, key, y, context), scale, random)
    density = Density(flow, variables)
    y, log_prob = density.sample_and_log_prob(key, samples, context)
    y, log_prob = np.asarray(y), np.asarray(log_prob)
    _check_pairs(checks, density, y, log_prob, context)
    if flow.integers is not None:
        _check_probabilities(checks, density, y, context, bounds)
    elif flow.bijector.log_det_kind != "exact":
        checks.notes.append(f"mass: log_det is {flow.bijector.log_det_kind}")
    elif y[0].size <= 2:
        _check_mass(checks, density, y, log_prob, context, bounds)
    else:
        _check_importance(checks, y, log_prob)
    return checks.report()


def _bounds(flow: Flow) -> list[tuple[float, float] | None]:
    """The ends of where each number of an event lives; None for lines and half-lines."""
    support, shape = flow.support, flow.event_shape
    last = [support] if not shape and isinstance(support, Support) else entries(support, shape[-1])
    each = [(-np.pi, np.pi) if isinstance(part, Circle) else _ends(part) for part in last]
    return each * (math.prod(shape) // len(each))


def _ends(part: Support) -> tuple[float, float] | None:
    known = isinstance(part, Interval | Integers)
    ends = (part.low, part.high) if known else (-np.inf, np.inf)
    return ends if np.isfinite(ends).all() else None


def _points(flow: Flow, random: np.random.Generator) -> np.ndarray:
    """Points to initialise from, inside the support."""
    columns = [
        random.standard_normal(64) if ends is None else random.uniform(*ends, 64)
        for ends in _bounds(flow)
    ]
    points = np.stack(columns, -1).reshape(64, *flow.event_shape)
    return points if flow.integers is None else np.round(points).astype(np.int32)


def _check_pairs(checks: Checks, density: Density, y: Any, log_prob: Any, context: Any) -> None:
    flow, at = density.flow, lambda i: describe(y=y[i])
    allowed = 1e-3 if y.dtype == np.float32 else 1e-7
    checks.finite("samples have finite log_prob", log_prob, at)
    if flow.bijector.log_det_kind == "exact":
        checks.close(
            "log_prob of samples is that of sample_and_log_prob", density.log_prob(y, context),
            log_prob, allowed * (1 + np.abs(log_prob)), at, "the directions' log_dets disagree",
        )  # fmt: skip
    if flow.bijector.forward_kind != "random":
        again = density.from_latents(density.latents(y, context, key=0), context)
        checks.close("from_latents(latents(y)) = y", again, y, allowed * (1 + np.abs(y)), at)


def _check_mass(
    checks: Checks, density: Density, y: Any, log_prob: Any, context: Any, bounds: Any
) -> None:
    """The integral over a grid; its own error is judged by that over every other point."""
    flat = y.reshape(len(y), -1)
    bounds = _bounds(density.flow) if bounds is None else bounds
    count = 20_001 if flat.shape[1] == 1 else 601
    axes = [_axis(column, count, ends) for column, ends in zip(flat.T, bounds, strict=True)]
    points = np.stack(np.meshgrid(*(x for x, _ in axes), indexing="ij"), -1)
    scores = _in_chunks(density, points.reshape(-1, *density.flow.event_shape), y.dtype, context)
    scores = scores.reshape(points.shape[:-1])
    p = np.exp(scores)
    whole = _integral(p, [w for _, w in axes])
    coarse = _integral(p[tuple(slice(None, None, 2) for _ in axes)], [_doubled(w) for _, w in axes])
    allowed = 1e-3 + abs(whole - coarse)
    checks.close("mass is one", whole, 1.0, allowed, lambda _: "the whole space",
                 "log_dets are wrong, or the bijector is not onto")  # fmt: skip
    shares = np.asarray([0.1, 0.5, 0.9])
    levels = np.quantile(log_prob, 1 - shares)
    found = [_integral(p * (scores > level), [w for _, w in axes]) for level in levels]
    error = _SIGMAS * np.sqrt(shares * (1 - shares) / len(y)) + 5e-3 + allowed
    at = lambda i: f"log p > {levels[i]:.4g}"  # noqa: E731
    name, fix = "samples fall into level sets as the density says", "they follow another density"
    checks.close(name, shares, found, error, at, fix)


def _check_probabilities(
    checks: Checks, density: Density, y: Any, context: Any, bounds: Any
) -> None:
    """Of whole numbers: their sum, and how often each is drawn. Bounds may be below."""
    kinds, shape = density.flow.bijector.log_det_kinds, density.flow.event_shape
    bounds = _bounds(density.flow) if bounds is None else bounds
    known = y[0].size <= 2 and None not in bounds and kinds <= {"exact", "bound"}
    if not known or math.prod(high + 1 - low for low, high in bounds) > _OUTCOMES:
        checks.notes.append("mass: of more than two numbers, without ends, many, or of estimates")
        return
    axes = [np.arange(low, high + 1, dtype=np.int32) for low, high in bounds]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, *shape)
    found = density.log_prob_estimate(points, 0, context, probes=_PROBES)
    p = np.exp(np.asarray(found.mean, np.float64))
    error = p * np.asarray(found.standard_error)
    flat, (low, high) = y.reshape(len(y), -1), np.transpose(bounds)
    inside = np.all((low <= flat) & (flat <= high), axis=1)
    checks.holds("samples lie within the bounds", inside.all(), fix=f"they are {bounds}")
    places = (flat[inside] - low).astype(int).T
    index = np.ravel_multi_index(tuple(places), [len(axis) for axis in axes])
    share, whole = np.bincount(index, minlength=len(points)) / len(y), p.sum()
    lower = kinds != {"exact"}
    checks.close("probabilities add up to one", whole, min(whole, 1.0) if lower else 1.0,
                 1e-3 + _SIGMAS * np.linalg.norm(error), lambda _: "all numbers",
                 "log_dets are wrong")  # fmt: skip
    spread = np.sqrt(np.maximum(p * (1 - p), 0) / len(y) + error**2)
    checks.close("samples are drawn as often as log_prob says", p,
                 np.minimum(share, p) if lower else share, _SIGMAS * spread + 2e-3,
                 lambda i: describe(y=points[i]), "they follow other probabilities")  # fmt: skip


def _axis(y: np.ndarray, count: int, bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points and trapezoid weights: even in an interval, or fine at samples and reaching far."""
    if bounds is not None:
        x, step = np.linspace(bounds[0], bounds[1], count, retstep=True)
        slope = np.ones(count)
    else:
        low, middle, high = np.quantile(y, [0.05, 0.5, 0.95])
        end = np.arcsinh(1000.0)
        t, step = np.linspace(-end, end, count, retstep=True)
        width = max(high - low, 1e-6) / 2
        x, slope = middle + width * np.sinh(t), width * np.cosh(t)
    weights = slope * step
    weights[[0, -1]] /= 2
    return x, weights


def _doubled(weights: np.ndarray) -> np.ndarray:
    """The weights of every other point."""
    return 2 * weights[::2]


def _integral(values: np.ndarray, weights: list[np.ndarray]) -> float:
    for w in weights[::-1]:
        values = values @ w
    return float(values)


def _in_chunks(density: Density, points: np.ndarray, dtype: Any, context: Any) -> np.ndarray:
    size = min(_CHUNK, len(points))
    padded = np.resize(points.astype(dtype), (-(-len(points) // size) * size, *points.shape[1:]))
    parts = [
        density.log_prob(part, context) for part in padded.reshape(-1, size, *points.shape[1:])
    ]
    return np.concatenate(parts)[: len(points)].astype(np.float64)


def _check_importance(checks: Checks, y: np.ndarray, log_prob: np.ndarray) -> None:
    """E[q(y) / p(y)] over samples of p is the mass that q has where p is positive: one."""
    flat = y.reshape(len(y), -1).astype(np.float64)
    mean, cov = flat.mean(axis=0), 0.5 * np.cov(flat.T)
    half = np.linalg.cholesky(cov)
    z = np.linalg.solve(half, (flat - mean).T)
    log_q = -0.5 * np.sum(z**2, axis=0) - np.log(np.diag(half)).sum()
    log_q -= 0.5 * flat.shape[1] * np.log(2 * np.pi)
    ratio = np.exp(log_q - log_prob)
    error = _SIGMAS * ratio.std(ddof=1) / np.sqrt(len(ratio)) + 1e-3
    checks.close("samples follow log_prob: mean of q / p is one", ratio.mean(), 1.0, error,
                 lambda _: f"{len(y)} samples", "samples and log_prob are of two densities, or "
                 "the mass is not one")  # fmt: skip
