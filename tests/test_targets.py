"""Targets with several modes: moves, annealing, weights, and what trains flows for them."""

import dataclasses
import math
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, train
from jflow import transformers as jt
from jflow.distributions.smc import AFAR, FLOW, judged, pulled_back
from jflow.functional import annealing
from jflow.functional.hmc import move
from jflow.functional.pareto import pareto_k
from jflow.train.objectives import MEMORY

KEY = jax.random.key(0)


def normal(y, mean=0.0, scale=1.0):
    return jnp.sum(jax.scipy.stats.norm.logpdf(y, mean, scale), axis=-1)


def mixture(y, apart=2.0):
    """Two normals of weights .3 and .7, times e^3."""
    both = jnp.stack([normal(y, -apart) + math.log(0.3), normal(y, apart) + math.log(0.7)])
    return 3 + jax.nn.logsumexp(both, axis=0)


def bent(y):
    """A normal (0, 4), and another around a quarter of its square."""
    return normal(y[:, :1], 0, 2.0) + normal(y[:, 1:] - y[:, :1] ** 2 / 4)


@pytest.mark.parametrize(("leapfrogs", "step"), [(4, 0.4), (0, 0.8)])
def test_moves_leave_a_density_as_it_is(leapfrogs, step):
    rng = np.random.default_rng(0)
    a = 2 * rng.normal(size=(20_000, 1))
    x = jnp.asarray(np.concatenate([a, rng.normal(size=a.shape) + a**2 / 4], axis=1))

    @jax.jit
    def moved(x):
        def one(x, key):
            return tuple(move(bent, x, key, jnp.asarray(step), jnp.asarray([2.0, 1.5]), leapfrogs))

        return jax.lax.scan(one, x, jax.random.split(KEY, 8))

    y, accepted = moved(x)
    assert 0.3 < float(jnp.mean(accepted)) < 0.97
    assert float(jnp.mean(jnp.all(y == x, axis=1))) < 0.05
    # Mean and variance of both, and the bend: E[a^2 b] = E[a^4] / 4 = 12.
    told = jnp.mean(jnp.stack([y[:, 0], y[:, 0] ** 2, y[:, 1], y[:, 0] ** 2 * y[:, 1]]), axis=1)
    np.testing.assert_allclose(told, [0, 4, 1, 12], rtol=0.06, atol=0.05)


def test_moves_never_leave_the_support():
    inside = lambda x: jnp.where(jnp.all(jnp.abs(x) < 1, axis=-1), 0.0, -jnp.inf)  # noqa: E731
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, size=(4_000, 2)))
    y, accepted = move(inside, x, KEY, jnp.asarray(0.3), jnp.ones(2), 3)
    assert jnp.all(jnp.abs(y) < 1)
    assert 0 < accepted < 1
    np.testing.assert_allclose(jnp.mean(y**2), 1 / 3, atol=0.02)


def test_annealing_finds_normalisers_and_how_sure_they_are():
    """E^2 times a narrow normal far off: log Z is 2, and its errors are as large as is said."""

    @jax.jit
    @jax.vmap
    def run(key):
        x = jax.random.normal(jax.random.fold_in(key, 1), (256, 2))
        path = lambda x: (normal(x), 2 + normal(x, 2.0, 0.5) - normal(x))  # noqa: E731
        found = annealing.anneal(path, x, key)
        by_steps = annealing.anneal_by_steps(path, x, key, jnp.asarray(0.3), temperatures=16)
        return found, by_steps

    runs, (_, log_weights, step) = run(jax.random.split(KEY, 64))
    np.testing.assert_array_equal(runs.reached, 1)
    assert 4 < np.mean(runs.temperatures) < 40
    z = np.asarray((runs.log_normalizer - 2) / runs.error)
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.5
    assert abs(np.mean(runs.log_normalizer) - 2) < 0.05
    weights = np.exp(runs.log_weights)
    np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=1e-6)
    means = np.einsum("rn,rnd->d", weights, runs.points) / len(weights)
    np.testing.assert_allclose(means, 2, atol=0.05)
    # Neal's weights are unbiased without any resampling.
    np.testing.assert_allclose(np.mean(np.exp(log_weights)), math.e**2, rtol=0.1)
    assert np.all((step > 0.05) & (step < 2))


