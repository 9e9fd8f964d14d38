"""What the estimators share: rows of numbers, and members that are fitted to them."""

import inspect
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

import jflow
from jflow.data import Table, TableDensity
from jflow.data.columns import vary
from jflow.data.find import read_all
from jflow.data.find_schema import find_schema
from jflow.data.schema import Rows
from jflow.functional.arguments import as_weights, check_counts

# Densities that one call computes: of these rows, and draws of noise for each, always so many, so
# that a row has the same score whatever is scored with it.
_AT_ONCE, _DRAWS = 1024, 16
# Steps from one validation to the next; rows that a fit needs.
_EVERY, _FEWEST = 50, 4
# Rows that weights may make.
_COPIES = 4_000_000


class FlowEstimator(BaseEstimator):
    """Flows fitted to rows of numbers, X (n, d).

    Args:
      layers: of the flow, `jflow.flows.nsf(autoregressive=True)`.
      hidden: widths of its networks.
      dropout: in them, in training; "auto" as `jflow.flows.tabular` has it: 0.1 for few rows.
      steps: of training, at most.
      batch_size: rows that each step looks at.
      learning_rate: of Adam, at its largest; it falls to 0 at the last of the steps.
      patience: training stops after so many validations, one each 50 steps, without a better one.
      validation: the share of rows by which a member is chosen.
      members: how many flows, each chosen by other rows; the density is the mean of theirs.
      random_state: a whole number, a RandomState, or None for another fit each time.
      verbose: 0 for silence, 1 for a line for each validation, 2 for a bar.
    """

    n_features_in_: int
    layers: int
    hidden: Any
    dropout: Any
    steps: int
    batch_size: int
    learning_rate: float
    patience: int
    validation: float
    members: int
    random_state: Any
    verbose: int

    def __init_subclass__(cls) -> None:
        """Docstrings have the arguments that all estimators share."""
        super().__init_subclass__()
        shared = inspect.cleandoc(FlowEstimator.__doc__ or "").split("\n\n", 1)[1]
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\n{shared}"

    def __init__(
        self, *, layers=5, hidden=(128, 128), dropout="auto", steps=2000, batch_size=256,
        learning_rate=2e-3, patience=10, validation=0.1, members=1, random_state=None, verbose=0,
    ):  # fmt: skip
        keep(self, locals())

    def _checked(self, *arrays: Any, reset: bool = True, **options: Any) -> Any:
        """X, or X and y, as scikit-learn checks them."""
        least = 2 if reset else 1
        return validate_data(
            self, *arrays, dtype=np.float64, reset=reset, ensure_min_samples=least, **options
        )

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _fit_rows(
        self, columns: dict[str, np.ndarray], seed: int, given: tuple[str, ...] = (),
        weights: np.ndarray | None = None, declared: dict[str, str] | None = None,
        held_out: np.ndarray | None = None, conditionals: bool = False,
    ) -> None:  # fmt: skip
        """Fits the members.

        Args:
          columns: of numbers, by name.
          seed: of the split, the parameters and the noise.
          given: columns that the density is conditional on.
          weights: of the rows.
          declared: kinds of columns.
          held_out: rows that may be held out, in the order in which they are; None for any.
          conditionals: whether any columns may be given any others.
        """
        if not any(np.ptp(c[np.isfinite(c)]) for n, c in columns.items() if n not in given):
            raise ValueError("X must have a column that varies")
        cells = read_all(columns, declared or {})
        count = len(next(iter(columns.values())))
        if count < _FEWEST:
            raise ValueError(
                f"{type(self).__name__} needs {_FEWEST} rows or more to fit on and to validate; "
                f"got n_samples = {count}"
            )
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be a share in (0, 1); got {self.validation}")
        if not isinstance(self.hidden, tuple | list):
            raise ValueError(f"hidden must be widths, such as (128, 128); got {self.hidden!r}")
        check_counts(
            type(self).__name__, members=self.members, layers=self.layers, steps=self.steps,
            batch_size=self.batch_size, patience=self.patience,
        )  # fmt: skip
        whole = np.arange(count)
        self.schema_, _ = find_schema(
            cells, whole, declared or {}, given, conditionals, anywhere=True
        )
        rows = self.schema_.encode(columns)
        order = np.random.default_rng(seed).permutation(count) if held_out is None else held_out
        held = min(max(1, round(self.validation * count)), count - 2, len(order))
        self.members_, self.histories_, self.held_out_ = [], [], []
        for member in range(self.members):
            places = order[(member * held + np.arange(held)) % len(order)]
            rest = np.setdiff1d(whole, places)
            density, history = self._fit_member(rows, weights, (rest, places), seed + member)
            self.members_.append(density)
            self.histories_.append(history)
            self.held_out_.append(np.sort(places))

    def _fit_member(
        self, rows: Rows, weights: np.ndarray | None, parts: tuple[np.ndarray, np.ndarray],
        seed: int,
    ) -> tuple[Any, Any]:  # fmt: skip
        none = np.arange(0)
        own = None if weights is None else tuple(weights[part] for part in (*parts, none))
        split = (rows.take(parts[0]), rows.take(parts[1]), rows.take(none))
        table = Table(self.schema_, split, (), (), "dequantize", seed, own)
        dropout = {} if self.dropout == "auto" else {"dropout": float(self.dropout)}
        flow = jflow.flows.tabular(table, layers=self.layers, hidden=tuple(self.hidden), **dropout)
        density, history = jflow.fit(
            flow, table, key=seed % 2**31, steps=self.steps, batch_size=self.batch_size,
            learning_rate=float(self.learning_rate), patience=self.patience,
            evaluate_every=min(_EVERY, self.steps),
            progress=(False, "log", "bar")[min(int(self.verbose), 2)],
        )  # fmt: skip
        return density, history

    def _rows(self, X: np.ndarray, **more: np.ndarray) -> Rows:
        """Rows as the members see them; columns that had one value do not matter."""
        schema = self.schema_
        columns = columns_of(X) | more
        return schema.encode({c.name: columns[c.name] for c in (*schema.columns, *schema.given)})

    def _log_prob(self, rows: Rows) -> np.ndarray:
        """log of the mean of the members' densities, (n,), float64."""
        return mixed([log_prob(member, rows) for member in self.members_])


