"""Estimators: scikit-learn's own checks, laws, weights, search, errors."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from jflow.sklearn import (
    FlowClassifier,
    FlowDensity,
    FlowImputer,
    FlowOutlierDetector,
    FlowRegressor,
    PyODDetector,
)
from jflow.sklearn.base import counted

SMALL = {"layers": 1, "hidden": (32,), "random_state": 0}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2)) @ [[1.0, 0.8], [0.0, 0.5]] + [100.0, -3.0]
LAW = stats.multivariate_normal([100, -3], np.array([[1.0, 0.8], [0.8, 0.89]]))


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="module")
def density():
    return FlowDensity(**SMALL, steps=400).fit(X)


@pytest.fixture(scope="module")
def regressor():
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, size=(1200, 2))
    y = 10 + 5 * x[:, 0] + (0.5 + np.abs(x[:, 1])) * rng.normal(size=1200)
    options = SMALL | {"hidden": (32, 32)}
    return FlowRegressor(**options, dropout=0.05, members=3, steps=500).fit(x, y)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        FlowClassifier(**SMALL, steps=100),
        FlowDensity(**SMALL, steps=100),
        FlowImputer(**SMALL, steps=100),
        FlowOutlierDetector(**SMALL, steps=100),
        FlowRegressor(**SMALL, steps=100, members=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_checks_of_scikit_learn(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_skip=None)
    assert {check["check_name"] for check in found if check["status"] != "passed"} <= {
        "check_array_api_input"
    }
    assert len(found) > 40


def test_densities(density):
    new = RNG.normal(size=(500, 2)) @ [[1.0, 0.8], [0.0, 0.5]] + [100.0, -3.0]
    assert abs(density.score(new) - LAW.logpdf(new).mean()) < 0.1
    drawn = density.sample(2000, random_state=1)
    np.testing.assert_allclose(np.cov(drawn.T), [[1.0, 0.8], [0.8, 0.89]], atol=0.2)
    assert (density.sample(5, random_state=1) == density.sample(5, random_state=1)).all()
    assert density.sample(3).shape == (3, 2)
    assert density.sample(0).shape == (0, 2)
    for count in (-1, 2.5):
        with pytest.raises(ValueError, match=rf"n_samples must be .* got {count}"):
            density.sample(count)


def test_a_row_has_the_same_score_whatever_is_with_it(density):
    whole = density.score_samples(X[:70])
    alone = np.concatenate([density.score_samples(row[None]) for row in X[:70]])
    np.testing.assert_allclose(whole, alone, rtol=0, atol=1e-7)
    np.testing.assert_allclose(density.score_samples(X[69::-1])[::-1], whole, rtol=0, atol=1e-9)


def test_members_are_mixed():
    model = FlowDensity(**SMALL, steps=60, members=3, validation=0.25).fit(X)
    held = np.concatenate(model.held_out_)
    assert len(np.unique(held)) == len(held) == 300
    each = [member.log_prob(dict(zip(("x0", "x1"), X.T, strict=True))) for member in model.members_]
    wanted = np.logaddexp.reduce(each, axis=0) - np.log(3)
    np.testing.assert_allclose(model.score_samples(X), wanted, atol=1e-4)


def test_weights_are_copies():
    weights = RNG.integers(0, 4, size=60)
    one = FlowDensity(**SMALL, steps=60).fit(X[:60], sample_weight=weights)
    shuffled = RNG.permutation(weights.sum())
    other = FlowDensity(**SMALL, steps=60).fit(np.repeat(X[:60], weights, axis=0)[shuffled])
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    some = np.array([[2.0, 1], [0, 5], [2, 0]])
    rows, found = counted(some, [2, 1, 0])
    np.testing.assert_array_equal(rows, [[0, 5], [2, 1], [2, 1]])
    assert found is None
    rows, found = counted(some, [0.5, 1, 2])
    np.testing.assert_array_equal(rows, [[0, 5], [2, 0], [2, 1]])
    np.testing.assert_array_equal(found, [1, 2, 0.5])


def test_weights_that_are_not_whole():
    x = np.concatenate([RNG.normal(size=300), RNG.normal(9, 1, size=300)])[:, None]
    weights = np.where(x[:, 0] > 4, 1.5, 0.5)
    drawn = FlowDensity(**SMALL, steps=300).fit(x, sample_weight=weights).sample(4000)
    assert abs((drawn > 4).mean() - 0.75) < 0.05


def test_equal_rows_are_both_fitted_on_and_held_out():
    x = RNG.integers(0, 2, size=(2000, 3)).astype(float)
    model = FlowDensity(**SMALL, steps=400).fit(x)
    cells = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3)
    np.testing.assert_allclose(np.exp(model.score_samples(cells)), 1 / 8, atol=0.035)
    rounded = FlowDensity(**SMALL, steps=2).fit(np.round(RNG.normal(size=(900, 1)), 1))
    assert rounded.schema_.columns[0].step == pytest.approx(0.1)


def test_laws(regressor):
    x = np.array([[1.0, 2.0], [-1.0, 0.2]])
    mean, std = regressor.predict(x, return_std=True)
    np.testing.assert_allclose(mean, [15, 5], atol=0.6)
    assert abs(std[0] - 2.5) < 0.5
    assert std[0] > 1.2 * std[1]
    levels = (0.1, 0.5, 0.9)
    quantiles = regressor.predict_quantiles(x, levels)
    drawn = regressor.sample_y(x, 200_000, random_state=0)
    assert drawn.shape == (2, 200_000)
    for row in range(2):
        np.testing.assert_allclose(
            (drawn[row] < quantiles[row][:, None]).mean(1), levels, atol=0.02
        )
        grid = np.linspace(*drawn[row][[drawn[row].argmin(), drawn[row].argmax()]], 2000)
        p = np.exp(regressor.log_prob(np.tile(x[row], (2000, 1)), grid))
        below = np.cumsum(p) * (grid[1] - grid[0])
        np.testing.assert_allclose(np.interp(quantiles[row], grid, below), levels, atol=0.02)
        assert abs(np.sum(p * grid) * (grid[1] - grid[0]) - mean[row]) < 0.1
        wanted = (
            np.abs(drawn[row] - 5).mean()
            - np.abs(np.subtract(*drawn[row].reshape(2, -1))).mean() / 2
        )
        assert abs(regressor.crps(x[row][None], [5.0])[0] - wanted) < 0.03


def test_intervals_hold_what_they_say(regressor):
    x = RNG.uniform(-2, 2, size=(1000, 2))
    y = 10 + 5 * x[:, 0] + (0.5 + np.abs(x[:, 1])) * RNG.normal(size=1000)
    low, high = regressor.predict_interval(x, 0.9).T
    assert 0.86 < ((low <= y) & (y <= high)).mean() < 0.94


def test_a_regression_on_counts_and_odd_columns():
    x = np.column_stack([RNG.exponential(size=200), np.ones(200), RNG.integers(0, 3, 200)])
    y = RNG.poisson(2 + 3 * x[:, 2])
    model = FlowRegressor(**SMALL, members=1, steps=100).fit(x, y)
    quantiles = model.predict_quantiles(x[:5])
    np.testing.assert_array_equal(quantiles, np.round(quantiles))
    # Quantiles of a y on a grid are y that there were, whatever rounding makes of them.
    odd = (y * 0.1 + 1 / 3).astype(np.float32)
    low, high = FlowRegressor(**SMALL, members=1, steps=100).fit(x, odd).predict_interval(x).T
    assert np.isin(low[low > odd.min() - 0.01], odd.astype(float)).mean() > 0.9
    assert 0.86 < ((low <= odd) & (odd <= high)).mean()
    # Numbers that no row had are no error.
    assert np.isfinite(model.predict([[-1.0, 7.0, 1.5]])).all()
    assert np.isfinite(model.log_prob([[-1.0, 7.0, 1.5]], [40.0])).all()
    alone = FlowRegressor(**SMALL, members=1, steps=30).fit(np.ones((50, 1)), RNG.normal(size=50))
    assert np.isfinite(alone.predict([[1.0], [2.0]])).all()


def test_classes():
    y = np.asarray(["far", "near", "none"])[RNG.integers(0, 3, 300)]
    x = np.where(y == "far", 4.0, np.where(y == "near", 1.5, 0.0))[:, None] + RNG.normal(
        size=(300, 2)
    )
    model = FlowClassifier(**SMALL, steps=300).fit(x[:200], y[:200])
    assert model.classes_.tolist() == ["far", "near", "none"]
    p = model.predict_proba(x[200:])
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-9)
    assert (model.predict(x[200:]) == y[200:]).mean() > 0.75
    sure = p.max(1).mean()
    assert abs(sure - (model.predict(x[200:]) == y[200:]).mean()) < 0.12
    ordered = y[:200][np.lexsort(x[:200].T[::-1])]
    assert set(ordered[model.held_out_[0]]) == {"far", "near", "none"}
    far = model.predict_proba([[1e9, -1e9]])
    assert np.isfinite(far).all()


def test_temperatures_mend_densities_that_are_too_sure():
    model = FlowClassifier()
    model.prior_, model.classes_ = np.array([0.5, 0.5]), np.array([0, 1])
    model.members_, model.held_out_ = [None], [np.arange(4000)]
    logits = RNG.normal(size=4000) * 2
    place = (RNG.uniform(size=4000) < 1 / (1 + np.exp(-logits))).astype(int)
    model._of_classes = lambda X, members: 5.0 * np.column_stack([np.zeros(4000), logits])
    assert 4 < model._temperature(np.zeros((4000, 1)), place, None) < 6


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_outliers_of_usual_rows(alpha):
    model = FlowOutlierDetector(**SMALL, steps=200, alpha=alpha, calibration=0.5).fit(X)
    new = RNG.normal(size=(2000, 2)) @ [[1.0, 0.8], [0.0, 0.5]] + [100.0, -3.0]
    assert abs((model.predict(new) == -1).mean() - alpha) < 0.05
    np.testing.assert_array_equal(model.predict(new) == -1, model.p_value(new) <= alpha)
    assert model.predict([[100.0, 50.0]]) == [-1]
    assert model.p_value([[100.0, 50.0]]) == [1 / 201]


def test_a_share_of_outliers():
    model = FlowOutlierDetector(**SMALL, steps=100, contamination=np.float32(0.1)).fit(X)
    assert (model.predict(X) == -1).sum() == 40
    with pytest.raises(ValueError, match="contamination='auto'"):
        model.p_value(X)
    adapter = PyODDetector(model).fit(X)
    assert adapter.labels_.sum() == 40
    np.testing.assert_array_equal(adapter.decision_scores_, -model.score_samples(X))
    np.testing.assert_array_equal(
        adapter.labels_ == 1, adapter.decision_scores_ > adapter.threshold_
    )
    assert adapter.predict([[100.0, 50.0]]) == [1]


def test_outliers_in_constant_columns_and_beyond_float32():
    x = np.column_stack([X, np.full(400, 5.0)])
    model = FlowOutlierDetector(**SMALL, steps=20).fit(x)
    new = x[:2].copy()
    new[1, 2] = 5.5
    assert model.predict(new)[1] == -1
    assert np.isfinite(model.decision_function(new)).all()
    far = np.concatenate([X, [[1e39, 0.0], [1e300, 0.0]]])
    model = FlowOutlierDetector(**SMALL, steps=100, contamination=0.01).fit(far)
    assert set(np.flatnonzero(model.predict(far) == -1)) >= {400, 401}


def test_few_rows_give_no_small_p_values():
    with pytest.warns(UserWarning, match="p-values of 0.05 need 19"):
        FlowOutlierDetector(**SMALL, steps=10).fit(X[:40])


def test_missing_cells():
    x = np.column_stack([X, np.full(400, 7.0)])
    holed = x.copy()
    holed[RNG.uniform(size=holed.shape) < 0.15] = np.nan
    model = FlowImputer(**SMALL, steps=600).fit(holed)
    whole = model.transform(holed)
    assert not np.isnan(whole).any()
    there = ~np.isnan(holed)
    np.testing.assert_array_equal(whole[there], holed[there])
    assert (whole[:, 2] == 7).all()
    lost = np.isnan(holed[:, 1]) & ~np.isnan(holed[:, 0])
    error = whole[lost, 1] - x[lost, 1]
    assert np.sqrt(np.mean(error**2)) < 0.75 * np.std(x[:, 1])  # 0.5 is the least; the mean, 0.94
    drawn = clone(model).set_params(sample_posterior=True).fit(holed).transform(holed)
    assert np.std(drawn[lost, 1] - x[lost, 1]) > 1.1 * np.std(error)
    # A second call draws anew; numbers that float32 cannot hold leave no cell empty.
    several = clone(model).set_params(sample_posterior=True, steps=20).fit(holed)
    assert (several.transform(holed) != several.transform(holed)).any()
    assert not np.isnan(model.transform([[np.nan, 1e300, 7.0], [1e39, np.nan, 7.0]])).any()
    thirds = np.column_stack([X[:, 0], np.where(X[:, 1] > -3, 0.1 + 0.2, 0.3)])
    thirds[::7, 1] = np.nan
    filled = FlowImputer(**SMALL, steps=2).fit_transform(thirds)
    np.testing.assert_allclose(filled[:, 1], 0.3)
    with pytest.raises(ValueError, match="columns without a cell"):
        FlowImputer().fit([[1.0, np.nan], [2.0, np.nan]])


def test_searches_compile_once():
    from jflow.train.steps import advance

    pipeline = make_pipeline(StandardScaler(), FlowDensity(**SMALL, steps=20))
    grid = {"flowdensity__learning_rate": [1e-3, 4e-3]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X)
    assert set(search.best_params_) == set(grid)
    programs = advance._cache_size()
    cross_val_score(search.best_estimator_, X + 1, cv=3)
    assert advance._cache_size() == programs


@pytest.mark.slow
def test_processes():
    scores = [
        cross_val_score(FlowDensity(**SMALL, steps=20), X, cv=2, n_jobs=jobs) for jobs in (1, 2)
    ]
    # Other processes have not the 64 bits of these tests, so that roundings differ.
    np.testing.assert_allclose(*scores, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "arguments", "wanted"),
    [
        (FlowDensity(), (X[:3],), "4 rows or more"),
        (FlowDensity(), (np.ones((9, 2)),), "X must have a column that varies"),
        (FlowDensity(validation=1.5), (X,), "validation must be a share"),
        (FlowDensity(members=0), (X,), "members"),
        (FlowDensity(layers=0), (X,), "layers"),
        (FlowDensity(hidden=64), (X,), "hidden must be widths"),
        (FlowOutlierDetector(), (X[:5],), "6 rows or more"),
        (FlowRegressor(), (X, np.ones(400)), "y must vary"),
        (FlowRegressor(), (X, X), "1d array"),
        (FlowClassifier(), (X, np.ones(400)), "2 classes or more"),
        (FlowOutlierDetector(contamination=0.7), (X,), "contamination must be 'auto' or a share"),
        (FlowOutlierDetector(alpha=2), (X,), "alpha and calibration"),
    ],
)
def test_errors(model, arguments, wanted):
    with pytest.raises(ValueError, match=wanted):
        model.fit(*arguments)


def test_quantiles_that_are_none(regressor):
    with pytest.raises(ValueError, match=r"quantiles must be in \(0, 1\)"):
        regressor.predict_quantiles([[0.0, 0.0]], [0.5, 1.0])
    with pytest.raises(ValueError, match="coverage must be in"):
        regressor.predict_interval([[0.0, 0.0]], 90)


def test_without_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None; import jflow.sklearn"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'jflow[sklearn]'" in found.stderr


def test_parts_that_are_held_out_have_all_classes():
    from jflow.sklearn.classifier import _by_class

    place = np.repeat([0, 1, 2], [50, 50, 1])
    order = _by_class(place, 0)
    assert 100 not in order  # the only row of its class
    assert all((place[part] == 0).sum() == 5 for part in order.reshape(10, 10))