def test_annealing_that_finds_nothing_says_so():
    path = lambda x: (normal(x), jnp.full(len(x), -jnp.inf))  # noqa: E731
    found = jax.jit(partial(annealing.anneal, path))(jnp.zeros((8, 1)), KEY)
    assert found.log_normalizer == -jnp.inf


def test_narrow_targets_take_small_steps_of_temperature():
    """A spread of 1e-4 in 8-D asks for a first beta of about 1e-9."""
    start = lambda x: normal(x, 0, 2.0)  # noqa: E731
    path = lambda x: (start(x), normal(x, 1.0, 1e-4) - start(x))  # noqa: E731
    x = 2 * jax.random.normal(KEY, (500, 8))
    found = jax.jit(partial(annealing.anneal, path))(x, KEY)
    assert found.reached == 1
    assert found.temperatures > 50
    assert abs(found.log_normalizer) < 4 * found.error
    # With no moves to speak of all points descend from one, and nobody knows what was lost.
    found = jax.jit(partial(annealing.anneal, path, moves=1, leapfrogs=0))(x[:20], KEY)
    assert found.error == np.inf
    # Nor where the temperatures do not suffice.
    found = jax.jit(partial(annealing.anneal, path, most=3))(x, KEY)
    assert found.temperatures == 3
    assert found.reached < 1
    assert found.error == np.inf


def test_resampling_never_takes_a_point_of_no_weight():
    log_weights = jnp.log(jnp.asarray([1.0] * 251 + [0.0] * 5, jnp.float32))
    keys = jax.random.split(KEY, 200_000)
    last = jax.jit(jax.vmap(lambda key: annealing.resample(log_weights, key)[-1]))(keys)
    assert jnp.max(last) == 250


def test_resampling_is_as_even_as_can_be():
    weights = np.asarray([0.0, 0.3, 0.05, 0.65])
    index = annealing.resample(jnp.log(weights), KEY, 1000)
    counts = np.bincount(index, minlength=4)
    assert np.all(np.abs(counts - 1000 * weights) <= 1)
    assert counts[0] == 0


@pytest.mark.parametrize("k", [0.2, 0.6, 1.2])
def test_pareto_k_of_paretos(k):
    rng = np.random.default_rng(0)
    found = [pareto_k(k * rng.exponential(size=20_000)) for _ in range(10)]
    np.testing.assert_allclose(np.mean(found), k, atol=0.06)


def test_pareto_k_of_odd_weights():
    assert pareto_k(np.zeros(1000)) == -math.inf
    assert math.isnan(pareto_k(np.zeros(10)))
    assert math.isnan(pareto_k(np.full(1000, -np.inf)))
    assert pareto_k(np.random.default_rng(0).normal(size=1000) * 0.1) < 0.3


def fixed(*layers, features=1, **options):
    """A density of layers that have no parameters worth fitting."""
    flow = jflow.Flow(jb.Chain(layers), (features,), **options)
    context = None if flow.context_shape is None else np.zeros((2, *flow.context_shape))
    return jflow.Density(flow, jflow.init(flow, KEY, np.full((2, features), 0.5), context))


AFFINE = jb.Elementwise(jt.Affine())


def test_pulled_back_densities_are_those_of_points():
    density = fixed(AFFINE, jb.Elementwise(jt.Sigmoid()), features=3)
    x = np.random.default_rng(0).normal(size=(5, 3))
    y, log_det, log_base = pulled_back(density.flow, density.variables, x)
    np.testing.assert_allclose(log_base - log_det, density.log_prob(y), atol=1e-9)


