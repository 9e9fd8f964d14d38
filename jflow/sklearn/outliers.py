"""Outliers, by how unlikely rows are."""

import warnings
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted

from jflow.data.anomalies import p_values
from jflow.sklearn.base import FlowEstimator, columns_of, keep

# The least score; rows that a fit needs.
_STRANGEST, _FEWEST = -1e30, 6


class FlowOutlierDetector(OutlierMixin, FlowEstimator):
    """Rows that are unlikely: -1 for outliers, 1 for others.

    With `contamination="auto"`, X are usual rows. A part of them is held out, and a row is an
    outlier if its conformal p-value is at most `alpha`: of usual rows, a share of at most `alpha`
    is. (A warning says where too few are held out for that.) Otherwise `contamination` is the share
    of outliers in X, and so many of its rows are found. The threshold of `score_samples` is
    `offset_`.

    Args:
      contamination: "auto", or a share in (0, 0.5].
      alpha: the share of usual rows that may be called outliers, if it is "auto".
      calibration: the share of rows that are held out for it, then.
    """

    contamination: Any
    alpha: float
    calibration: float

    def __init__(
        self, *, contamination: Any = "auto", alpha=0.05, calibration=0.2,
        layers=5, hidden=(128, 128), dropout="auto", steps=2000, batch_size=256, learning_rate=2e-3,
        patience=10, validation=0.1, members=1, random_state=None, verbose=0,
    ):  # fmt: skip
        keep(self, locals())

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits the flows to X, (n, d), and finds the threshold."""
        X = self._checked(X)
        if len(X) < _FEWEST:
            raise ValueError(
                f"FlowOutlierDetector needs {_FEWEST} rows or more; got n_samples = {len(X)}"
            )
        auto, share = self.contamination == "auto", self.contamination
        if not auto and not (_is_share(share) and share <= 0.5):
            raise ValueError(
                f"contamination must be 'auto' or a share in (0, 0.5]; got {self.contamination!r}"
            )
        if not (_is_share(self.alpha) and _is_share(self.calibration)):
            raise ValueError(
                f"alpha and calibration must be shares in (0, 1); got {self.alpha}, "
                f"{self.calibration}"
            )
        if not auto:
            self._fit_rows(columns_of(X), self._seed())
            scores = np.sort(self._scores(X))
            count = int(len(X) * share + 1e-9)
            self.calibration_ = None
            self.offset_ = _between(scores, count)
            return self
        seed, count = self._seed(), max(1, round(self.calibration * len(X)))
        order = np.random.default_rng(seed).permutation(len(X))
        held, rest = order[:count], np.sort(order[count:])
        self._fit_rows(columns_of(X[rest]), seed)
        self.calibration_ = np.sort(self._scores(X[held]))
        self.offset_ = _conformal(self.calibration_, self.alpha)
        return self

    def _scores(self, X: np.ndarray) -> np.ndarray:
        # Rows outside, with another number in a column that had one, are finitely strange.
        return np.maximum(self._log_prob(self.schema_.encode(columns_of(X))), _STRANGEST)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row, nats, (n,): the lower, the stranger."""
        check_is_fitted(self)
        return self._scores(self._checked(X, reset=False))

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less the threshold, (n,): below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers, 1 for others, (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_value(self, X: Any, *, tails: int = 1) -> np.ndarray:
        """Conformal p-values, (n,): of usual rows, a share of at most alpha has p <= alpha.

        Args:
          X: (n, d).
          tails: 1 for rows that are too unlikely, 2 for those too that are too likely.

        Raises:
          ValueError: there are no held-out rows, since `contamination` is not "auto".
        """
        scores = self.score_samples(X)
        if self.calibration_ is None:
            raise ValueError("p_value needs rows that were held out: give contamination='auto'")
        return p_values(self.calibration_, scores, tails)


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and 0 < float(value) < 1


def _between(scores: np.ndarray, count: int) -> float:
    """A threshold that `count` of the sorted scores are below."""
    if not count:
        return float(scores[0])
    if count == len(scores) or not np.isfinite(scores[count - 1]):
        return float(np.nextafter(scores[count - 1], np.inf))
    return float((scores[count - 1] + scores[count]) / 2)


def _conformal(calibration: np.ndarray, alpha: float) -> float:
    """The threshold below which p <= alpha: less than it are the scores of which that is true."""
    below = int(np.floor(alpha * (len(calibration) + 1) + 1e-9)) - 1
    if below < 0:
        warnings.warn(
            f"{len(calibration)} rows were held out, and p-values of {alpha} need "
            f"{int(np.ceil(1 / alpha)) - 1}: rows are outliers whose p-value is "
            f"1 / {len(calibration) + 1}. Give more rows, or a larger calibration or alpha",
            stacklevel=3,
        )
    return float(calibration[max(below, 0)])


class PyODDetector(BaseEstimator):
    """A detector as PyOD has them: high scores are strange, and outliers are 1, others 0.

    Args:
      detector: of scikit-learn's conventions; None for `FlowOutlierDetector(contamination=0.1)`.
    """

    def __init__(self, detector: Any = None):
        self.detector = detector

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits the detector; `decision_scores_`, `labels_` and `threshold_` are those of X."""
        usual: Any = FlowOutlierDetector(contamination=0.1)
        detector: Any = clone(usual if self.detector is None else self.detector)
        self.detector_ = detector.fit(X)
        self.decision_scores_ = self.decision_function(X)
        self.threshold_ = -float(self.detector_.offset_)
        self.labels_ = self.predict(X)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """How strange rows are, (n,): above `threshold_` for outliers."""
        check_is_fitted(self, "detector_")
        return -self.detector_.score_samples(X)

    def predict(self, X: Any) -> np.ndarray:
        """1 for outliers, 0 for others, (n,)."""
        return (self.decision_function(X) > self.threshold_).astype(int)
