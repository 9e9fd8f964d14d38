"""Density estimation."""

from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from jflow.sklearn.base import FlowEstimator, columns_of, counted


class FlowDensity(DensityMixin, FlowEstimator):
    """The density of rows of numbers.

    Columns on a grid (whole or rounded numbers) are made continuous by noise. `score_samples` is a
    bound then, of whole numbers that of a probability; see `jflow.data.TableDensity`. The members,
    which are such, are `members_`, and how they were fitted is in `histories_`.
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fits the flows to X, (n, d); `sample_weight` k is the same as k copies of a row."""
        X = self._checked(X)
        rows, weights = counted(X, sample_weight)
        self._fit_rows(columns_of(rows), self._seed(), weights=weights)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row, nats, (n,)."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        return self._log_prob(self._rows(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """The mean of log p over rows, nats."""
        return float(np.average(self.score_samples(X), weights=sample_weight))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Rows that the density draws, (n_samples, d)."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 0:
            raise ValueError(f"n_samples must be a whole number, 0 or more; got {n_samples!r}")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        counts = rng.multinomial(n_samples, np.full(len(self.members_), 1 / len(self.members_)))
        parts = []
        for member, count in zip(self.members_, counts, strict=True):
            if count:
                drawn = member.sample(int(count), key=int(rng.randint(2**31 - 1)))
                parts.append(np.stack([drawn[f"x{d}"] for d in range(self.n_features_in_)], 1))
        rows = np.concatenate(parts) if parts else np.empty((0, self.n_features_in_))
        return rng.permutation(rows.astype(np.float64))
