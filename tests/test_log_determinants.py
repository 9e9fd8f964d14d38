"""Estimators of traces and of log|det(I + J)|, without any flow."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jflow import functional as jf
from jflow.functional.convolution import conv2d

LAWS = {
    "geometric": (jf.Geometric(0.6), lambda k: 0.6**k),
    "poisson": (jf.Poisson(2.0), lambda k: float(stats.poisson.sf(k - 1, 2.0))),
    "logarithmic": (jf.Logarithmic(0.9), lambda k: 0.9**k / (k + 1)),
}


def matrices(size=12, batch=3, scale=0.4, key=0):
    normal = jax.random.normal(jax.random.key(key), (batch, size, size))
    return scale * np.asarray(normal) / math.sqrt(size)


def product(a):
    return lambda v: jnp.einsum("bij,bj->bi", a, v)


TRACES = {
    "rademacher": lambda *a: jf.hutchinson(*a, probes=4),
    "gaussian": lambda *a: jf.hutchinson(*a, probes=4, distribution="gaussian"),
    "spherical": lambda *a: jf.hutchinson(*a, probes=4, distribution="spherical"),
    "hutch_pp": lambda *a: jf.hutch_pp(*a, products=6),
    "xtrace": lambda *a: jf.xtrace(*a, products=6),
}


@pytest.mark.parametrize("name", TRACES)
def test_traces_are_unbiased(name):
    # With the identity in it, so that what is left of the trace off a sketch is not small.
    a = matrices() + 0.5 * np.eye(12)
    like = np.zeros((3, 12))
    keys = jax.random.split(jax.random.key(1), 4000)
    run = jax.jit(jax.vmap(lambda key: TRACES[name](product(a), like, key)))
    found = jax.device_get(run(keys))
    mean, error = found.mean.mean(0), found.mean.std(0) / math.sqrt(len(keys))
    wanted = np.trace(a, axis1=1, axis2=2)
    assert np.all(np.abs(mean - wanted) < 4.5 * error)
    # What it says of its own error is about what it is: heuristic for xtrace.
    np.testing.assert_allclose(found.standard_error.mean(0), found.mean.std(0), rtol=0.25)


@pytest.mark.parametrize("name", ["hutchinson", "hutch_pp", "xtrace"])
def test_programs_do_not_grow_with_the_number_of_probes(name):
    def size(count):
        options = {"probes" if name == "hutchinson" else "products": count}
        run = lambda x, key: getattr(jf, name)(jnp.sin, x, key, **options)  # noqa: E731
        return len(jax.jit(run).lower(np.ones((2, 500)), jax.random.key(0)).as_text().splitlines())

    assert size(100) == size(400)


def test_exact_trace_and_enough_products():
    a, like = matrices(), np.zeros((3, 12))
    wanted = np.trace(a, axis1=1, axis2=2)
    exact = jax.jit(lambda a: jf.exact_trace(product(a), like))
    np.testing.assert_allclose(exact(a), wanted, atol=1e-12)
    for estimate in (jf.hutch_pp, jf.xtrace):
        run = lambda a, e=estimate: e(product(a), like, jax.random.key(0), products=12)  # noqa: E731
        found = jax.device_get(jax.jit(run)(a))
        np.testing.assert_allclose(found.mean, wanted, atol=1e-12)
        assert not found.standard_error.any()


@partial(jax.jit, static_argnums=0)
def trace_and_gradient(name, a):
    def estimate(a):
        mean = TRACES[name](product(a), jnp.zeros((3, 12)), jax.random.key(1)).mean
        return jnp.sum(mean), mean

    return jax.grad(estimate, has_aux=True)(a)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("name", ["hutch_pp", "xtrace"])
def test_sketches_of_low_rank_are_exact_and_never_nan(name, rank):
    left, right = np.random.default_rng(0).standard_normal((2, 3, 12, rank))
    a = left @ right.mT
    grad, mean = trace_and_gradient(name, a)
    np.testing.assert_allclose(mean, np.trace(a, axis1=1, axis2=2), atol=1e-8)
    assert np.isfinite(grad).all()


def test_estimates_of_traces_have_unbiased_gradients():
    a, like = matrices(6), np.zeros((3, 6))
    keys = jax.random.split(jax.random.key(1), 2000)
    for name in ("hutch_pp", "xtrace"):
        options = {"products": 4}
        value = lambda a, key, name=name, o=options: jnp.sum(  # noqa: E731
            getattr(jf, name)(product(a), like, key, **o).mean
        )
        grads = np.asarray(jax.jit(jax.vmap(jax.grad(value), (None, 0)))(a, keys))
        error = grads.std(0) / math.sqrt(len(keys))
        assert np.all(np.abs(grads.mean(0) - np.eye(6)) < 4.5 * error + 1e-9), name


@pytest.mark.parametrize(
    "estimator",
    [jf.ExactTrace(), jf.Hutchinson(), jf.Hutchinson(3, "gaussian"), jf.HutchPP(6), jf.XTrace(6)],
    ids=repr,
)
def test_estimators_of_traces(estimator):
    """Of images, too; the same key gives the same function of x."""
    x = np.random.default_rng(0).standard_normal((2, 2, 2, 2))
    w = 0.3 * np.random.default_rng(1).standard_normal((8, 8))
    function = lambda x: jnp.tanh(jnp.reshape(x, (2, 8)) @ w).reshape(x.shape)  # noqa: E731
    exact = jf.ExactTrace().value_and_trace(function, x, event_ndim=3)[1]
    slopes = 1 - np.tanh(x.reshape(2, 8) @ w) ** 2
    np.testing.assert_allclose(exact, slopes @ np.diag(w), atol=1e-12)
    run = jax.jit(lambda key: estimator.value_and_trace(function, x, key, 3))
    values, traces = jax.vmap(run)(jax.random.split(jax.random.key(1), 1000))
    np.testing.assert_allclose(values[0], function(x), atol=1e-12)
    error = np.std(traces, axis=0) / math.sqrt(1000)
    assert np.all(np.abs(np.mean(traces, axis=0) - exact) < 4.5 * error + 1e-12)
    np.testing.assert_array_equal(run(jax.random.key(3))[1], run(jax.random.key(3))[1])
    assert estimator.needs_key == (estimator.kind != "exact")
    assert estimator.with_terms(3) == estimator


@pytest.mark.parametrize("exact_terms", [0, 2])
@pytest.mark.parametrize("law", LAWS)
def test_weights_are_exact(law, exact_terms):
    """The mean coefficient of tr(J^k), enumerated over the stopping law, is (-1)^(k+1) / k.

    Coefficients are read off the running program. With J a cyclic shift of n elements and v a unit
    vector, v^T J^k v is 1 where n divides k and 0 elsewhere, so the value is c_n + c_2n + ...
    """
    stopping, survival = LAWS[law]
    estimator = jf.RussianRoulette(stopping, exact_terms)
    last, size = 22, exact_terms + 23
    v = np.eye(size)[0]
    values = np.zeros(size)
    vector = np.zeros(size)

    @jax.jit
    def run(order, threshold):
        return estimator.series(lambda w: w[order], v, threshold, 1)

    tails = [survival(k) for k in range(last + 2)]
    for extra in range(last + 1):
        # N >= last counts as last: the terms up to 20 do not tell the difference.
        chance = tails[extra] - (tails[extra + 1] if extra < last else 0)
        between = 0.5 * (math.log(tails[extra]) + math.log(tails[extra + 1]))
        for n in range(1, size):
            order = np.asarray([*np.roll(np.arange(n), 1), *range(n, size)])
            values[n] += chance * float(run(order, between)[0])
        vector += chance * np.asarray(run(np.roll(np.arange(size), 1), between)[1])
    coefficients = values
    for n in range(size - 1, 0, -1):
        coefficients[n] -= sum(coefficients[k] for k in range(2 * n, size, n))
    k = np.arange(1, 21)
    sign = np.where(k % 2 == 1, 1.0, -1.0)
    np.testing.assert_allclose(coefficients[1:21], sign / k, rtol=0, atol=1e-6)
    np.testing.assert_allclose(vector[1:21], -sign, rtol=0, atol=1e-6)
    assert vector[0] == pytest.approx(1.0)


@pytest.mark.parametrize("law", LAWS)
def test_laws_are_drawn_as_they_say(law):
    stopping, survival = LAWS[law]
    estimator = jf.RussianRoulette(stopping, 0)
    # With J = I and D = 1, the vector's length says how many terms there were.
    from jflow.functional.series import _log_uniform

    def terms(key):
        threshold = _log_uniform(key, jnp.dtype("float64"))
        return jax.lax.while_loop(
            lambda k: estimator.goes_on(k, threshold), lambda k: k + 1, jnp.asarray(1)
        )

    keys = jax.random.split(jax.random.key(0), 40_000)
    count = np.asarray(jax.jit(jax.vmap(terms))(keys)) - 1
    np.testing.assert_allclose(count.mean(), stopping.mean, atol=4.5 * count.std() / 200)
    for k in (1, 3, 5):
        np.testing.assert_allclose((count >= k).mean(), survival(k), atol=4.5 / 400)


def dense(p, x):
    return jnp.sin(x @ p["w"] + align(p["b"], x))


def convolution(p, x):
    return jnp.sin(conv2d(x, p["w"]) + align(p["b"], x))


def align(b, x):
    return b.reshape((1,) * (x.ndim - 1) + b.shape)


def contraction(kind, size, kappa):
    """g of Lipschitz constant kappa, its parameters and a point, in float32."""
    random = np.random.default_rng(size)
    if kind == "dense":
        w = kappa * np.linalg.qr(random.standard_normal((size, size)))[0]
        function, shape, bias = dense, (size,), size
    else:
        side = {2: (1, 2), 16: (4, 4), 64: (8, 8)}[size]
        kernel, basis = random.standard_normal((3, 3, 1, 1)), np.eye(size).reshape(size, *side, 1)
        matrix = np.asarray(jax.jit(conv2d)(basis, kernel)).reshape(size, size)
        w = kappa / np.linalg.norm(matrix, 2) * kernel
        function, shape, bias = convolution, (*side, 1), 1
    params = {"w": w.astype(np.float32), "b": np.zeros(bias, np.float32)}
    return function, params, random.standard_normal((2, *shape)).astype(np.float32)


# The draws take six times as long without any optimisation.
@partial(jax.jit, static_argnums=(0, 1), compiler_options={"xla_backend_optimization_level": 1})
def log_dets_and_derivatives(function, estimator, params, x, directions, keys):
    """For each key the log_dets, and their weighted sum's derivatives along directions."""
    cotangent = jnp.asarray([1.0, -2.5], jnp.float32)

    def value(params, x, key):
        log_det = estimator.value_and_log_det(lambda x: function(params, x), x, key, x.ndim - 1)[1]
        return jnp.sum(cotangent * log_det), log_det

    def one(key):
        grads, log_det = jax.grad(value, argnums=(0, 1), has_aux=True)(params, x, key)
        along = [
            sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), grads, direction)))
            for direction in directions
        ]
        return jnp.concatenate([log_det, jnp.stack(along)])

    return jax.vmap(one)(keys)


