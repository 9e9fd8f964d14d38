"""Flow matching: paths, times, couplings, and what fits of them come to."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest, norm

import jflow
from jflow import bijectors as jb
from jflow import flows, nets, train
from jflow import functional as jf
from jflow.train.couplings import pair_costs

KEY = jax.random.key(0)
PATHS = {
    "linear": jf.LinearPath(),
    "noisy": jf.LinearPath(noise=0.1),
    "cosine": jf.CosinePath(),
    "preserving": jf.VariancePreserving(),
    "exploding": jf.VarianceExploding(),
    "interpolant": jf.Interpolant(),
}
NET = nets.MLP((16, 16), activation="gelu")
FLOW = jflow.Flow(jb.Chain((jb.ActNorm(), jb.Continuous(NET))), (2,))


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_paths_lead_from_the_base_to_the_data_at_their_velocity(path):
    x0, x1, noise = (jnp.asarray(drawn(i, 5, 3)) for i in range(3))
    t = jnp.linspace(0.01, 0.99, 5)
    x, velocity = path.point_and_velocity(t, x0, x1, noise)
    step = 1e-6
    moved = path.point_and_velocity(t + step, x0, x1, noise)[0]
    back = path.point_and_velocity(t - step, x0, x1, noise)[0]
    np.testing.assert_allclose(velocity, (moved - back) / (2 * step), rtol=1e-6, atol=1e-5)
    ends = [path.coefficients(jnp.asarray(end)) for end in (0.0, 1.0)]
    # Those of diffusions are never quite there: so much of the other end is left.
    left = 0.025 if isinstance(path, jf.VariancePreserving | jf.VarianceExploding) else 1e-7
    np.testing.assert_allclose(ends[0][:2], (0, 1), atol=left)
    np.testing.assert_allclose(ends[1][:2], (1, 0), atol=left)
    assert x.shape == velocity.shape == (5, 3)


def test_the_variance_of_diffusions_is_that_of_standardised_data():
    t = jnp.linspace(0, 1, 11)
    for path in (jf.VariancePreserving(), jf.VarianceExploding(), jf.CosinePath()):
        a, b, _ = path.coefficients(t)
        np.testing.assert_allclose(a**2 + b**2, 1, atol=1e-12)
    song = jf.VariancePreserving(last=1e-9)  # log a(s) = -s^2 (fast - slow) / 4 - s slow / 2
    np.testing.assert_allclose(song.coefficients(jnp.zeros(()))[0], np.exp(-19.9 / 4 - 0.05))


@pytest.mark.parametrize("law", [jf.UniformTimes(), jf.LogitNormalTimes(0.3, 1.5)])
def test_times_follow_their_law_and_are_stratified(law):
    times = np.asarray(law.sample(KEY, 1000, jnp.float32))
    assert times.dtype == np.float32
    assert (times > 0).all()
    assert (times < 1).all()
    share = times if isinstance(law, jf.UniformTimes) else norm.cdf(_logit(times), 0.3, 1.5)
    assert kstest(share, "uniform").statistic < 2e-3  # without strata, .03
    assert np.abs(np.corrcoef(times[1:], times[:-1])[0, 1]) < 0.1


def _logit(t):
    return np.log(t) - np.log1p(-t.astype(np.float64))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_costs_of_optimal_pairs_are_those_of_scipy(dtype):
    x0, x1 = drawn(0, 128, 4, 2) + 30, 2 * drawn(1, 128, 4, 2) + 30
    partners = jax.jit(train.OptimalTransport().partners)(
        x0.astype(dtype), x1.astype(dtype), None, KEY
    )
    assert sorted(np.asarray(partners)) == list(range(128))
    costs = np.mean((x1[:, None] - x0[None]) ** 2, (2, 3))
    rows, columns = linear_sum_assignment(costs)
    best = costs[rows, columns].sum()
    np.testing.assert_allclose(costs[rows, np.asarray(partners)].sum(), best, rtol=1e-5)
    assert best < 0.7 * costs.diagonal().sum()


def test_pairs_of_optimal_transport_keep_to_their_class():
    context = np.eye(3)[np.arange(60) % 3]
    x1 = drawn(0, 60, 2) + 5 * context[:, :2]  # without contexts, x0 would tell the class
    pairs = partial(jax.jit(train.OptimalTransport().partners), drawn(1, 60, 2), x1)
    partners = np.asarray(pairs(jnp.asarray(context), KEY))
    assert (partners % 3 == np.arange(60) % 3).all()
    without = train.OptimalTransport(context_weight=0).partners(
        jnp.asarray(drawn(1, 60, 2)), jnp.asarray(x1), jnp.asarray(context), KEY
    )
    assert (np.asarray(without) % 3 != np.arange(60) % 3).any()


def test_plans_of_sinkhorn_cost_little_more_than_the_best():
    pytest.importorskip("ott")
    x0, x1 = jnp.asarray(drawn(0, 64, 2)), jnp.asarray(drawn(1, 64, 2))
    costs, rows = np.asarray(pair_costs(x0, x1, None, 0)), np.arange(64)
    best = costs[rows, np.asarray(train.OptimalTransport().partners(x0, x1, None, KEY))].mean()
    coupling = train.Sinkhorn(0.01)
    draws = jax.vmap(lambda key: coupling.partners(x0, x1, None, key))(jax.random.split(KEY, 50))
    mean = costs[rows, np.asarray(draws)].mean()
    assert best < mean < 1.3 * best
    counts = np.bincount(np.asarray(draws).ravel(), minlength=64) / 50
    assert np.abs(counts - 1).max() < 0.6  # each point of the base as often as any other


@pytest.fixture(scope="module")
def shifted():
    """Of data N(m, s^2) in each feature, the velocity of least error is known."""
    y = (np.array([1.0, -2.0]) + np.array([0.5, 3.0]) * drawn(0, 4000, 2)).astype(np.float32)
    coupling = partial(train.FlowMatching, path=jf.CosinePath())
    density, history = jflow.fit(
        FLOW, y, key=0, objective=coupling, steps=300, learning_rate=1e-2, progress=False
    )
    return y, density, history


def test_a_fit_of_gaussian_data_is_that_gaussian(shifted):
    y, density, history = shifted
    new = (y.mean(0) + y.std(0) * drawn(1, 500, 2)).astype(np.float32)
    wanted = norm(y.mean(0), y.std(0)).logpdf(new).sum(-1)
    error = np.abs(np.asarray(density.log_prob(new)) - wanted)
    assert error[wanted > -6].max() < 0.2
    assert np.mean(error) < 0.05
    # With this path x and dx/dt of N(0, 1) data are independent: the least loss is (pi / 2)^2.
    assert abs(history.best["validation_matching"] / (np.pi / 2) ** 2 - 1) < 0.1
    assert {"train_matching", "validation_matching"} <= set(history.best)


def test_layers_before_the_path_stay_as_they_were(shifted):
    y, density, _ = shifted
    wide = jax.tree.map(lambda a: a.astype(float), density.variables)
    layer = {name: tree["bijector"]["bijectors_0"] for name, tree in wide.items()}
    # A loss that could shrink y would.
    x = FLOW.bijector.bijectors[0].apply(layer, y.astype(float), method="inverse")
    np.testing.assert_allclose(x.std(0), 1, atol=0.15)


def losses(objective, y, context=None, training=False):
    variables = objective.init(KEY, (y, context))
    moved = jax.tree.map(lambda p: p + 0.1, variables)
    return moved, objective.losses(moved, (y, context), KEY, training=training)[0]


def test_losses_are_those_of_the_formula():
    y = jnp.asarray(drawn(0, 6, 2))
    objective = train.FlowMatching(FLOW.clone(bijector=jb.Continuous(NET)), path=jf.CosinePath())
    variables, found = losses(objective, y)
    keys = jax.random.split(KEY, 3)
    own = keys[2]
    x0 = objective.flow.apply(variables, own, (6,), method="sample_latents")
    of_time = jax.random.split(jax.random.fold_in(own, 1), 3)[1]
    t = jf.UniformTimes().sample(of_time, 6, y.dtype)[:, None]
    x = jnp.sin(np.pi / 2 * t) * y + jnp.cos(np.pi / 2 * t) * x0
    velocity = np.pi / 2 * (jnp.cos(np.pi / 2 * t) * y - jnp.sin(np.pi / 2 * t) * x0)
    field = NET(2).apply({"params": variables["params"]["bijector"]["net"]}, x, t)
    np.testing.assert_allclose(found, np.mean((field - velocity) ** 2, -1), rtol=1e-6)
    several = train.FlowMatching(objective.flow, samples=4)
    assert losses(several, y)[1].shape == (6,)


def test_images_and_contexts_are_matched():
    field = nets.ConvNet(4, activation="gelu")
    path = jb.Continuous(field, event_ndim=3, frequencies=2)
    flow = jflow.Flow(
        jb.Chain((jb.Dequantize(16, event_ndim=3), jb.ActNorm(event_ndim=3), path)),
        (4, 4, 1),
        context_shape=3,
    )
    y = np.random.default_rng(0).integers(0, 16, (8, 4, 4, 1))
    context = jnp.eye(3)[np.arange(8) % 3]
    for coupling in (train.IndependentCoupling(), train.OptimalTransport()):
        objective = train.FlowMatching(flow, coupling=coupling)
        _, found = losses(objective, jnp.asarray(y), context, training=True)
        assert found.shape == (8,)
        assert np.isfinite(found).all()


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ValueError, match="nearest to the base, in one Continuous"):
        train.FlowMatching(flows.maf(2))
    with pytest.raises(ValueError, match="nearest to the base, in one Continuous"):
        jflow.fit(flows.ffjord(2, layers=2), drawn(0, 9, 2), key=0, objective="flow_matching")
    with pytest.raises(TypeError, match="path must be a Path"):
        train.FlowMatching(FLOW, path="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="objective must be 'likelihood'"):
        jflow.fit(FLOW, drawn(0, 9, 2), key=0, objective="matching")
    with pytest.raises(ValueError, match="of -log p: leave them out"):
        jflow.fit(FLOW, drawn(0, 9, 2), key=0, objective="flow_matching", dimensions=3)
    with pytest.raises(TypeError, match="it made int"):
        jflow.fit(FLOW, drawn(0, 9, 2), key=0, objective=lambda flow, **_: 3)  # type: ignore[arg-type,return-value]
    for build in (
        lambda: jf.VariancePreserving(last=0), lambda: jf.VarianceExploding(2, 1),
        lambda: jf.LogitNormalTimes(scale=0), lambda: jf.LinearPath(-1),
        lambda: train.Sinkhorn(0), lambda: train.OptimalTransport(float("nan")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be a number"):
            build()


def test_fits_of_flow_matching_recipes_are_flow_matching():
    for flow, objective, unit in (
        (flows.flow_matching(2, (8,)), None, "matching"),
        (flows.flow_matching(2, (8,)), "likelihood", "nll"),
        (flows.maf(2, 2, (8,)), None, "nll"),
    ):
        _, history = jflow.fit(
            flow, drawn(0, 40, 2).astype(np.float32), key=0, objective=objective, steps=2,
            batch_size=32, progress=False,
        )  # fmt: skip
        assert f"train_{unit}" in history.best


def test_a_table_is_matched():
    table = jflow.data.table(drawn(0, 200, 2) @ np.array([[1, 1], [0, 0.1]]), seed=0)
    with warnings.catch_warnings(action="ignore"):
        density, history = jflow.fit(
            flows.flow_matching(2, (8,), context_shape=table.context_shape), table, key=0, steps=3,
            batch_size=32, progress=False,
        )  # fmt: skip
    assert "train_matching" in history.best
    assert np.isfinite(density.log_prob(drawn(1, 5, 2))).all()


def test_u_nets_see_each_image_by_itself():
    net = nets.UNet(4, levels=2, heads=2)(3)
    x, context = jnp.asarray(drawn(0, 2, 3, 4, 4, 1)), jnp.asarray(drawn(1, 2, 3, 2))
    variables = net.init(KEY, x, context)
    assert (net.apply(variables, x, context) == 0).all()
    leaves, tree = jax.tree.flatten(variables)
    moved = [a + 0.1 * jnp.asarray(drawn(i, *a.shape)) for i, a in enumerate(leaves)]
    variables = jax.tree.unflatten(tree, moved)
    found = jax.jit(net.apply)(variables, x, context)
    assert found.shape == (2, 3, 4, 4, 3)
    alone = jax.jit(net.apply)(variables, x[1, 2], context[1, 2])
    np.testing.assert_allclose(found[1, 2], alone, atol=1e-12)
    of_pixels = jnp.broadcast_to(context[1, 2], (4, 4, 2))
    assert net.apply(net.init(KEY, x[1, 2], of_pixels), x[1, 2], of_pixels).shape == (4, 4, 3)
    far = jax.jacfwd(lambda x: net.apply(variables, x, context[1, 2])[0, 0, 0])(x[1, 2])
    assert (far[..., 0] != 0).all()  # attention and the lower level see all pixels
    with pytest.raises(ValueError, match="multiples of 2"):
        net.init(KEY, jnp.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match="heads must divide"):
        nets.UNet(4, levels=1, heads=3)
