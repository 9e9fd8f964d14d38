"""Classification by the densities of classes."""

from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from jflow.sklearn.base import FlowEstimator, columns_of, counted, log_prob, mixed

# Where the temperature of the densities is looked for: its logarithm.
_COLDEST, _HOTTEST = -1.0, 5.0
# Of fewer rows it is not looked for.
_FEW = 10


class FlowClassifier(ClassifierMixin, FlowEstimator):
    """Classes c of rows x, by Bayes' rule with densities p(x | c), which one flow has for all.

        p(c | x) = pi_c p(x | c)^(1 / T) / sum_c' pi_c' p(x | c')^(1 / T)

    pi are the shares of classes, and T, `temperature_`, is what rows that were held out are told
    best with: densities of many columns are too sure of themselves (Guo et al., 2017,
    https://arxiv.org/abs/1706.04599).
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fits the flow to X, (n, d), given y, (n,); a weight k is the same as k copies."""
        X, y = self._checked(X, y)
        check_classification_targets(y)
        self.classes_, place = np.unique(y, return_inverse=True)
        rows, weights = counted(np.column_stack([X, place]), sample_weight)
        place = rows[:, -1].astype(int)
        counts = np.bincount(place, weights, len(self.classes_))
        self.prior_ = counts / counts.sum()
        if np.count_nonzero(self.prior_) < 2:
            raise ValueError("FlowClassifier needs rows of 2 classes or more; got 1 class")
        columns = columns_of(rows[:, :-1]) | {"class": place.astype(str)}
        seed, declared = self._seed(), {"class": "category"}
        self._fit_rows(columns, seed, ("class",), weights, declared, _by_class(place, seed))
        self.temperature_ = self._temperature(rows[:, :-1], place, weights)
        return self

    def _temperature(self, X: np.ndarray, place: np.ndarray, weights: np.ndarray | None) -> float:
        """The T by which the members tell the classes of the rows that they were chosen by best."""
        told, classes, each = [], [], []
        for member, held in zip(self.members_, self.held_out_, strict=True):
            told.append(self._of_classes(X[held], [member]))
            classes.append(place[held])
            each.append(np.ones(len(held)) if weights is None else weights[held])
        log_p, known, each = (np.concatenate(some) for some in (told, classes, each))
        usual = np.isfinite(log_p).any(axis=1)
        log_p, known, each = log_p[usual], known[usual], each[usual]
        if len(known) < _FEW:
            return 1.0

        def loss(log_temperature: float) -> float:
            scores = self._posterior(log_p, np.exp(log_temperature))
            return float(-np.average(np.maximum(scores[np.arange(len(known)), known], -1e3),
                                     weights=each))  # fmt: skip

        found = minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded")
        return float(np.exp(found.x))

    def _of_classes(self, X: np.ndarray, members: list[Any]) -> np.ndarray:
        """log p(x | c), (n, c); -inf for classes that have no row."""
        found = np.full((len(X), len(self.classes_)), -np.inf)
        for place in np.flatnonzero(self.prior_):
            rows = self._rows(X, **{"class": np.full(len(X), str(place))})
            found[:, place] = mixed([log_prob(member, rows) for member in members])
        return found

    def _posterior(self, log_p: np.ndarray, temperature: float) -> np.ndarray:
        """log p(c | x), (n, c): the shares of classes where no density knows a row."""
        known = np.isfinite(log_p).any(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            scores = np.where(known, log_p / temperature, 0) + np.log(self.prior_)
        return scores - logsumexp(scores, axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log p(c | x), (n, c), in the order of `classes_`."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        return self._posterior(self._of_classes(X, self.members_), self.temperature_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(c | x), (n, c), in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (n,)."""
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]


def _by_class(place: np.ndarray, seed: int) -> np.ndarray:
    """Rows in an order of which each part has all classes; without the only rows of a class."""
    order = np.random.default_rng(seed).permutation(len(place))
    share = np.empty(len(place))
    for c in np.unique(place):
        some = order[place[order] == c]
        share[some] = (np.arange(len(some)) + 0.5) / len(some) if len(some) > 1 else np.inf
    order = order[np.argsort(share[order], kind="stable")]
    return order[np.isfinite(share[order])]