@pytest.mark.parametrize("kappa", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
@pytest.mark.parametrize(
    "size", [pytest.param(2), pytest.param(16), pytest.param(64, marks=pytest.mark.slow)]
)
def test_roulette_is_unbiased_in_value_and_gradients(kind, size, kappa):
    """20,000 draws in float32, within 4.5 standard errors; unequal cotangents; 5 directions."""
    function, params, x = contraction(kind, size, kappa)
    estimator = jf.RussianRoulette(jf.Geometric(0.97), 1)
    assert estimator.has_finite_variance(kappa)
    random = np.random.default_rng(10)
    draw = lambda leaf: random.standard_normal(leaf.shape).astype(leaf.dtype)  # noqa: E731
    directions = [jax.tree.map(draw, (params, x)) for _ in range(5)]
    run = lambda estimator, keys: np.asarray(  # noqa: E731
        log_dets_and_derivatives(function, estimator, params, x, directions, keys), np.float64
    )
    # One key for each draw and each vector of the batch: many small batches at once.
    keys = jax.random.split(jax.random.key(3), 20_000).reshape(20, 1_000)
    draws = np.concatenate([run(estimator, k) for k in keys])
    wanted = run(jf.ExactLogDet(), keys[0, :1])[0]
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - wanted) < 4.5 * error + 1e-5 * np.abs(wanted))


