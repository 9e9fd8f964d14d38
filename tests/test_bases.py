"""Base distributions: what they are, what they learn, and how a flow uses them."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jflow
from jflow import bijectors as jb
from jflow import transformers as jt
from jflow.distributions import Density
from jflow.functional import wrap_angles
from tests.harness import perturbed

KEY = jax.random.key(0)

# Makes a base of that many features; the width of its context; whether it has parameters.
BASES = {
    "normal": (lambda d: jflow.StandardNormal(), None, False),
    "logistic": (lambda d: jflow.StandardLogistic(), None, False),
    "box": (lambda d: jflow.BoxUniform(-1.5, (2.0,) * d), None, False),
    "student": (lambda d: jflow.StudentT(4.0), None, True),
    "mixture": (lambda d: jflow.GaussianMixture(3), None, True),
    "conditional": (lambda d: jflow.ConditionalGaussian((8,)), 2, True),
    "circle": (lambda d: jflow.VonMises(), None, False),
    "angles": (lambda d: jflow.VonMises(2.0), None, False),
    "learned angles": (lambda d: jflow.VonMises(2.0, learned=True), None, True),
    "product": (
        lambda d: jflow.Product((jflow.GaussianMixture(2), jflow.ConditionalGaussian((8,)))[:d]),
        2,
        True,
    ),
}
LEARNED = [name for name, (_, _, learned) in BASES.items() if learned]


def normal(*shape, dtype=np.float64):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@cache
def density(name, d=1, dtype=np.float64, scale=0.3):
    """The base alone, as the density of a flow that does nothing but reverse the features."""
    make, features, learned = BASES[name]
    flow = jflow.Flow(jb.Reverse(), (d,), make(d), context_shape=features)
    context = None if features is None else np.asarray([0.4, -0.7], dtype)
    variables = jflow.init(flow, KEY, np.zeros((4, d), dtype), context)
    return Density(flow, perturbed(variables, scale) if learned else {}), context


def grid(name, d):
    """Centres and volume of the cells of a grid that holds nearly all of the mass."""
    if name in ("circle", "angles", "learned angles"):
        axis = np.linspace(-np.pi, np.pi, 401)
    elif name.startswith("box"):
        axis = np.linspace(-4, 4, 161)  # ends of the boxes are ends of cells
    else:  # wide, because Student's tails are heavy
        axis = np.sinh(np.linspace(-14, 14, 601 if d == 1 else 401))
    middle, width = (axis[1:] + axis[:-1]) / 2, np.diff(axis)
    y = np.stack(np.meshgrid(*[middle] * d, indexing="ij"), -1).reshape(-1, d)
    return y, np.prod(np.meshgrid(*[width] * d, indexing="ij"), axis=0).ravel()


@cache
def on_grid(name):
    """Points of the plane, and the mass of their cells."""
    p, context = density(name, 2)
    y, volume = grid(name, 2)
    return y, np.exp(p.log_prob(y, context)) * volume


@pytest.mark.parametrize("name", BASES)
def test_integrals_and_means(name):
    p, context = density(name, 2)
    y, mass = on_grid(name)
    np.testing.assert_allclose(mass.sum(), 1, atol=2e-3)
    base = p.flow.apply(p.variables, np.float64, context, method="_base")
    np.testing.assert_allclose((mass @ y)[::-1], base.mean(), atol=5e-3)


TEMPERED = ("normal", "logistic", "student", "mixture", "conditional", "product")


@pytest.mark.parametrize("name", BASES)
def test_temperature_scales_what_can_be_scaled(name):
    """A tempered base is a distribution: its samples follow its density."""
    p, context = density(name, 1)
    if name not in TEMPERED:
        with pytest.raises(ValueError, match="temperature must be 1 for this base"):
            p.sample(KEY, 3, context, temperature=0.5)
        assert p.sample(KEY, 3, context, temperature=1).shape == (3, 1)
        return
    cold = p.flow.apply(p.variables, np.float64, context, method="_base").tempered(0.5)
    sample = np.asarray(p.sample(KEY, 4000, context, temperature=0.5))
    scale = np.abs(sample).max()
    x = np.linspace(-3 * scale, 3 * scale, 20_001)
    mass = np.cumsum(np.exp(jax.vmap(cold.log_prob)(x[:, None]))) * (x[1] - x[0])
    np.testing.assert_allclose(mass[-1], 1, atol=3e-3)
    assert stats.kstest(sample[:, 0], lambda v: np.interp(v, x, mass)).pvalue > 0.01


def test_a_product_is_tempered_if_its_parts_are():
    base = jflow.Product((jflow.StandardNormal(), jflow.BoxUniform()))
    with pytest.raises(ValueError, match="Box has no narrower distribution"):
        Density(jflow.Flow(jb.Reverse(), (2,), base), {}).sample(KEY, 3, temperature=0.5)


def test_modes_stay_where_they_are():
    """Half of the scale, not half of the way to the mean."""
    p, _ = density("mixture", 1)
    params = {"base": {"logits": np.zeros(2), "means": np.asarray([[-5.0], [5.0]])}}
    flow = p.flow.clone(base=jflow.GaussianMixture(2))
    params["base"]["log_scales"] = np.zeros((2, 1))
    p = Density(flow, {**p.variables, "params": {**p.variables["params"], **params}})
    sample = np.asarray(p.sample(KEY, 4000, temperature=0.5))[:, 0]
    for side in (sample[sample < 0] + 5, sample[sample > 0] - 5):
        assert len(side) > 1800
        np.testing.assert_allclose((side.mean(), side.std()), (0, 0.5), atol=0.05)


@pytest.mark.parametrize("temperature", [-0.5, np.nan, np.ones(3)])
def test_temperatures_are_numbers(temperature):
    p, _ = density("normal", 1)
    with pytest.raises(ValueError, match="temperature must be one number, 0 or more"):
        p.sample(KEY, 3, temperature=temperature)


@pytest.mark.parametrize("name", BASES)
def test_samples_follow_log_prob(name):
    p, context = density(name, 2)
    y, mass = on_grid(name)
    sample = np.asarray(p.sample(KEY, 4000, context))
    for feature in (0, 1):
        middle, cell = np.unique(y[:, feature], return_inverse=True)
        steps = np.bincount(cell, mass)
        between = np.cumsum(steps) - steps / 2
        marginal = sample[:, feature]
        assert (
            stats.kstest(marginal, lambda x, *f: np.interp(x, *f), (middle, between)).pvalue > 0.01
        )


def test_log_probs_are_those_of_scipy():
    x = np.asarray([-3.0, -1.0, -1e-3, 0.0, 0.5, 2.0, 3.1])
    p, _ = density("student", scale=0.0)
    np.testing.assert_allclose(p.log_prob(x[:, None]), stats.t(4).logpdf(x), rtol=1e-9)
    p, _ = density("learned angles", scale=0.0)
    np.testing.assert_allclose(p.log_prob(x[:, None]), stats.vonmises(2).logpdf(x), rtol=1e-9)
    np.testing.assert_allclose(
        p.log_prob(wrap_angles(x[:, None] + 4 * np.pi)), p.log_prob(x[:, None]), rtol=1e-9
    )
    assert np.isneginf(p.log_prob(x[:, None] + 4 * np.pi)).all()  # degrees, say
    p, _ = density("circle")
    np.testing.assert_allclose(p.log_prob(x[:, None]), -np.log(2 * np.pi), rtol=1e-9)
    p, _ = density("mixture", d=2)
    v = p.variables["params"]["base"]
    at = np.stack([x, x[::-1]], 1)
    weights = np.exp(v["logits"]) / np.exp(v["logits"]).sum()
    deviations = np.exp(5 * np.tanh(v["log_scales"] / 5))
    each = stats.norm(v["means"], deviations).pdf(at[:, None, ::-1]).prod(-1)
    np.testing.assert_allclose(p.log_prob(at), np.log(each @ weights), rtol=1e-9)
    box = jflow.Flow(jb.Permute((0, 1)), (2,), jflow.BoxUniform((0, -1), (0.5, 1)))
    np.testing.assert_allclose(Density(box, {}).log_prob(np.zeros(2)), 0, atol=1e-12)


@pytest.mark.parametrize("df", [1.5, 1e5])
def test_student_in_float32_is_accurate_for_many_degrees_of_freedom(df):
    flow = jflow.Flow(jb.Permute((0,)), (1,), jflow.StudentT(df, learned=False))
    x = np.asarray([[0.0], [1.0], [-30.0]], np.float32)
    log_prob = Density(flow, {}).log_prob(x)
    assert log_prob.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, stats.t(df).logpdf(x[:, 0]), rtol=1e-5)


@pytest.mark.parametrize("k", [0.05, 300.0])
def test_concentrations_small_and_large(k):
    flow = jflow.Flow(jb.Permute((0,)), (1,), jflow.VonMises(k))
    p = Density(flow, {})
    x = np.asarray([[0.0], [1e-3], [1.0], [-3.0]], np.float32)
    np.testing.assert_allclose(p.log_prob(x), stats.vonmises(k).logpdf(x[:, 0]), rtol=1e-5)
    sample = np.asarray(p.sample(KEY, 4000))
    assert (sample >= -np.pi).all()
    assert (sample < np.pi).all()
    assert stats.kstest(sample[:, 0], stats.vonmises(k).cdf).pvalue > 0.01


@pytest.mark.parametrize("name", ["mixture", "product"])
def test_parameters_learn_from_log_probs_and_from_samples(name):
    p, context = density(name, 2)
    y = normal(50, 2)

    def of_data(params):
        return Density(p.flow, {**p.variables, "params": params}).log_prob(y, context).mean()

    def of_samples(params):
        draws = Density(p.flow, {**p.variables, "params": params}).sample(KEY, 50, context)
        return (draws**2 + draws).mean()

    both = jax.jit(lambda params: (jax.grad(of_data)(params), jax.grad(of_samples)(params)))
    found = both(p.variables["params"])
    for gradients, without in zip(found, ((), ("logits",)), strict=True):
        gradient, _ = jax.tree_util.tree_flatten_with_path(gradients)
        for path, leaf in gradient:
            assert np.isfinite(leaf).all(), path
            assert (np.abs(leaf).max() > 0) == (path[-1].key not in without), path


@pytest.mark.parametrize("name", ["student", "learned angles"])
def test_gradients_through_samples_are_those_of_the_expectation(name):
    p, _ = density(name, scale=0.0)
    # Of E e^(-x^2), by quadrature and by samples.
    y, volume = grid(name, 1)

    def exactly(params):
        log_prob = Density(p.flow, {"params": params}).log_prob(y)
        return jnp.sum(jnp.exp(log_prob) * volume * jnp.exp(-(y[:, 0] ** 2)))

    def sampled(params):
        x = Density(p.flow, {"params": params}).sample(KEY, 20_000)
        return jnp.exp(-(x**2)).mean()

    both = jax.jit(lambda params: (jax.grad(exactly)(params), jax.grad(sampled)(params)))
    wanted, got = both(p.variables["params"])
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.1)


def test_fitting_heavy_tails_lowers_the_degrees_of_freedom():
    data = stats.t(2.0).rvs((2000, 1), random_state=0).astype(np.float32)
    flow = jflow.Flow(jb.Permute((0,)), (1,), jflow.StudentT(20.0))
    options = {"key": KEY, "steps": 150, "warmup_steps": 0, "learning_rate": 0.3}
    fitted, history = jflow.fit(flow, data, validation=None, progress=False, **options)
    df = 1 + np.log1p(np.exp(fitted.variables["params"]["base"]["df"]))
    assert df.dtype == np.float32
    assert 1.3 < float(df[0]) < 3.0
    assert len(history.rows) == 2


@pytest.mark.parametrize("name", ["learned angles", "product"])
def test_shapes_dtypes_and_transformations(name):
    p, single = density(name, 2, np.float32)
    context = None if single is None else normal(6, 2, dtype=np.float32)
    two_axes = None if context is None else context.reshape(2, 3, 2)
    axes = (0, None if context is None else 0)

    @jax.jit
    def run(p, y):
        mapped = jax.vmap(p.log_prob, axes)(y, context)
        square = p.log_prob(y.reshape(2, 3, 2), two_axes)
        gradient = jax.vmap(jax.grad(p.log_prob), axes)(y, context)
        return mapped, square, gradient

    @jax.jit
    def draw(key):
        alone = p.sample(key, (6,), context)
        return *p.sample_and_log_prob(key, (6,), context), alone

    drawn, log_prob, alone = draw(KEY)
    assert drawn.dtype == np.float64
    np.testing.assert_array_equal(drawn, alone)
    y = np.asarray(drawn, np.float32)
    wanted = np.asarray(p.log_prob(y, context))
    assert wanted.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(p.variables)} <= {jnp.dtype("float32")}
    np.testing.assert_allclose(log_prob, wanted, rtol=1e-4, atol=1e-5)
    mapped, square, gradient = run(p, y)
    np.testing.assert_allclose(mapped, wanted, rtol=1e-5)
    np.testing.assert_allclose(square, wanted.reshape(2, 3), rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["box", "angles", "product"])
def test_shapes_of_samples(name):
    p, single = density(name, 2)
    two_axes = None if single is None else jnp.ones((2, 3, 2))

    def run(key):
        return (
            p.sample(key, (), single),
            p.sample(key, (2, 3), single),
            p.sample(key, (2, 3), two_axes),
            p.sample(key, 0, single),
            jax.vmap(lambda key: p.sample(key, 2, single))(jax.random.split(key, 6)),
            p.log_prob(jnp.ones((0, 2)), single),
        )

    shapes = [array.shape for array in jax.eval_shape(run, KEY)]
    assert shapes == [(2,), (2, 3, 2), (2, 3, 2), (0, 2), (6, 2, 2), (0,)]


@pytest.mark.parametrize("name", ["mixture", "conditional", "angles"])
def test_events_of_any_shape(name):
    make, features, _ = BASES[name]
    flow = jflow.Flow(jb.Reverse(3), (2, 2, 1), make(1), features)
    context = None if features is None else np.ones((5, 2))
    p = Density(flow, jflow.init(flow, KEY, np.zeros((5, 2, 2, 1)), context))
    y, log_prob = p.sample_and_log_prob(KEY, 5, context)
    assert y.shape == (5, 2, 2, 1)
    assert log_prob.shape == (5,)


def test_the_base_depends_on_the_context_it_is_given():
    p, _ = density("conditional", 2)
    contexts = np.repeat([[2.0, 1.0], [-1.0, 3.0]], 2000, axis=0)
    y = np.asarray(p.sample(KEY, 4000, contexts))
    for rows in (slice(0, 2000), slice(2000, 4000)):
        mean = np.asarray(p.sample(KEY, (), contexts[rows][0], temperature=0.0))
        error = y[rows].std(0) / np.sqrt(2000)
        assert (np.abs(y[rows].mean(0) - mean) < 4 * error).all()
        assert (np.abs(mean) > 0.05).any()
    np.testing.assert_allclose(
        p.log_prob(y[:3], contexts[:3]), p.log_prob(y[:3], contexts[0]), rtol=1e-9
    )


def test_a_conditional_gaussian_starts_as_the_standard_normal():
    p, context = density("conditional", 2, scale=0.0)
    y = normal(5, 2)
    np.testing.assert_allclose(p.log_prob(y, context), stats.norm.logpdf(y).sum(1), rtol=1e-9)


@pytest.mark.parametrize(
    "base",
    [
        jflow.StandardUniform(),
        jflow.BoxUniform(0.0, 1.0),
        jflow.BoxUniform((0.0, 0.0), (1.0, 1.0)),
        jflow.Product((jflow.BoxUniform(), jflow.StudentT())),
    ],
)
def test_points_outside_the_support(base):
    flow = jflow.Flow(jb.Elementwise(jt.Affine()), (2,), base)
    p = Density(flow, jflow.init(flow, KEY, np.ones((3, 2))))
    y = np.asarray([[1.5, 0.5], [-1e30, 0.5], [-1e-9, 0.5], [0.3, 0.5]])

    def loss(params, y):
        return Density(flow, {"params": params}).log_prob(y)

    each = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, 0)))
    log_prob, gradients = jax.device_get(each(p.variables["params"], y))
    for values in (log_prob, np.asarray(p.log_prob(y))):
        assert np.isneginf(values[:3]).all()
        assert np.isfinite(values[3])
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf[:3], 0)
    assert np.abs(jax.tree.leaves(gradients[0])[0][3]).max() > 0


@pytest.mark.parametrize("name", BASES)
def test_nan_and_far_points(name):
    p, context = density(name, 2, np.float32)
    y = np.asarray([[0.1, np.nan], [1e6, 1e6], [1e25, 0]], np.float32)
    axes = (0, None)
    each = jax.jit(jax.vmap(jax.value_and_grad(p.log_prob), axes))
    value, gradient = jax.device_get(each(y, context))
    assert np.isnan(value).tolist() == [True, False, False]
    assert np.isfinite(gradient[1:]).all()


def test_sampling_stops_for_nan_concentrations():
    p, _ = density("learned angles")
    broken = Density(p.flow, jax.tree.map(lambda v: v * np.nan, p.variables))
    assert np.isnan(broken.sample(KEY, 3)).all()


def test_infinite_angles_are_no_points_of_the_circle():
    p, _ = density("angles")
    value, gradient = jax.jit(jax.value_and_grad(p.log_prob))(np.asarray([np.inf]))
    assert np.isneginf(value)
    np.testing.assert_array_equal(gradient, 0)


def test_student_far_out_in_float32():
    flow = jflow.Flow(jb.Reverse(), (1,), jflow.StudentT(2.0, learned=False))
    y = np.asarray([[0.0], [1e8], [3e19], [1e38]], np.float32)
    log_prob = Density(flow, {}).log_prob(y)
    np.testing.assert_allclose(log_prob, stats.t(2).logpdf(np.float64(y[:, 0])), rtol=1e-6)
    heavy = Density(jflow.Flow(jb.Reverse(), (1,), jflow.StudentT(0.05, learned=False)), {})
    assert not np.isnan(heavy.sample(KEY, 2000)).any()


def test_a_box_needs_a_width_in_its_dtype():
    for low, high in ((1e3, 1e3 + 1e-9), (-3e38, 3e38)):
        with pytest.raises(ValueError, match="high - low must be positive and finite in float32"):
            jflow.BoxUniform(low, high)((2,), jnp.float32)


def test_samples_of_a_box_stay_in_it():
    flow = jflow.Flow(jb.Permute((0, 1)), (2,), jflow.BoxUniform((-0.1, 1e3), (0.7, 1e3 + 1e-9)))
    _, log_prob = Density(flow, {}).sample_and_log_prob(KEY, 20_000)
    assert np.isfinite(log_prob).all()
    assert np.isfinite(Density(flow, {}).log_prob(Density(flow, {}).sample(KEY, 20_000))).all()


def test_a_product_of_groups():
    bases = (jflow.VonMises(1.0), jflow.StandardNormal(), jflow.ConditionalGaussian((4,)))
    flow = jflow.Flow(
        jb.Permute((0, 1, 2, 3)), (4,), jflow.Product(bases, (1, 2, 1)), context_shape=1
    )
    context = np.ones((7, 1))
    p = Density(flow, jflow.init(flow, KEY, np.ones((7, 4)), context))
    y = np.asarray(p.sample(KEY, 7, context))
    wanted = stats.vonmises(1).logpdf(y[:, 0]) + stats.norm.logpdf(y[:, 1:]).sum(1)
    np.testing.assert_allclose(p.log_prob(y, context), wanted, rtol=1e-9)
    assert set(p.variables["params"]["base"]) == {"bases_2"}


@pytest.mark.parametrize("name", LEARNED)
def test_save_and_load(name, tmp_path):
    p, context = density(name, 2, np.float32)
    p.save(tmp_path / "d")
    again = jflow.Flow(jb.Reverse(), (2,), BASES[name][0](2), context_shape=BASES[name][1])
    loaded = jflow.load(tmp_path / "d", flow=again)
    chex.assert_trees_all_equal(loaded.variables, p.variables)
    y = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(loaded.log_prob(y, context), p.log_prob(y, context))
    with pytest.raises(ValueError, match="does not fit the flow"):
        jflow.load(tmp_path / "d", flow=again.clone(base=jflow.GaussianMixture(5)))


@pytest.mark.parametrize("name", BASES)
def test_rebuilt_flows_are_equal_and_do_not_compile_again(name):
    p, context = density(name, 2)
    make, features, _ = BASES[name]
    again = jflow.Flow(jb.Reverse(), (2,), make(2), context_shape=features)
    assert again == p.flow
    assert hash(again) == hash(p.flow)
    assert again.clone() == p.flow
    assert again.clone(base=jflow.StandardUniform()) != p.flow

    traces = []

    @jax.jit
    def log_prob(density, y):
        traces.append(density)
        return density.log_prob(y, context)

    for each in (p, Density(again, p.variables)):
        jax.eval_shape(log_prob, each, np.zeros((2, 2)))  # what is not traced is not compiled
    assert len(traces) == 1


def test_one_base_may_serve_two_flows():
    base = jflow.StudentT()
    small, large = (jflow.Flow(jb.Reverse(), (d,), base) for d in (2, 3))
    for flow, d in ((small, 2), (large, 3)):
        variables = jax.jit(lambda key, flow=flow, d=d: jflow.init(flow, key, np.ones((4, d))))(KEY)
        assert variables["params"]["base"]["df"].shape == (d,)


def test_a_plain_callable_is_a_base_too():
    import distrax

    def laplace(event_shape, dtype):
        zeros = jnp.zeros(event_shape, dtype)
        return distrax.Independent(distrax.Laplace(zeros, zeros + 1), len(event_shape))

    for base in (laplace, jflow.Product((laplace, laplace))):
        flow = jflow.Flow(jb.Reverse(), (2,), base, context_shape=1, standardize_context=False)
        y = normal(3, 2)
        p = Density(flow, {})
        wanted = stats.laplace.logpdf(y).sum(1)
        np.testing.assert_allclose(p.log_prob(y, np.ones((3, 1))), wanted, rtol=1e-9)
        assert p.sample(KEY, 3, np.ones((3, 1))).shape == (3, 2)


def test_without_strict_modes_and_without_float64():
    jax.config.update("jax_enable_x64", False)
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            p, context = density.__wrapped__("product", 2, np.float32)  # not what is cached
            y, log_prob = p.sample_and_log_prob(KEY, 4, context)
            again = p.log_prob(y, context)
            assert {a.dtype for a in (y, log_prob, again)} == {jnp.dtype("float32")}
            np.testing.assert_allclose(log_prob, again, rtol=1e-4)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_conditional_base_needs_a_context():
    flow = jflow.Flow(jb.Reverse(), (2,), jflow.ConditionalGaussian())
    with pytest.raises(ValueError, match=r"ConditionalGaussian: context must be .*got None. Build"):
        jflow.init(flow, KEY, np.ones((3, 2)))
    flow = flow.clone(base=jflow.Product((jflow.StudentT(), jflow.ConditionalGaussian())))
    with pytest.raises(ValueError, match="ConditionalGaussian: context must be"):
        jflow.init(flow, KEY, np.ones((3, 2)))
    p, _ = density("conditional", 2)
    with pytest.raises(ValueError, match=r"context must be \(2,\) or \(4, 2\); got None"):
        p.sample(KEY, 4)
    with pytest.raises(ValueError, match=r"context must be \(2,\) or \(4, 2\); got \(3, 2\)"):
        p.sample_and_log_prob(KEY, 4, np.ones((3, 2)))


STUDENT = jflow.StudentT()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jflow.BoxUniform(1.0, 1.0), "low must be below high; got 1.0 and 1.0"),
        (lambda: jflow.BoxUniform(0.0, (1.0, np.inf)), "low must be below high; got 0.0 and inf"),
        (lambda: jflow.BoxUniform((0, 0), (1, 1, 1)), "low and high must have equal lengths"),
        (lambda: jflow.BoxUniform((0, 0))((3,), float), r"2 entries; the event shape is \(3,\)"),
        (lambda: jflow.StudentT(1.0), "df must be finite and above 1, or learned=False; got 1.0"),
        (lambda: jflow.StudentT(0.0, learned=False), "df must be finite and above 0; got 0.0"),
        (lambda: jflow.GaussianMixture(0), "components must be 1 or more; got 0"),
        (lambda: jflow.GaussianMixture(2, bound=0), "GaussianMixture: bound must be positive"),
        (lambda: jflow.ConditionalGaussian(bound=-1), "bound must be positive; got -1"),
        (lambda: jflow.VonMises(-1.0), "finite and not negative; got -1.0"),
        (lambda: jflow.VonMises(learned=True), "must start above 0; got None. Try"),
        (lambda: jflow.Product(()), "bases must hold one base or more"),
        (lambda: jflow.Product((STUDENT, STUDENT)), "one instance is given twice"),
        (lambda: jflow.Product((STUDENT,), (1, 2)), r"sizes must hold 1 positive .*got \(1, 2\)"),
        (lambda: jflow.Product((STUDENT,), (0,)), r"sizes must hold 1 positive .*got \(0,\)"),
        (
            lambda: jflow.Product((STUDENT,))((2,), float),
            r"Product: the event shape must be \(1,\).*got \(2,\)",
        ),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