def keep(estimator: FlowEstimator, arguments: dict[str, Any]) -> None:
    """Sets the arguments of an estimator's `__init__`, its locals, as scikit-learn has them."""
    vars(estimator).update({n: value for n, value in arguments.items() if n != "self"})


def mixed(each: list[np.ndarray]) -> np.ndarray:
    """log of the mean of densities."""
    return np.logaddexp.reduce(np.stack(each), axis=0) - np.log(len(each))


def log_prob(density: TableDensity, rows: Rows) -> np.ndarray:
    """log p of rows, (n,), each as it is when it is alone."""
    draws = _DRAWS if density.schema.is_bound else 1
    count = len(rows.values)
    return density.log_prob_of(filled(rows, _AT_ONCE // draws), None, draws, 0, _AT_ONCE)[:count]


def filled(rows: Rows, size: int) -> Rows:
    """With the last row again, up to a multiple of `size`."""
    count = len(rows.values)
    return rows.take(np.minimum(np.arange(-(-count // size) * size), count - 1))


def columns_of(X: np.ndarray) -> dict[str, np.ndarray]:
    """Columns and their names."""
    return {f"x{d}": X[:, d] for d in range(X.shape[1])}


def varying(X: np.ndarray) -> np.ndarray:
    """Which columns are not constant, up to rounding; (d,)."""
    return np.asarray([vary(column[~np.isnan(column)]) for column in X.T])


def counted(rows: np.ndarray, weights: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows in an order of their own, each as often as its weight says, where weights are whole.

    So a weight of k is the same as k copies, and one of zero as no row. Of weights that are not
    whole, or of more than some million rows in all, the rows that have one, and the weights.

    Raises:
      ValueError: weights of a wrong shape, negative ones, or all of them zero.
    """
    if weights is None:
        return rows[np.lexsort(rows.T[::-1])], None
    each = as_weights("sample_weight", weights, len(rows))
    rows, each = rows[each > 0], each[each > 0]
    order = np.lexsort([each, *rows.T[::-1]])
    rows, each = rows[order], each[order]
    if (each == np.round(each)).all() and each.sum() <= max(_COPIES, len(rows)):
        return np.repeat(rows, each.astype(int), axis=0), None
    return rows, each
