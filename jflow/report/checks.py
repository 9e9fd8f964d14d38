"""What a report finds out: likelihoods beside baselines, samples beside rows, calibration."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jflow.data import TableDensity, anomalies
from jflow.data.schema import Rows
from jflow.data.told import spread
from jflow.functional.arguments import as_key

_DRAWS = 16
# Rows that baselines are fitted on, test rows that are looked at, rows that cells are ranked in;
# draws that they are among.
_FITTED, _TESTED, _RANKED, _AMONG = 3_000, 1_000, 200, 63
# Rows without which a check is left out.
FEW = 20


@dataclass(frozen=True)
class Likelihoods:
    """Mean log p of whole test rows, in nats, by name: (mean, standard error of the mean).

    Attributes:
      each: by method, "flow" first.
      gains: of the flow over each of the others, in the same rows, with their standard errors.
      rows: how many.
    """

    each: dict[str, tuple[float, float]]
    gains: dict[str, tuple[float, float]]
    rows: int


def likelihoods(density: TableDensity, parts: tuple[Rows, Rows, Rows]) -> Likelihoods | None:
    """The flow beside a Gaussian, a mixture of them and a kernel estimate.

    All are densities of what the flow sees of rows without missing cells, and see the same noise;
    sizes of the baselines are chosen by the validation rows. None if there are too few rows.
    """
    train, validation, test = (_whole(part) for part in parts)
    if min(len(train.values), len(test.values)) < FEW or len(validation.values) < 2:
        return None
    train = train.take(np.arange(min(_FITTED, len(train.values))))
    test = test.take(np.arange(min(_TESTED, len(test.values))))
    seen = [_seen(density, part, place) for place, part in enumerate((train, validation, test))]
    found = {"flow": density.log_prob_of(test, draws=_DRAWS)}
    for name, score in _baselines(seen[0][0][0], seen[1][0][0]).items():
        y, log_det = seen[2]
        log_p = score(y.reshape(-1, y.shape[-1])).reshape(y.shape[:2]) + log_det
        found[name] = np.logaddexp.reduce(log_p, axis=0) - np.log(_DRAWS) + test.log_det
    gains = {name: _mean(found["flow"] - found[name]) for name in found if name != "flow"}
    return Likelihoods({name: _mean(f) for name, f in found.items()}, gains, len(test.values))


def _whole(rows: Rows) -> Rows:
    return rows.take(np.flatnonzero(np.isfinite(rows.values).all(1) & np.isfinite(rows.log_det)))


def _seen(density: TableDensity, rows: Rows, place: int) -> tuple[np.ndarray, np.ndarray]:
    """y, (draws, N, D), and log|dy/dx|, (draws, N)."""
    keys = jax.random.split(as_key("report", place), _DRAWS)
    once = jax.jit(lambda key: spread(density.schema.numbers, jnp.asarray(rows.values), key))
    y, log_det = jax.vmap(once)(keys)
    return np.asarray(y, np.float64), np.asarray(log_det, np.float64).sum(-1)


def _baselines(train: np.ndarray, validation: np.ndarray) -> dict[str, Any]:
    """Log densities, by name, fitted to rows (N, D)."""
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KernelDensity

    def mixture(count: int) -> Any:
        return GaussianMixture(count, reg_covar=1e-3, random_state=0).fit(train)

    def kernels(width: float) -> Any:
        return KernelDensity(bandwidth=width).fit(train)

    def best(models: list[Any]) -> Any:
        return max(models, key=lambda model: model.score_samples(validation).mean())

    counts = [c for c in (2, 3, 5, 8, 12) if c * 4 <= len(train)]
    widths = np.geomspace(0.05, 1.0, 8)
    return {
        "one Gaussian": mixture(1).score_samples,
        "Gaussian mixture": best([mixture(c) for c in counts]).score_samples,
        "kernel estimate": best([kernels(float(w)) for w in widths]).score_samples,
    }


def _mean(each: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))


def generated(density: TableDensity, rows: Rows, key: int) -> np.ndarray:
    """t of as many rows that the density draws, (N, D), given what is given of these."""
    empty = np.full(rows.values.shape, np.nan, np.float32)
    v = density.draw_missing(empty, rows.given, as_key("report", key))
    columns = enumerate(density.schema.columns)
    return np.stack([c.encode(c.numbers(c.decode(v[:, d])))[0] for d, c in columns], axis=1)


@dataclass(frozen=True)
class TwoSample:
    """How often a classifier tells test rows from generated ones.

    Attributes:
      accuracy: over rows that it had not seen; 0.5 if it cannot.
      error: its standard error, were it guessing.
      rows: of each kind.
    """

    accuracy: float
    error: float
    rows: int

    @property
    def told_apart(self) -> bool:
        """Whether that is more than chance."""
        return bool(self.accuracy > 0.5 + 2 * self.error)


def two_sample(real: np.ndarray, drawn: np.ndarray) -> TwoSample | None:
    """The classifier two-sample test (Lopez-Paz and Oquab, 2017, https://arxiv.org/abs/1610.06545).

    A random forest, in five folds. None if fewer than 20 rows have all their cells.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    whole = np.flatnonzero(np.isfinite(real).all(1) & np.isfinite(drawn).all(1))[:_TESTED]
    real, drawn = real[whole], drawn[whole]
    if len(real) < FEW:
        return None
    rows, kinds = np.concatenate([real, drawn]), np.repeat([0, 1], len(real))
    forest = RandomForestClassifier(300, min_samples_leaf=3, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    found: Any = cross_val_predict(forest, rows, kinds, cv=folds)
    right = np.asarray(found) == kinds
    return TwoSample(float(np.mean(right)), float(0.5 / np.sqrt(len(kinds))), len(real))


@dataclass(frozen=True)
class Uniform:
    """Numbers that should be uniform on (0, 1).

    Attributes:
      values: these.
      p_value: of the Kolmogorov-Smirnov test.
    """

    values: np.ndarray
    p_value: float


def uniform(values: np.ndarray) -> Uniform:
    """With the test of them."""
    return Uniform(values, float(stats.kstest(values, "uniform").pvalue))


def p_values_of(density: TableDensity, rows: Rows) -> Uniform | None:
    """p-values of rows that neither fitted nor calibrated it; None if there are too few."""
    if density.calibration is None or len(rows.values) < FEW:
        return None
    return uniform(anomalies.p_values(density.calibration, density.log_prob_of(rows), tails=2))


def ranks(density: TableDensity, rows: Rows, key: int) -> dict[str, Uniform]:
    """Where each cell is among draws of it given the others in its row, by column.

    Simulation-based calibration (Talts et al., 2018, https://arxiv.org/abs/1804.06788), for tables
    built with `conditionals`; equal cells are ordered at random.
    """
    rows = rows.take(np.arange(min(_RANKED, len(rows.values))))
    if not density.schema.conditionals:
        return {}
    found, rng = {}, np.random.default_rng(key)
    keys = jax.random.split(as_key("report", key), _AMONG)
    for d, column in enumerate(density.schema.columns):
        there = np.flatnonzero(np.isfinite(rows.values[:, d]) & np.isfinite(rows.log_det))
        if len(there) < FEW:
            continue
        some = rows.take(there)
        holed = some.values.copy()
        holed[:, d] = np.nan
        drawn = np.stack([density.draw_missing(holed, some.given, k)[:, d] for k in keys])
        if column.step:
            drawn = np.floor(drawn * column.unit / column.step + 1e-6)
            own = np.floor(some.values[:, d] * column.unit / column.step + 1e-3)
        else:
            own = some.values[:, d]
        below, same = (drawn < own).sum(0), (drawn == own).sum(0)
        found[column.name] = uniform(
            (below + rng.uniform(size=len(own)) * (same + 1)) / (_AMONG + 1)
        )
    return found


def surprises(density: TableDensity, rows: Rows) -> dict[str, np.ndarray]:
    """How surprising each cell of some rows is; see `TableDensity.contributions`."""
    return anomalies.surprises(density, rows, 64, as_key("report", 0))