def test_truncation_is_within_its_bound():
    w = 0.8 * np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    w = 0.5 * (w + 0.8 * np.eye(4))
    x, function = np.zeros((1, 4)), lambda x: x @ w
    exact = np.linalg.slogdet(np.eye(4) + w)[1]
    key, kappa = jax.random.key(0), float(np.linalg.norm(w, 2))
    for terms in (1, 3, 6, 12):
        series = jf.PowerSeries(terms)
        found = jax.device_get(
            jax.jit(lambda x, s=series: jf.estimate_log_det(s, function, x, key, replicates=4000))(
                x
            )
        )
        gap = np.abs(found.mean - exact)
        assert np.all(gap <= series.bias_bound(kappa, 4) + 4.5 * found.standard_error)
    # The bound is reached by -L times the identity.
    for terms in (1, 6):
        series = jf.PowerSeries(terms)
        run = jax.jit(lambda x, s=series: s.value_and_log_det(lambda x: -0.9 * x, x, key)[1])
        wanted = 4 * math.log(0.1) + series.bias_bound(0.9, 4)
        np.testing.assert_allclose(run(x), wanted, rtol=1e-12)


def test_exact_in_all_sizes():
    for size in (1, 2, 3, 6):
        a = matrices(size)
        function = lambda x, a=a: jnp.einsum("bij,bj->bi", a, jnp.tanh(x))  # noqa: E731
        run = lambda x, f=function: jf.ExactLogDet(chunk=5).value_and_log_det(f, x)  # noqa: E731
        y, log_det = jax.jit(run)(np.zeros((3, size)))
        np.testing.assert_allclose(log_det, np.linalg.slogdet(np.eye(size) + a)[1], atol=1e-12)
        assert y.shape == (3, size)
    with pytest.raises(ValueError, match="max_features=4"):
        jf.ExactLogDet(max_features=4).value_and_log_det(function, jnp.zeros((3, 6)))


