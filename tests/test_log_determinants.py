"""Estimators of traces and of log|det(I + J)|, without any flow."""

import math

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
    return scale * jax.random.normal(jax.random.key(key), (batch, size, size)) / math.sqrt(size)


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
    a = matrices() + 0.5 * jnp.eye(12)[None]
    like = jnp.zeros((3, 12))
    keys = jax.random.split(jax.random.key(1), 4000)
    found = jax.jit(jax.vmap(lambda key: TRACES[name](product(a), like, key)))(keys)
    mean, error = found.mean.mean(0), found.mean.std(0) / math.sqrt(len(keys))
    wanted = jnp.trace(a, axis1=1, axis2=2)
    assert np.all(np.abs(mean - wanted) < 4.5 * error)
    # What it says of its own error is about what it is: heuristic for xtrace.
    np.testing.assert_allclose(found.standard_error.mean(0), found.mean.std(0), rtol=0.25)


def test_exact_trace_and_enough_products():
    a, like = matrices(), jnp.zeros((3, 12))
    wanted = jnp.trace(a, axis1=1, axis2=2)
    np.testing.assert_allclose(jf.exact_trace(product(a), like), wanted, atol=1e-12)
    for estimate in (jf.hutch_pp, jf.xtrace):
        found = estimate(product(a), like, jax.random.key(0), products=12)
        np.testing.assert_allclose(found.mean, wanted, atol=1e-12)
        assert not found.standard_error.any()


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("name", ["hutch_pp", "xtrace"])
def test_sketches_of_low_rank_are_exact_and_never_nan(name, rank):
    left, right = jax.random.normal(jax.random.key(0), (2, 3, 12, rank))
    a = left @ right.mT
    estimate = lambda a: TRACES[name](product(a), jnp.zeros((3, 12)), jax.random.key(1))  # noqa: E731
    np.testing.assert_allclose(estimate(a).mean, jnp.trace(a, axis1=1, axis2=2), atol=1e-8)
    grad = jax.grad(lambda a: jnp.sum(estimate(a).mean))(a)
    assert np.isfinite(grad).all()


def test_estimates_of_traces_have_unbiased_gradients():
    a, like = matrices(6), jnp.zeros((3, 6))
    keys = jax.random.split(jax.random.key(1), 2000)
    for name in ("hutch_pp", "xtrace"):
        options = {"products": 4}
        value = lambda a, key, name=name, o=options: jnp.sum(  # noqa: E731
            getattr(jf, name)(product(a), like, key, **o).mean
        )
        grads = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(a, keys)
        error = grads.std(0) / math.sqrt(len(keys))
        assert np.all(np.abs(grads.mean(0) - jnp.eye(6)[None]) < 4.5 * error + 1e-9), name


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
    v = jnp.zeros(size).at[0].set(1.0)
    values = np.zeros(size)
    vector = np.zeros(size)

    @jax.jit
    def run(order, threshold):
        return estimator.series(lambda w: w[order], v, threshold, 1)

    tails = [survival(k) for k in range(last + 2)]
    for extra in range(last + 1):
        # N >= last counts as last: the terms up to 20 do not tell the difference.
        chance = tails[extra] - (tails[extra + 1] if extra < last else 0)
        between = jnp.asarray(0.5 * (math.log(tails[extra]) + math.log(tails[extra + 1])))
        for n in range(1, size):
            order = jnp.asarray([*np.roll(np.arange(n), 1), *range(n, size)])
            values[n] += chance * float(run(order, between)[0])
        vector += chance * np.asarray(run(jnp.roll(jnp.arange(size), 1), between)[1])
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

    count = np.asarray(jax.vmap(terms)(jax.random.split(jax.random.key(0), 40_000))) - 1
    np.testing.assert_allclose(count.mean(), stopping.mean, atol=4.5 * count.std() / 200)
    for k in (1, 3, 5):
        np.testing.assert_allclose((count >= k).mean(), survival(k), atol=4.5 / 400)


def contraction(kind, size, kappa):
    """g of Lipschitz constant kappa, its parameters and a point, in float32."""
    keys = jax.random.split(jax.random.key(size), 3)
    if kind == "dense":
        w = jnp.linalg.qr(jax.random.normal(keys[0], (size, size)))[0]
        params = {"w": (kappa * w).astype(jnp.float32), "b": jnp.zeros(size, jnp.float32)}
        function = lambda p, x: jnp.sin(x @ p["w"] + align(p["b"], x))  # noqa: E731
        return function, params, jax.random.normal(keys[1], (2, size), jnp.float32), 1
    side = {2: (1, 2), 16: (4, 4), 64: (8, 8)}[size]
    kernel = jax.random.normal(keys[0], (3, 3, 1, 1), jnp.float32)
    basis = jnp.eye(size, dtype=jnp.float32).reshape(size, *side, 1)
    norm = jnp.linalg.norm(conv2d(basis, kernel).reshape(size, size), 2)
    params = {"w": kappa / norm * kernel, "b": jnp.zeros(1, jnp.float32)}

    def function(p, x):
        return jnp.sin(conv2d(x, p["w"]) + align(p["b"], x))

    return function, params, jax.random.normal(keys[1], (2, *side, 1), jnp.float32), 3