def test_importance_knows_its_errors():
    density = fixed(AFFINE)
    target = lambda y: normal(y, 0, 0.5)  # noqa: E731
    found = [train.importance(density, target, seed, 1000) for seed in range(30)]
    errors = [each.log_normalizer for each in found]
    np.testing.assert_allclose(np.std(errors), np.mean([each.error for each in found]), rtol=0.4)
    assert all(each.pareto_k < 0.7 for each in found)
    assert "Pareto k" in str(found[0])
    np.testing.assert_allclose(np.sum(found[0].weights), 1)
    points = found[0].resampled(1, 5000)
    assert points.shape == (5000, 1)
    np.testing.assert_allclose(jnp.std(points), 0.5, atol=0.05)


def test_importance_warns_of_heavy_tails():
    with pytest.warns(UserWarning, match=r"Pareto k .* not to be trusted"):
        found = train.importance(fixed(AFFINE), lambda y: normal(y, 0, 4.0), 0, 4000)
    assert found.pareto_k > 0.7


def test_smc_finds_what_a_flow_lacks():
    """The flow sits on the heavier of two modes in 8-D: its own samples give log Z 3 + log .7."""
    density = fixed(AFFINE, features=8)
    leaves, tree = jax.tree.flatten(density.variables)
    moved = [leaf.at[..., 0].set(2.0) for leaf in leaves]
    density = jflow.Density(density.flow, jax.tree.unflatten(tree, moved))
    np.testing.assert_allclose(np.mean(density.sample(0, 500)), 2, atol=0.1)
    with pytest.warns(
        UserWarning, match=r"samples of the flow lack (29|30|31)% of the target's mass"
    ):
        found = train.smc(density, mixture, 0)
    own, afar = found.runs["from the flow"], found.runs["from afar"]
    np.testing.assert_allclose(own[0], 3 + math.log(0.7), atol=0.02)
    assert (found.log_normalizer, found.error) == afar
    assert abs(found.log_normalizer - 3) < 3 * found.error < 0.3
    np.testing.assert_allclose(found.missed, 0.3, atol=0.08)
    left = np.sum(found.weights[np.asarray(found.points).mean(axis=1) < 0])
    np.testing.assert_allclose(left, 0.3, atol=0.08)
    assert found.resampled(0, 100).shape == (100, 8)
    assert "lack" in str(found)


def test_points_of_the_target_see_where_a_flow_is_too_thin():
    """Weights of N(0, 1) for N(0, 1.5) in 4-D have no variance at all; samples do not show it."""
    target = lambda y: normal(y, 0, 1.5)  # noqa: E731
    found = train.smc(fixed(AFFINE, features=4), target, 0, 1000)
    assert found.forward_ess < 0.05 < found.importance.ess
    seen = math.sqrt((1 / found.forward_ess - 1) / 1000)
    assert found.runs[FLOW][1] > seen - found.importance.error > 0
    assert found.error < found.runs[FLOW][1]
    good = train.smc(fixed(AFFINE, features=4), normal, 0, 1000)
    np.testing.assert_allclose(good.forward_ess, 1, atol=0.3)
    assert good.runs[FLOW][1] < 1e-6


@pytest.mark.parametrize(
    ("flow", "raised", "afar", "wanted"),
    [
        ((1.0, 0.01), 0.01, (1.02, 0.03), FLOW),  # the surer one
        ((1.0, 0.01), 0.05, (1.02, 0.03), AFAR),
        ((1.0, 0.01), math.inf, (1.02, 0.03), AFAR),
        ((1.0, 0.01), 0.01, (1.5, 0.1), AFAR),  # the one that misses nothing
        ((1.0, 0.1), 0.1, (0.5, 0.01), FLOW),
        ((1.0, 0.01), 0.2, (0.8, 0.03), FLOW),
        ((1.0, 0.01), 0.01, (-math.inf, math.nan), FLOW),
        ((-math.inf, math.nan), math.nan, (1.0, 0.01), AFAR),
    ],
)
def test_which_run_counts(flow, raised, afar, wanted):
    runs = {FLOW: (flow[0], raised), AFAR: afar}
    assert judged({FLOW: flow, AFAR: afar}, runs) == wanted