def test_memory_does_not_grow_with_terms():
    w = (0.1 * np.random.default_rng(0).standard_normal((64, 64))).astype(np.float32)
    x = np.ones((128, 64), np.float32)

    def temporary(terms):
        def loss(w):
            y, log_det = jf.PowerSeries(terms).value_and_log_det(
                lambda x: jnp.tanh(x @ w), x, jax.random.key(0)
            )
            return jnp.sum(y) + jnp.sum(log_det)

        return jax.jit(jax.grad(loss)).lower(w).compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) <= 1.15 * temporary(4)


def test_what_they_say_of_their_variance():
    assert jf.RussianRoulette(jf.Geometric(0.9)).has_finite_variance(0.9)
    assert not jf.RussianRoulette(jf.Geometric(0.8)).has_finite_variance(0.9)
    assert jf.RussianRoulette().has_finite_variance(0.98)
    assert not jf.RussianRoulette(jf.Poisson(5.0)).has_finite_variance(0.1)
    assert jf.RussianRoulette(jf.Poisson(5.0)).has_finite_variance(0.0)
    assert jf.PowerSeries(3).has_finite_variance(0.99)


@pytest.mark.parametrize(
    "call",
    [
        lambda: jf.Geometric(1.0),
        lambda: jf.Logarithmic(0.0),
        lambda: jf.Poisson(-1.0),
        lambda: jf.PowerSeries(0),
        lambda: jf.RussianRoulette(exact_terms=-1),
        lambda: jf.RussianRoulette(distribution="cauchy"),
        lambda: jf.PowerSeries(distribution="cauchy"),
        lambda: jf.ExactLogDet(0),
        lambda: jf.Hutchinson(0),
        lambda: jf.Hutchinson(distribution="cauchy"),
        lambda: jf.HutchPP(2),
        lambda: jf.XTrace(1),
        lambda: jf.XTrace().value_and_trace(jnp.tanh, jnp.zeros((1, 2))),
        lambda: jf.PowerSeries().value_and_log_det(jnp.tanh, jnp.zeros((1, 2))),
        lambda: jf.hutchinson(jnp.sin, jnp.zeros(2), jax.random.key(0), distribution="cauchy"),
        lambda: jf.hutch_pp(jnp.sin, jnp.zeros(9), jax.random.key(0), products=2),
        lambda: jf.xtrace(jnp.sin, jnp.zeros(9), jax.random.key(0), products=1),
        lambda: jf.invert_residual(lambda p, x: x, None, jnp.zeros(2), lipschitz=1.0),
        lambda: jf.invert_residual(lambda p, x: x, None, jnp.zeros(2), lipschitz=0.5, norm=0.5),
        lambda: jf.invert_residual(
            lambda p, x: x, None, jnp.zeros(2), lipschitz=0.5, tolerance=0.0
        ),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ValueError, match=r"must be|key|Bijector|in \(0, 1\)"):
        call()


def test_the_law_must_be_one():
    with pytest.raises(TypeError, match="stopping must be a law"):
        jf.RussianRoulette("geometric")
