"""Pairs of latents and points: reflow, students of one pass, semidiscrete optimal transport."""

import warnings
from functools import partial

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest, norm

import jflow
from jflow import flows, train
from jflow.functional import FixedGrid
from tests.test_matching import FLOW, drawn

SHIFTED = (3 + 2 * drawn(0, 400, 2)).astype(np.float32)
QUIET = {"key": 0, "progress": False, "batch_size": 64}


@pytest.fixture(scope="module")
def teacher():
    return jflow.Density(flow := flows.nsf(2, layers=2, hidden=(8,)), jflow.init(flow, 0, SHIFTED))


def test_pairs_are_of_the_teacher(teacher):
    pairs = train.draw_pairs(teacher, 0, 50, batch_size=20)
    assert len(pairs) == 50
    assert pairs.context is None
    np.testing.assert_allclose(teacher.from_latents(pairs.latents), pairs.y, rtol=1e-5)
    np.testing.assert_allclose(teacher.log_prob(pairs.y), pairs.log_prob, atol=1e-4)
    assert len(np.unique(pairs.latents[:, 0])) == 50
    estimated = flows.residual_flow(5, layers=2, hidden=(8,), exact_up_to=3)
    random = jflow.Density(estimated, jflow.init(estimated, 0, drawn(0, 40, 5)))
    assert train.draw_pairs(random, 0, 3).log_prob is None
    conditional = flows.maf(2, layers=1, hidden=(8,), context_shape=3)
    given = drawn(1, 30, 3)
    density = jflow.Density(conditional, jflow.init(conditional, 0, drawn(0, 30, 2), given))
    pairs = train.draw_pairs(density, 0, 30, given, batch_size=16)
    np.testing.assert_allclose(pairs.context, given)
    np.testing.assert_allclose(density.log_prob(pairs.y, given), pairs.log_prob, atol=1e-8)
    pairs = train.draw_pairs(density, 0, 3, given[0])
    np.testing.assert_allclose(density.log_prob(pairs.y, given[0]), pairs.log_prob, atol=1e-8)
    assert pairs.context.shape == (3, 3)


def test_a_student_becomes_its_teacher(teacher):
    pairs, new = train.draw_pairs(teacher, 0, 2_000), train.draw_pairs(teacher, 1, 500)
    fit = partial(jflow.fit, teacher.flow, pairs, steps=200, learning_rate=1e-2, **QUIET)
    student, history = fit()
    assert "validation_distillation" in history.best
    assert np.abs(np.asarray(student.log_prob(new.y)) - new.log_prob).mean() < 0.05
    both = partial(train.Distillation, density_weight=0, map_weight=100)
    student, _ = fit(objective=both)
    assert np.abs(student.latents(new.y) - new.latents).mean() < 0.1
    # Likelihood is an objective of pairs, too, and takes their points.
    assert "train_nll" in fit(objective="likelihood", validation=new)[1].best


def test_reflow_makes_paths_straight():
    y = np.concatenate([drawn(0, 300, 2) - 4, drawn(1, 300, 2) + 4]).astype(np.float32)
    flow = flows.flow_matching(2, (32, 32))
    usual = {**QUIET, "steps": 400, "learning_rate": 1e-2}
    teacher, _ = jflow.fit(flow, y, **usual)
    pairs = train.draw_pairs(teacher.with_solver(FixedGrid(8)), 0, 2_000)
    straight, history = jflow.fit(flow, pairs, variables=teacher.variables, **usual)
    assert "train_matching" in history.best
    new = train.draw_pairs(teacher, 5, 400)

    def error(density):
        once = density.with_solver(FixedGrid(1, "euler")).from_latents(new.latents)
        return np.mean(np.square(once - new.y))

    assert error(straight) < 0.3 * error(teacher)


def test_semidiscrete_plans_are_optimal():
    y = drawn(3, 40, 2).astype(np.float32)
    pairs = train.semidiscrete_pairs(FLOW, y, 0, 20_000, regularization=1e-3, steps=3_000)
    scaled = (pairs.y - y.mean(0)) / y.std(0)
    mean = np.mean(np.square(scaled - pairs.latents))
    # The exact plan of as many draws, in pieces, is that of semidiscrete transport in the limit.
    z, ends = pairs.latents[:4_000], np.tile((y - y.mean(0)) / y.std(0), (100, 1))
    costs = np.square(z[:, None] - ends[None]).mean(-1)
    exact = costs[linear_sum_assignment(costs)].mean()
    assert mean == pytest.approx(exact, rel=0.03)
    shares = np.unique(pairs.y[:, 0], return_counts=True)[1] / len(pairs)
    np.testing.assert_allclose(shares, 1 / 40, rtol=0.15)
    assert kstest(pairs.latents.ravel(), norm.cdf).pvalue > 0.01
    with pytest.warns(UserWarning, match="shares of examples are off"):
        train.semidiscrete_pairs(FLOW, y, 0, 2_000, steps=1)


