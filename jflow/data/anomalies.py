"""How far rows are from what a density knows: conformal p-values, and surprising cells."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.data.parts import in_parts
from jflow.data.schema import Rows, Schema
from jflow.data.told import spread
from jflow.distributions import Density
from jflow.functional.arguments import check_counts

if TYPE_CHECKING:
    from jflow.data.table_density import TableDensity

# Of held-out rows, those that may be among the rows that were fitted on: duplicates occur.
_SHARED = 0.2
FEWEST = 20
# Samples whose quantiles are the points of quadratures, and draws of noise there.
_SAMPLES, _NOISES = 4096, 16
# Of what the flow sees, beside those: all over the line, and around a row's own number.
_FAR_POINTS = np.linspace(-15, 15, 121)
_NEAR_POINTS = np.outer([-1, 1], [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]).ravel()
# Densities that one call computes.
_AT_ONCE = 2**16
# Numbers of which fingerprints are taken at once.
_NUMBERS = 2**21


def fingerprints(rows: Rows) -> np.ndarray:
    """One number for each row, (N,), uint64: equal for equal rows, rarely for others."""
    parts = [part for part in (rows.values, rows.given) if part is not None]
    return fingerprints_of(np.concatenate(parts, axis=1).astype(np.float32).view(np.uint32))


def fingerprints_of(words: np.ndarray) -> np.ndarray:
    """The same of whole numbers, (N, D)."""
    factors = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64)
    found, most = np.empty(len(words), np.uint64), max(1, _NUMBERS // words.shape[1])
    for first in range(0, len(words), most):
        part = words[first : first + most].astype(np.uint64)
        found[first : first + most] = np.sum(part * (2 * factors + 1), axis=1, dtype=np.uint64)
    return found


def check_held_out(schema: Schema, rows: Rows, trained: np.ndarray | None) -> None:
    """Refuses rows that p-values may not refer to; see `check_apart`."""
    # Rows of few possible values are the same by chance.
    fine = np.asarray([not column.step for column in schema.columns])
    told = rows.take(np.flatnonzero(np.isfinite(rows.values[:, fine]).any(axis=1)))
    check_apart("rows", len(rows.values), fingerprints(told), trained)


def check_apart(kind: str, count: int, found: np.ndarray, trained: np.ndarray | None) -> None:
    """Refuses rows or images that p-values may not refer to.

    Raises:
      ValueError: the density was fitted on more than a fifth of them, or there are too few.
    """
    if count < FEWEST:
        raise ValueError(f"held_out must have {FEWEST} {kind} or more; got {count}")
    if trained is None or len(found) < FEWEST:
        return
    shared = float(np.isin(found, trained).mean())
    if shared > _SHARED:
        raise ValueError(
            f"held_out must be {kind} that the density was not fitted on; it was fitted on "
            f"{shared:.0%} of them, so that too many others would seem strange. Those that occur "
            "several times are to be on one side"
        )


def check_alpha(alpha: float, count: int, tails: int) -> None:
    """Refuses an alpha that no p-value reaches.

    Raises:
      ValueError: it is not in (0, 1), or too small for so many calibration rows.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1); got {alpha}")
    if alpha < tails / (count + 1):
        raise ValueError(
            f"alpha must be {tails / (count + 1):.2g} or more, since {count} calibration rows give "
            f"no smaller p-value; got {alpha}. Calibrate by more rows"
        )


def p_values(calibration: np.ndarray, log_p: np.ndarray, tails: int) -> np.ndarray:
    """See `Calibrated.p_value`; `calibration` is sorted. NaN of NaN."""
    if tails not in (1, 2):
        raise ValueError(f"tails must be 1 or 2; got {tails}")
    count = len(calibration)
    below = np.searchsorted(calibration, log_p, side="right")
    above = count - np.searchsorted(calibration, log_p, side="left")
    low = (below + 1) / (count + 1)
    if tails == 2:
        low = np.minimum(1, 2 * np.minimum(low, (above + 1) / (count + 1)))
    return np.where(np.isnan(log_p), np.nan, low)


