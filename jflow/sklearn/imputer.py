"""Missing cells."""

from typing import Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from jflow.sklearn.base import FlowEstimator, columns_of, keep, varying


class FlowImputer(OneToOneFeatureMixin, TransformerMixin, FlowEstimator):
    """Fills missing cells (NaN) by what the others in their row tell.

    The flow learns every part of a row given every other; see `jflow.data.TableDensity.impute`.

    Args:
      sample_posterior: whether to draw the missing cells of a row together, anew in each call of
        `transform`: draws differ as they are uncertain. Otherwise each has the median of 64.
    """

    sample_posterior: bool
    members = 1

    def __init__(
        self, *, sample_posterior=False, layers=5, hidden=(128, 128), dropout="auto", steps=2000,
        batch_size=256, learning_rate=2e-3, patience=10, validation=0.1, random_state=None,
        verbose=0,
    ):  # fmt: skip
        keep(self, locals())

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits the flow to X, (n, d), NaN where cells are missing.

        Raises:
          ValueError: a column has no cell.
        """
        X = self._checked(X, ensure_all_finite="allow-nan")
        if (empty := np.isnan(X).all(axis=0)).any():
            raise ValueError(
                f"X has columns without a cell, {np.flatnonzero(empty).tolist()}: leave them out"
            )
        self.medians_, varies = np.nanmedian(X, axis=0), varying(X)
        self.constants_ = np.where(varies, np.nan, self.medians_)
        self.random_state_ = check_random_state(self.random_state)
        self.seed_ = self._seed()
        if varies.any():
            self._fit_rows(columns_of(X), self.seed_, conditionals=True)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """X with all cells, (n, d)."""
        check_is_fitted(self)
        X = self._checked(X, reset=False, ensure_all_finite="allow-nan")
        X = np.where(np.isnan(X), self.constants_, X)
        holed = np.flatnonzero(np.isnan(X).any(axis=1))
        if not len(holed):
            return X
        drawn = self.sample_posterior
        key = int(self.random_state_.randint(2**31 - 1)) if drawn else self.seed_
        columns, member = columns_of(X[holed]), self.members_[0]
        found = member.impute(columns, samples=1 if drawn else None, key=key)
        found = found[0] if drawn else found
        X[holed] = np.stack([found[name] for name in columns], axis=1)
        return np.where(np.isnan(X), self.medians_, X)  # beside numbers that are beyond float32

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