def test_semidiscrete_plans_of_what_is_drawn_on_the_way():
    levels = np.random.default_rng(0).integers(0, 4, (30, 2))
    for flow, y in (
        (flows.flow_matching(2, (8,), values=4), levels),
        (flows.anode(2, hidden=(8,), extra=1), levels.astype(np.float32)),
    ):
        pairs = train.semidiscrete_pairs(flow, y, 0, 300)
        assert pairs.latents.shape == (300, *flow.latent_shape)
        objective = train.FlowMatching
        history = jflow.fit(flow, pairs, objective=objective, steps=2, **QUIET)[1]
        assert "train_matching" in history.best


def test_weights_with_couplings_are_refused():
    y, w = SHIFTED[:64], np.linspace(0, 1, 64)
    paired = partial(train.FlowMatching, coupling=train.OptimalTransport())
    for data, objective in ((y, paired), (train.Pairs(y, None, y), None)):
        with pytest.raises(ValueError, match="weights are of examples that go with any noise"):
            jflow.fit(FLOW, data, weights=w, objective=objective, **QUIET)
    # With any noise, they are the law's: of two clusters, samples have the shares of weights.
    ends = np.sign(drawn(0, 400, 1)).astype(np.float32)
    density, _ = jflow.fit(
        flows.flow_matching(1, (16,)), 3 * ends + 0.3 * drawn(1, 400, 1).astype(np.float32),
        weights=np.where(ends[:, 0] > 0, 0.9, 0.1), steps=400, learning_rate=1e-2, **QUIET,
    )  # fmt: skip
    fast = density.with_solver(FixedGrid(20))
    share = float((np.asarray(fast.sample(0, 2_000)) > 0).mean())
    wanted = 0.9 * (ends > 0).sum() / (0.9 * (ends > 0).sum() + 0.1 * (ends < 0).sum())
    assert share == pytest.approx(wanted, abs=0.05)


def test_semidiscrete_plans_keep_contexts_apart():
    classes = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    y = (drawn(3, 40, 2) + 5 * classes[:, :1]).astype(np.float32)
    flow = flows.flow_matching(2, (8,), context_shape=2)
    pairs = train.semidiscrete_pairs(flow, y, 0, 4_000, classes)
    assert (pairs.context[:, 0] == (pairs.y[:, :1] > 2.5)[:, 0]).mean() > 0.95
    for one in (0, 1):  # the base does not know the class
        assert np.abs(pairs.latents[pairs.context[:, one] == 1].mean(0)).max() < 0.1
    with warnings.catch_warnings(action="error"):
        density, _ = jflow.fit(flow, pairs, steps=3, **QUIET)
    assert np.isfinite(density.log_prob(y, classes)).all()


def test_pairs_that_do_not_fit_are_refused(teacher):
    flow, y = teacher.flow, SHIFTED[:20]
    for pairs, message in (
        (train.Pairs(y, None, y[:10]), r"data.latents must be \(20, 2\)"),
        (train.Pairs(y, None, y, y), r"data.log_prob must be \(20,\)"),
        (train.Pairs(y, None, y, np.full(20, np.nan)), "data.log_prob must be finite floating"),
        (train.Pairs(y, None, y.astype(int)), "data.latents must be finite floating .* int64"),
        (train.Pairs(y, None, y * np.nan), "data.latents must be finite floating .* not finite"),
        (train.Pairs(y[:, :1], None, y), r"data.y must have shape \(N, \*\(2,\)\)"),
    ):
        with pytest.raises(ValueError, match=message):
            jflow.fit(flow, pairs, **QUIET)
    good = train.Pairs(y, None, y)
    with pytest.raises(ValueError, match="leave out context="):
        jflow.fit(flow, good, context=y, **QUIET)
    with pytest.raises(ValueError, match="leave out augment"):
        jflow.fit(flow, good, augment=lambda key, y: y, **QUIET)
    with pytest.raises(ValueError, match="Distillation is of pairs"):
        jflow.fit(flow, y, objective="distillation", steps=1, **QUIET)
    with pytest.raises(ValueError, match=r"validation must be train\.Pairs, as data are"):
        jflow.fit(flow, good, validation=y, **QUIET)
    with pytest.raises(ValueError, match="validation must have log_prob"):
        jflow.fit(flow, good, validation=train.Pairs(y, None, y, y[:, 0]), **QUIET)
    with pytest.raises(TypeError, match=r"teacher must be a jflow\.Density; got Flow"):
        train.draw_pairs(flow, 0, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="map_weight must be a number at least 0"):
        train.Distillation(flow, map_weight=-1)
    levels = flows.nice(2, layers=2, hidden=(8,), values=4)
    with pytest.raises(ValueError, match="must be of continuous values"):
        train.draw_pairs(jflow.Density(levels, {}), 0, 3)
    conditional = flows.maf(2, layers=1, hidden=(8,), context_shape=3)
    with pytest.raises(ValueError, match=r"context must be \(3,\) or \(3, 3\); got \(2, 3\)"):
        train.draw_pairs(jflow.Density(conditional, {}), 0, 3, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="must end, nearest to the base, in one Continuous"):
        train.semidiscrete_pairs(flow, y, 0, 10)
    with pytest.raises(ValueError, match="regularization must be a number above 0"):
        train.semidiscrete_pairs(FLOW, y, 0, 10, regularization=0)