def as_calibration(scores: np.ndarray) -> np.ndarray:
    """Scores of held-out data, sorted.

    Raises:
      ValueError: some are NaN.
    """
    if bad := int(np.isnan(scores).sum()):
        raise ValueError(
            f"held_out has {bad} of {len(scores)} whose log_prob is NaN: the density did not "
            "converge there"
        )
    return np.sort(scores)


def surprises(table: "TableDensity", rows: Rows, points: int, key: Array) -> dict[str, np.ndarray]:
    """See `TableDensity.contributions`."""
    check_counts("contributions", points=points)
    names, missing = table.schema.names, np.isnan(rows.values)
    if table.schema.conditionals:
        alone = np.eye(len(names), dtype=bool)
        found = [-table.log_prob_of(rows, asked, key=key) for asked in alone]
        each = np.stack(found, axis=1)
    else:
        each = _by_quadrature(table, rows, points, key)
        each[np.isinf(rows.log_det)] = np.inf
    each[missing] = 0.0
    return {name: each[:, d] for d, name in enumerate(names)}


def _by_quadrature(table: "TableDensity", rows: Rows, points: int, key: Array) -> np.ndarray:
    """(N, D): -log of the mean over draws of noise of p(cell | others)."""
    density, schema = table.density, table.schema
    first, second = jax.random.split(key)
    count, width = rows.values.shape
    noises = _NOISES if schema.is_bound else 1
    found = np.zeros((count, width))
    for index, end in in_parts(count, _AT_ONCE // (points + len(_FAR_POINTS))):
        part = rows.take(index)
        shape = (_SAMPLES,) if part.given is None else (4, len(index))
        drawn = density.sample(first, shape, part.given)
        levels = (np.arange(points) + 0.5) / points
        z = np.quantile(np.asarray(drawn, np.float64).reshape(-1, width), levels, axis=0)
        told = np.full((noises, len(index), width), -np.inf)
        for draw in range(noises):
            t, own_key = jnp.asarray(part.values), jax.random.fold_in(second, draw)
            y, log_det = spread(schema.numbers, t, own_key)
            own = density.log_prob(y, part.given)
            for d in range(width):
                nodes = np.concatenate([z[:, d], _FAR_POINTS])
                log_p = _conditional(density, y, part.given, own, nodes, d)
                told[draw, :, d] = np.asarray(log_p + log_det[:, d], np.float64)
        told = np.where(np.isnan(told), -np.inf, told)
        found[index[0] : end] = (np.log(noises) - np.logaddexp.reduce(told))[: end - index[0]]
    return found


def _conditional(
    density: Density, y: Array, given: Any, own: Array, nodes: np.ndarray, d: int
) -> Array:
    """log p(y_d | others), (N,), by the trapezoidal rule over nodes and points around y_d."""
    near = y[None, :, d] + jnp.asarray(_NEAR_POINTS, y.dtype)[:, None]
    far = jnp.broadcast_to(jnp.asarray(nodes, y.dtype)[:, None], (len(nodes), len(y)))
    z = jnp.concatenate([far, near])
    many = jnp.broadcast_to(y, (len(z), *y.shape)).at[..., d].set(z)
    told = None if given is None else jnp.broadcast_to(given, (len(z), *given.shape))
    log_p = jnp.concatenate([density.log_prob(many, told), own[None]])
    z = jnp.concatenate([z, y[None, :, d]])
    order = jnp.argsort(z, axis=0)
    z, log_p = jnp.take_along_axis(z, order, 0), jnp.take_along_axis(log_p, order, 0)
    gaps = jnp.log(jnp.maximum(jnp.diff(z, axis=0), 1e-30))
    middle = jnp.logaddexp(log_p[1:], log_p[:-1]) - math.log(2)
    return own - jax.nn.logsumexp(middle + gaps, axis=0)
