"""Regression: the law of y given X."""

from typing import Any, Self

import numpy as np
from scipy.stats import norm
from sklearn.base import RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from jflow.data import TableDensity
from jflow.data.schema import Rows
from jflow.data.told import gather
from jflow.sklearn.base import FlowEstimator, columns_of, counted, filled, keep, varying

# Latents at which laws are looked at, and their weights: a trapezoidal rule, which for smooth
# functions under a Gaussian is as good as exact.
_Z = np.linspace(-6.0, 6.0, 65)
_WEIGHTS = norm.pdf(_Z) / norm.pdf(_Z).sum()
_ROWS = 64


class FlowRegressor(RegressorMixin, FlowEstimator):
    """The law of a number y given numbers X: its mean, quantiles, intervals and density.

    Members are flows of y whose parameters a network computes from X; their mean is the law
    (Lakshminarayanan et al., 2017, https://arxiv.org/abs/1612.01474).
    """

    def __init__(
        self, *, layers=2, hidden=(128, 128), dropout="auto", steps=2000, batch_size=256,
        learning_rate=2e-3, patience=10, validation=0.2, members=5, random_state=None, verbose=0,
    ):  # fmt: skip
        keep(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fits the flows to y, (n,), given X, (n, d); a weight k is the same as k copies."""
        X, y = self._checked(X, y, y_numeric=True)
        rows, weights = counted(np.column_stack([X, y.astype(np.float64)]), sample_weight)
        if np.ptp(rows[:, -1]) == 0:
            raise ValueError(f"y must vary; all of n_samples = {len(rows)} have {rows[0, -1]}")
        kept = zip(columns_of(rows[:, :-1]).items(), varying(rows[:, :-1]), strict=True)
        told = dict(column for column, varies in kept if varies)
        self.grid_ = np.unique(rows[:, -1])
        self._fit_rows(told | {"y": rows[:, -1]}, self._seed(), tuple(told), weights)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of y, (n,), and its standard deviation, if asked for."""
        y, _, weights = self._laws(X)
        mean = np.sum(weights * y, axis=1)
        if not return_std:
            return mean
        return mean, np.sqrt(np.sum(weights * (y - mean[:, None]) ** 2, axis=1))

    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95)) -> np.ndarray:
        """The numbers below which y is with these probabilities, (n, k).

        Raises:
          ValueError: one is not in (0, 1).
        """
        levels = np.atleast_1d(np.asarray(quantiles, np.float64))
        if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles must be in (0, 1); got {quantiles}")
        v, cumulative, _ = self._laws(X, decode=False)
        return self._at(v, cumulative, np.broadcast_to(levels, (len(v), len(levels))))

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Where y is with that probability, with as much below as above, (n, 2).

        Raises:
          ValueError: `coverage` is not in (0, 1).
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be in (0, 1); got {coverage}")
        return self.predict_quantiles(X, ((1 - coverage) / 2, (1 + coverage) / 2))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws of y, (n, n_samples)."""
        v, cumulative, _ = self._laws(X, decode=False)
        rng = check_random_state(self.random_state if random_state is None else random_state)
        return self._at(v, cumulative, rng.uniform(size=(len(v), n_samples)))

    def log_prob(self, X: Any, y: Any) -> np.ndarray:
        """log p(y given X), nats in the units of y, (n,); of whole numbers, a bound on log P."""
        check_is_fitted(self)
        X, y = self._checked(X, y, reset=False, y_numeric=True)
        return self._log_prob(self._rows(X, y=y.astype(np.float64)))

    def crps(self, X: Any, y: Any) -> np.ndarray:
        """The continuous ranked probability score, in the units of y, (n,); 0 is best.

            int (F(t) - 1{y <= t})^2 dt = E|Y - y| - E|Y - Y'| / 2

        (Gneiting and Raftery, 2007, https://doi.org/10.1198/016214506000001437).
        """
        _, y = self._checked(X, y, reset=False, y_numeric=True)
        found, cumulative, weights = self._laws(X)
        found = found - y[:, None]
        spread = np.sum(weights * found * (2 * cumulative - 1), axis=1)
        return np.sum(weights * np.abs(found), axis=1) - spread

    def _laws(self, X: Any, *, decode: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers in order, the probability below each, and that of each, (n, k) all."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        rows = filled(self._rows(X, y=np.zeros(len(X))), _ROWS)
        parts = []
        for first in range(0, len(rows.values), _ROWS):
            some = rows.take(np.arange(first, first + _ROWS))
            parts.append(np.concatenate([_law(member, some) for member in self.members_], axis=1))
        v = np.concatenate(parts)[: len(X)]
        order = np.argsort(v, axis=1)
        v = np.take_along_axis(v, order, axis=1)
        weights = (np.tile(_WEIGHTS, len(self.members_)) / len(self.members_))[order]
        cumulative = np.cumsum(weights, axis=1) - weights / 2
        return self._decode(v) if decode else v, cumulative, weights

    def _decode(self, v: np.ndarray) -> np.ndarray:
        """y of v; on a grid, what rounding made of a y that was seen is that y."""
        column = self.schema_.columns[0]
        y = column.decode(v.ravel()).reshape(v.shape)
        place = np.searchsorted(self.grid_, y - 1e-3 * column.step).clip(0, len(self.grid_) - 1)
        near = self.grid_[place]
        return np.where(np.abs(near - y) < 1e-3 * column.step, near, y)

    def _at(self, v: np.ndarray, cumulative: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Quantiles at levels (n, k)."""
        found = [np.interp(*each) for each in zip(levels, cumulative, v, strict=True)]
        return self._decode(np.stack(found))


def _law(member: TableDensity, rows: Rows) -> np.ndarray:
    """v at the latents, (n, len(_Z))."""
    count = len(rows.values)
    z = np.tile(_Z.astype(np.float32), count)[:, None]
    given = None if rows.given is None else np.repeat(rows.given, len(_Z), axis=0)
    y = member.density.from_latents(z, given)
    v = np.asarray(gather(member.schema.numbers, y), np.float64)
    return v.reshape(count, len(_Z))