def test_smc_of_what_is_narrow_of_what_is_nan_and_of_what_has_no_gradient():
    density = fixed(AFFINE, features=4)
    leaves, tree = jax.tree.flatten(density.variables)
    narrow = [leaf.at[..., 1].set(math.log(1e-3)) for leaf in leaves]
    small = jflow.Density(density.flow, jax.tree.unflatten(tree, narrow))
    scale = float(np.std(small.sample(0, 4000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run from afar may say that it is lost
        found = train.smc(small, lambda y: normal(y, 0, scale), 0, 500)
        assert abs(found.log_normalizer) < 0.1
        assert found.error < 1
    broken = lambda y: jnp.where(y[:, 0] > 1, jnp.nan, normal(y))  # noqa: E731
    with pytest.warns(UserWarning, match="target is NaN or infinite for some samples"):
        found = train.smc(density, broken, 0, 500)
    with pytest.raises(ValueError, match="weights must be numbers, and not all of them zero"):
        found.importance.resampled(0, 10)
    with pytest.raises(ValueError, match=r"has no gradient.*leapfrogs=0"):
        train.smc(density, looped, 0)
    found = train.smc(density, looped, 0, 500, leapfrogs=0)
    np.testing.assert_allclose(found.log_normalizer, 0, atol=5 * found.error + 1e-6)


def looped(y):
    """A normal, by a loop that has no reverse-mode derivatives."""
    more = lambda carry: carry[0] < y.shape[1]  # noqa: E731
    add = lambda carry: (carry[0] + 1, carry[1] + jax.scipy.stats.norm.logpdf(y[:, carry[0]]))  # noqa: E731
    return jax.lax.while_loop(more, add, (0, jnp.zeros(len(y), y.dtype)))[1]


def test_smc_of_many_entries_compiles():
    """One map for all entries of a kind: as many as there are entries took minutes."""
    program = str(jax.make_jaxpr(lambda x: found_far(x))(KEY))
    assert program.count("logistic") < 20


def found_far(key):
    from jflow.distributions.smc import _from_afar
    from jflow.functional import Interval

    kinds = (Interval(0.0, 1.0), Interval()) * 200
    return _from_afar(kinds, (400,), normal, (4, 1, 1, 9), None, 2.0, key).log_normalizer


def cases():
    log_beta = math.lgamma(2) + math.lgamma(3) - math.lgamma(5)
    angle = lambda y: jnp.sum(jnp.cos(y), axis=-1)  # noqa: E731
    yield "interval", (AFFINE, jb.Elementwise(jt.Sigmoid())), {}, lambda y: (
        jnp.log(y) + 2 * jnp.log1p(-y))[:, 0], log_beta  # fmt: skip
    yield "positive", (jb.Elementwise(jt.Softplus()), AFFINE), {}, lambda y: (
        2 * jnp.log(y) - y)[:, 0], math.log(2)  # fmt: skip
    yield "circle", (jb.Elementwise(jt.CircularSpline(4)),), {
        "base": jflow.VonMises()}, angle, math.log(2 * math.pi * 1.2660658777520084)  # fmt: skip


@pytest.mark.parametrize(("name", "layers", "options", "target", "wanted"), cases())
def test_smc_where_events_are_not_on_the_line(name, layers, options, target, wanted):
    if name == "interval":
        layers = layers[::-1]
    density = fixed(*layers, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these flows are not fitted
        found = train.smc(density, target, 0, 2000)
    for value, error in found.runs.values():
        assert abs(value - wanted) < 4 * error + 0.01
    assert np.all(np.isfinite(density.log_prob(found.points)))


def test_what_is_said_of_a_flow_that_ends_before_the_target_does():
    """Points from afar are where it has none; its own run may be the higher one all the same."""
    found = train.smc(fixed(AFFINE), normal, 0, 100)
    assert not found.advice
    thin = dataclasses.replace(found, forward_ess=0.0, runs={FLOW: (1.0, math.inf)})
    assert "log Z is about 1.000, as found from the flow, or higher" in thin.advice[0]


def test_smc_for_one_context():
    density = fixed(AFFINE, context_shape=2)
    target = lambda y, c: 1 + normal(y - c[:, :1], 0, 0.5)  # noqa: E731
    found = train.smc(density, target, 0, 2000, np.asarray([2.0, 0.0]), leapfrogs=0)
    np.testing.assert_allclose(found.log_normalizer, 1, atol=4 * found.error)
    np.testing.assert_allclose(np.sum(found.weights @ found.points), 2, atol=0.1)
    with pytest.raises(ValueError, match=r"context must be \(2,\)"):
        train.smc(density, target, 0, 100, np.zeros((3, 2)))


def test_smc_errors():
    density = fixed(AFFINE)
    with pytest.raises(ValueError, match="afar must be a positive number, or None; got 0"):
        train.smc(density, normal, 0, afar=0)
    with pytest.raises(ValueError, match="smc: moves must be a whole number, 1 or more; got 0"):
        train.smc(density, normal, 0, moves=0)
    with pytest.raises(ValueError, match="target must return one log-density for each y"):
        train.smc(density, lambda y: y, 0)
    residual = flows.residual_flow(4, 1, (4,))
    with pytest.raises(ValueError, match=r"its log_det .*with_estimator\(ExactLogDet"):
        train.smc(jflow.Density(residual, {}), normal, 0)
    nowhere = lambda y: jnp.full(len(y), -jnp.inf)  # noqa: E731
    with pytest.warns(UserWarning, match="the run from the flow is not to be trusted"):
        assert train.smc(density, nowhere, 0, 50).log_normalizer == -math.inf


SMALL = {"steps": 300, "samples": 128, "learning_rate": 5e-3, "evaluate_every": 100}
COUPLINGS = flows.real_nvp(2, 4, (32,))


def shares(density):
    return float(np.mean(np.asarray(density.sample(5, 4000)).mean(axis=1) < 0))


@pytest.mark.parametrize("objective", ["alpha", "fab"])
def test_objectives_that_cover_modes(objective):
    density, history = jflow.fit_to_target(
        COUPLINGS, partial(mixture, apart=3.0), key=0, objective=objective, progress=False, **SMALL
    )
    row = history.best
    assert abs(row["log_normalizer"] - 3) < 0.1
    assert row["log_normalizer_error"] < 0.05
    np.testing.assert_allclose(shares(density), 0.3, atol=0.08)
    assert MEMORY not in density.variables


def test_a_run_of_fab_goes_on_bit_for_bit(tmp_path):
    target = partial(mixture, apart=3.0)
    options = {
        "key": 0, "progress": False, "steps": 40, "samples": 16, "evaluate_every": 10,
        "objective": partial(train.FAB, temperatures=3, rounds=4, every=3),
    }  # fmt: skip
    whole, log = jflow.fit_to_target(COUPLINGS, target, **options)
    options |= {"directory": tmp_path}
    stop = lambda density, row: "stop" if row["step"] == 20 else None  # noqa: E731
    jflow.fit_to_target(COUPLINGS, target, callback=stop, **options)
    density, again = jflow.fit_to_target(COUPLINGS, target, resume=True, **options)
    jax.tree.map(np.testing.assert_array_equal, whole.variables, density.variables)
    drop = lambda rows: [{k: v for k, v in r.items() if k != "seconds"} for r in rows]  # noqa: E731
    assert drop(log.rows) == drop(again.rows)


def test_annealing_a_target_while_a_flow_is_fitted():
    """The first losses are those of p^.01, and the last ones of p."""
    options = {"key": 0, "progress": False, "samples": 64, "evaluate_every": 2, "steps": 20}
    _, plain = jflow.fit_to_target(COUPLINGS, mixture, **options)
    _, history = jflow.fit_to_target(COUPLINGS, mixture, anneal=10, **options)
    entropy = -math.log(2 * math.pi * math.e)  # E log q of a standard normal in 2-D
    np.testing.assert_allclose(history.rows[0]["train_kl"], entropy, atol=0.5)
    assert plain.rows[0]["train_kl"] > entropy + 0.8
    np.testing.assert_allclose(history.rows[-1]["train_kl"], plain.rows[-1]["train_kl"], atol=0.05)
    given = jflow.init(COUPLINGS, KEY, np.random.default_rng(0).normal(size=(16, 2)))
    density, _ = jflow.fit_to_target(COUPLINGS, mixture, anneal=10, variables=given, **options)
    assert MEMORY not in density.variables


def test_a_fit_warns_of_what_it_missed():
    """Reverse KL takes one of two modes that are far apart."""
    target = partial(mixture, apart=4.0)
    options = {"key": 0, "progress": False, "steps": 250, "samples": 1024, "evaluate_every": 250}
    options |= {"learning_rate": 5e-2}
    flow = jflow.Flow(AFFINE, (4,))
    with pytest.warns(UserWarning, match="samples of the flow lack about .*annealed from afar"):
        _, history = jflow.fit_to_target(flow, target, **options)
    assert "lack about" in str(history)
    with pytest.warns(UserWarning, match="samples of the flow lack about"):
        _, history = jflow.fit_to_target(
            flow, target, patience=1, **(options | {"steps": 600, "evaluate_every": 100})
        )
    assert history.ended == "patience"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _, history = jflow.fit_to_target(flow, target, afar=None, **options)
        assert not history.notes
        # No false alarm where nothing is missing.
        _, history = jflow.fit_to_target(flow, lambda y: normal(y, 1.0, 2.0), **options)
    assert not history.notes


@pytest.mark.parametrize("shift", [0.0, 0.2])
@pytest.mark.parametrize("kind", [train.AlphaDivergence, train.FAB])
def test_gradients_are_those_of_closed_forms(kind, shift):
    """q = N(s, 1), p = N(.3, 1) e^5, g ~ p^2 / q = N(.6 - s, 1): d/ds -E_g[log q] = -2 (.3 - s).

    FAB's buffer is of s = 0, so that its weights are to be corrected where s is not 0.
    """
    flow = jflow.Flow(AFFINE, (1,))
    goal = kind(flow, lambda y: 5 + normal(y, 0.3))
    if kind is train.FAB:
        goal = dataclasses.replace(goal, rounds=1, every=10**6)
    batch = jnp.zeros((20_000, 0))

    @jax.jit
    def gradient(key):
        variables = goal.init(KEY, batch)
        memory = {name: tree for name, tree in variables.items() if name == MEMORY}

        def loss(params):
            given = {"params": params, **memory}
            losses, moved = goal.losses(given, batch, key, training=True)
            return jnp.mean(losses), moved

        zero = jax.tree.map(lambda leaf: leaf.at[..., 0].set(shift), variables["params"])
        return *jax.grad(loss, has_aux=True)(zero), memory

    found, moved, before = gradient(KEY)
    (slope,) = jax.tree.leaves(found)
    np.testing.assert_allclose(slope[0, 0], -2 * (0.3 - shift), atol=0.06)
    if kind is train.FAB:  # the corrected weights are those of the new g
        held, before = moved[MEMORY], before[MEMORY]
        # Points that are drawn twice are corrected once.
        change = held["log_q"] - before["log_q"]
        np.testing.assert_allclose(held["log_weights"] - before["log_weights"], -change, atol=1e-9)
        assert shift == 0 or 0.3 < np.mean(np.asarray(change) != 0) < 0.9
        weights = jax.nn.softmax(held["log_weights"])
        np.testing.assert_allclose(weights @ held["points"], [0.6 - shift], atol=0.06)
        assert held["step"] == 1


def test_objectives_of_targets_are_trained_by_the_machine_itself():
    goal = train.FAB(COUPLINGS, mixture, rounds=2)
    density, history = train.train(
        goal, train.Arrays(np.zeros((16, 0)), 16), key=0, steps=4, progress=False,
        step=train.gradient_step(goal, optax.adam(1e-3)),
    )  # fmt: skip
    assert MEMORY not in density.variables
    assert history.ended == "done"


def test_a_mixture_as_the_base_of_what_covers_modes():
    flow = jflow.Flow(AFFINE, (2,), jflow.GaussianMixture(3))
    options = {"key": 0, "steps": 5, "samples": 32, "progress": False, "evaluate_every": 5}
    for objective in ("alpha", "fab"):
        _, history = jflow.fit_to_target(flow, mixture, objective=objective, **options)
        assert np.isfinite(history.rows[-1]["train_kl"])
    with pytest.raises(ValueError, match=r"no gradient .* objective='fab'"):
        jflow.fit_to_target(flow, mixture, **options)


def test_errors_of_objectives():
    fit = partial(jflow.fit_to_target, COUPLINGS, mixture, key=0, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"one of \['alpha', 'fab', 'reverse_kl'\].*got 'forward'"):
        fit(objective="forward")
    with pytest.raises(ValueError, match="objective 'fab' anneals by itself; got anneal=5"):
        fit(objective="fab", anneal=5)
    with pytest.raises(ValueError, match="alpha must be above 1; got 1"):
        fit(objective=partial(train.AlphaDivergence, alpha=1.0))
    with pytest.raises(ValueError, match="FAB: every must be a whole number, 1 or more; got 0"):
        fit(objective=partial(train.FAB, every=0))
    with pytest.raises(TypeError, match=r"objective must make a train.ReverseKL.*made a int"):
        fit(objective=lambda *given, **options: 3)
    with pytest.raises(ValueError, match="fit_to_target: afar must be a positive number"):
        fit(afar=0.0)
    noisy = flows.residual_flow(4, 1, (4,))
    for objective in ("alpha", "fab"):
        with pytest.raises(ValueError, match="values and log_dets are functions of points"):
            jflow.fit_to_target(noisy, normal, key=0, objective=objective)
    conditional = flows.real_nvp(2, 2, (4,), context_shape=1)
    for objective in ("alpha", "fab"):
        with pytest.raises(ValueError, match="each context has a normaliser of its own"):
            jflow.fit_to_target(
                conditional, lambda y, c: normal(y), key=0, context=np.zeros((3, 1)),
                objective=objective,
            )  # fmt: skip


def test_a_target_that_is_zero_somewhere_is_explained():
    inside = lambda y: jnp.where(jnp.all((y > 0) & (y < 1), axis=-1), 0.0, -jnp.inf)  # noqa: E731
    with pytest.raises(train.NonFiniteLossError, match=r"if it is -inf or NaN .*Sigmoid") as found:
        jflow.fit_to_target(COUPLINGS, inside, key=0, steps=5, progress=False)
    assert "data" not in str(found.value)
    ended = COUPLINGS.clone(
        bijector=jb.Chain((jb.Elementwise(jt.Sigmoid()), COUPLINGS.bijector)), recipe=None
    )
    _, history = jflow.fit_to_target(
        ended, inside, key=0, progress=False, **(SMALL | {"steps": 100})
    )
    assert abs(history.best["log_normalizer"]) < 0.1