def align(b, x):
    return b.reshape((1,) * (x.ndim - 1) + b.shape)


@pytest.mark.parametrize("kappa", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
@pytest.mark.parametrize(
    "size", [pytest.param(2), pytest.param(16), pytest.param(64, marks=pytest.mark.slow)]
)
def test_roulette_is_unbiased_in_value_and_gradients(kind, size, kappa):
    """20,000 draws in float32, within 4.5 standard errors; unequal cotangents; 5 directions."""
    function, params, x, ndim = contraction(kind, size, kappa)
    estimator = jf.RussianRoulette(jf.Geometric(0.97), 1)
    assert estimator.has_finite_variance(kappa)
    cotangent = jnp.asarray([1.0, -2.5], jnp.float32)
    exact = jf.ExactLogDet()

    def value(estimator, params, x, key):
        log_det = estimator.value_and_log_det(lambda x: function(params, x), x, key, ndim)[1]
        return jnp.sum(cotangent * log_det), log_det

    differentiate = jax.grad(value, argnums=(1, 2), has_aux=True)
    directions = [
        jax.tree.map(
            lambda leaf, i=i: jax.random.normal(jax.random.key(10 + i), leaf.shape, leaf.dtype),
            (params, x),
        )
        for i in range(5)
    ]

    def one(estimator, key):
        grads, log_det = differentiate(estimator, params, x, key)
        along = [
            sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), grads, direction)))
            for direction in directions
        ]
        return jnp.concatenate([log_det, jnp.stack(along)])

    # One key for each draw and each vector of the batch: many small batches at once.
    keys = jax.random.split(jax.random.key(3), 20_000).reshape(20, 1_000)
    draw = jax.jit(lambda keys: jax.vmap(lambda key: one(estimator, key))(keys))
    draws = np.concatenate([np.asarray(draw(k), np.float64) for k in keys])
    wanted = np.asarray(one(exact, None))
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - wanted) < 4.5 * error + 1e-5 * np.abs(wanted))


def test_truncation_is_within_its_bound():
    w = 0.8 * jnp.linalg.qr(jax.random.normal(jax.random.key(0), (4, 4)))[0]
    w = 0.5 * (w + 0.8 * jnp.eye(4))
    x, function = jnp.zeros((1, 4)), lambda x: x @ w
    exact = jf.ExactLogDet().value_and_log_det(function, x)[1]
    for terms in (1, 3, 6, 12):
        series = jf.PowerSeries(terms)
        found = jf.estimate_log_det(series, function, x, jax.random.key(0), replicates=4000)
        kappa = float(jnp.linalg.norm(w, 2))
        gap = np.abs(found.mean - exact)
        assert np.all(gap <= series.bias_bound(kappa, 4) + 4.5 * found.standard_error)
    # The bound is reached by -L times the identity.
    for terms in (1, 6):
        series = jf.PowerSeries(terms)
        found = series.value_and_log_det(lambda x: -0.9 * x, x, jax.random.key(0))[1]
        wanted = 4 * math.log(0.1) + series.bias_bound(0.9, 4)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_exact_in_all_sizes():
    for size in (1, 2, 3, 6):
        a = matrices(size)
        function = lambda x, a=a: jnp.einsum("bij,bj->bi", a, jnp.tanh(x))  # noqa: E731
        y, log_det = jf.ExactLogDet(chunk=5).value_and_log_det(function, jnp.zeros((3, size)))
        wanted = jnp.linalg.slogdet(jnp.eye(size)[None] + a)[1]
        np.testing.assert_allclose(log_det, wanted, atol=1e-12)
        assert y.shape == (3, size)
    with pytest.raises(ValueError, match="max_features=4"):
        jf.ExactLogDet(max_features=4).value_and_log_det(function, jnp.zeros((3, 6)))


def test_memory_does_not_grow_with_terms():
    w = 0.1 * jax.random.normal(jax.random.key(0), (64, 64), jnp.float32)
    x = jnp.ones((128, 64), jnp.float32)

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
