"""Transformers with extreme parameters, in float32, and the worked cases of the textbook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow import transformers as jt
from jflow.functional import splines
from jflow.functional.roots import invert_increasing

ON_LINE = [
    jt.Affine(),
    jt.LinearSpline(),
    jt.QuadraticSpline(),
    jt.CubicSpline(),
    jt.RationalQuadraticSpline(),
    jt.LogisticMixture(),
    jt.NonlinearSquared(),
    jt.BernsteinPolynomial(),
    jt.DeepSigmoid(),
    jt.SumOfSquares(),
    jt.UnconstrainedMonotonic(),
]
ON_UNIT = [
    jt.LinearSpline(tails=None),
    jt.QuadraticSpline(tails=None),
    jt.CubicSpline(tails=None),
    jt.RationalQuadraticSpline(tails=None),
    jt.BernsteinPolynomial(tails=None),
]
SPLINES = [t for t in (*ON_LINE, *ON_UNIT) if "Spline" in type(t).__name__]
# So steep at large parameters that x itself, in float32, is too coarse for y to come back to 1e-5.
STEEP = (jt.DeepSigmoid, jt.UnconstrainedMonotonic)
KEY = jax.random.key(0)
names = lambda t: f"{type(t).__name__}-{'unit' if t.domain[0] == 0 else 'line'}"  # noqa: E731


def params_of(transformer, count, scale=20.0):
    """Parameters up to +-scale, in float32."""
    shape = (count, transformer.num_params)
    return jax.random.uniform(KEY, shape, jnp.float32, -scale, scale)


def points_of(transformer, count):
    """Points of the domain: its middle, its edges, and far out on the line."""
    x = jax.random.uniform(jax.random.key(1), (count,), jnp.float32)
    if transformer.domain[0] == 0:
        return jnp.concatenate([x, jnp.asarray([0.0, 1.0, 0.5, 1e-7, 1 - 1e-7], jnp.float32)])
    special = [0.0, 5.0, -5.0, 50.0, -50.0, 1e6, -1e6, 4.999999, -4.999999]
    return jnp.concatenate([12 * x - 6, jnp.asarray(special, jnp.float32)])


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
@pytest.mark.parametrize("method", ["forward_and_log_det", "inverse_and_log_det"])
def test_finite_values_and_gradients_at_any_logits(transformer, method):
    x = points_of(transformer, 2000)
    params = params_of(transformer, len(x))

    def loss(x, params):
        y, log_det = getattr(transformer, method)(x, params)
        return jnp.sum(y * 1e-6) + jnp.sum(log_det), (y, log_det)

    grads, results = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, params)
    for value in (*grads, *results):
        assert np.isfinite(value).all()


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_honest_round_trip_at_steep_parameters(transformer):
    """|f(f^-1(y)) - y| <= 1e-5, and |x error| <= 8 ulp / f'(x), of the interval's own size."""
    x = points_of(transformer, 2000)
    x = x[jnp.abs(x) < 50]
    params = params_of(transformer, len(x), scale=1.0 if isinstance(transformer, STEEP) else 5.0)
    y, log_det = transformer.forward_and_log_det(x, params)
    again, _ = transformer.inverse_and_log_det(y, params)
    back, log_det_there = transformer.forward_and_log_det(again, params)
    np.testing.assert_allclose(back, y, rtol=1e-5, atol=1e-5)
    size = 1.0 if transformer.domain[0] == 0 else 10.0
    ulp = np.spacing(np.float32(size) + np.abs(y))
    # At a knot between a steep and a flat bin, a rounded y may belong to the other one.
    slope = np.exp(np.minimum(log_det, log_det_there).astype(np.float64))
    assert (np.abs(again - x) <= 8 * ulp / slope + 8 * np.spacing(np.float32(size))).all()


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_log_det_is_the_slope_in_float64(transformer):
    x = points_of(transformer, 200).astype(jnp.float64)
    params = params_of(transformer, len(x), scale=8.0).astype(jnp.float64)
    value = lambda x, p: transformer.forward_and_log_det(x, p)[0]  # noqa: E731
    slope = jax.vmap(jax.grad(value))(x, params)
    _, log_det = transformer.forward_and_log_det(x, params)
    # Edges belong to two pieces; a derivative taken there may be either's.
    inner = (jnp.abs(x - 0.5) < 0.49) if transformer.domain[0] == 0 else jnp.abs(x) != 5
    np.testing.assert_allclose(jnp.log(slope)[inner], log_det[inner], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_log_det_in_float32_is_that_of_float64(transformer):
    x = points_of(transformer, 500)
    params = params_of(transformer, len(x), scale=1.0)
    _, log_det = transformer.forward_and_log_det(x, params)
    _, wanted = transformer.forward_and_log_det(x.astype(float), params.astype(float))
    np.testing.assert_allclose(log_det, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("transformer", SPLINES, ids=names)
def test_gradients_by_parameters_agree_with_differences(transformer):
    x = points_of(transformer, 50).astype(jnp.float64)[:50]
    params = params_of(transformer, 50, scale=1.0).astype(jnp.float64)
    step = jax.random.normal(jax.random.key(2), params.shape, jnp.float64)

    for method in ("forward_and_log_det", "inverse_and_log_det"):

        def loss(t, method=method):
            y, log_det = getattr(transformer, method)(x, params + t * step)
            return jnp.sum(jnp.sin(y)) + jnp.sum(log_det * jnp.linspace(0.5, 1, 50))

        wanted = (loss(1e-6) - loss(-1e-6)) / 2e-6
        np.testing.assert_allclose(jax.jacfwd(loss)(0.0), wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(jax.jacrev(loss)(0.0), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("transformer", SPLINES, ids=names)
def test_zero_parameters_are_the_identity(transformer):
    x = points_of(transformer, 100).astype(jnp.float64)
    y, log_det = transformer.forward_and_log_det(x, jnp.zeros((len(x), transformer.num_params)))
    np.testing.assert_allclose(y, x, atol=1e-12)
    np.testing.assert_allclose(log_det, 0, atol=1e-12)


@pytest.mark.parametrize("transformer", SPLINES, ids=names)
@pytest.mark.parametrize("method", ["forward_and_log_det", "inverse_and_log_det"])
def test_slope_at_knots_is_not_halved(transformer, method):
    x = jnp.asarray([0.0, 0.5, 1.0] if transformer.domain[0] == 0 else [0.0, 1.25, -2.5])
    params = jnp.zeros((3, transformer.num_params))
    slope = jax.grad(lambda x: getattr(transformer, method)(x, params)[0].sum())(x)
    np.testing.assert_allclose(slope, 1, atol=1e-9)


@pytest.mark.parametrize("transformer", [t for t in ON_LINE if t in SPLINES], ids=names)
def test_identity_outside_of_the_interval_with_gradient_one(transformer):
    x = jnp.asarray([5.0, -5.0, 5.5, -70.0, 1e6], jnp.float32)
    params = params_of(transformer, 5)
    y, log_det = transformer.forward_and_log_det(x, params)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_det, 0)
    slope = jax.grad(lambda x: transformer.inverse_and_log_det(x, params)[0].sum())(x)
    np.testing.assert_array_equal(slope, 1)


@pytest.mark.parametrize("transformer", ON_UNIT, ids=names)
def test_outside_of_the_unit_interval(transformer):
    x = jnp.asarray([-0.1, 1.1, 0.0, 1.0, jnp.nan], jnp.float32)
    y, log_det = transformer.inverse_and_log_det(x, params_of(transformer, 5, 1.0))
    assert np.isneginf(log_det[:2]).all()
    assert np.isfinite(y[:4]).all()
    assert np.isfinite(log_det[2:4]).all()
    assert np.isnan(y[4])
    np.testing.assert_allclose(y[2:4], [0, 1], atol=1e-6)


PHI = jnp.asarray([0.1, 0.2, 0.5, 0.1, 0.1])


def test_linear_spline_of_the_textbook():
    # Eq. 16.12 with K = 5: f(0.3) = phi_1 + (1.5 - 1) phi_2; f(0.5) = phi_1 + phi_2 + phi_3 / 2.
    x = jnp.asarray([0.0, 0.2, 0.3, 0.5, 0.9, 1.0])
    y, log_det = splines.linear(x, PHI)
    np.testing.assert_allclose(y, [0, 0.1, 0.2, 0.55, 0.95, 1], atol=1e-12)
    np.testing.assert_allclose(jnp.exp(log_det), [0.5, 1, 1, 2.5, 0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(splines.linear_inverse(y, PHI)[0], x, atol=1e-12)


def test_square_root_bins_of_the_textbook():
    # Problem 16.9 with the same phi.
    roots = np.sqrt(np.asarray(PHI))
    x = jnp.asarray([0.0, 0.25, 0.5, 0.7, 1.0])
    y, log_det = splines.square_root(x, PHI)
    wanted = [
        0,
        roots[0] + np.sqrt(0.25 * 0.2),
        roots[:2].sum() + np.sqrt(0.5 * 0.5),
        roots[:3].sum() + np.sqrt(0.5 * 0.1),
        roots.sum(),
    ]
    np.testing.assert_allclose(y, wanted, atol=1e-12)
    again, opposite = splines.square_root_inverse(y, PHI)
    np.testing.assert_allclose(again, x, atol=1e-12)
    inner = slice(1, 4)
    np.testing.assert_allclose(opposite[inner], -log_det[inner], atol=1e-9)
    slope = jax.vmap(jax.grad(lambda x: splines.square_root(x, PHI)[0]))(x[inner])
    np.testing.assert_allclose(jnp.log(slope), log_det[inner], atol=1e-9)


def test_square_root_bins_beyond_their_range():
    t = jt.SquareRootBins(bins=5)
    y = jnp.asarray([2.0, 2.2, 2.3])  # codomain for equal shares: [0, sqrt(5)] = [0, 2.236]
    log_det = t.inverse_and_log_det(y, jnp.zeros((3, 5)))[1]
    np.testing.assert_array_equal(np.isneginf(log_det), [False, False, True])
    skewed = t.inverse_and_log_det(y, 3 * jnp.eye(5)[:3])[1]
    assert np.isneginf(skewed).all()


def test_square_root_bins_have_second_derivatives_everywhere():
    t, params = jt.SquareRootBins(bins=8), jnp.zeros(8, jnp.float32)
    for method in ("forward_and_log_det", "inverse_and_log_det"):
        second = jax.grad(jax.grad(lambda x, m=method: getattr(t, m)(x, params)[1]))
        ends = jnp.asarray([0.0, 0.125, 0.5, 1.0, 8**0.5], jnp.float32)
        assert np.isfinite(jax.jit(jax.vmap(second))(ends)).all()
    one = jt.SquareRootBins(bins=1)
    slope = jax.grad(lambda y: one.inverse_and_log_det(y, params[:1])[0])
    np.testing.assert_allclose(slope(jnp.float32(1.0)), 2)


@pytest.mark.parametrize("transformer", [jt.Softplus(), jt.Exp(), jt.Power(-1.5)])
def test_denormal_numbers_at_an_open_end_are_outside(transformer):
    y = jnp.asarray([1e-40, 0.0, 2e-38], jnp.float32)
    run = lambda y: transformer.inverse_and_log_det(y, jnp.zeros((3, 0), jnp.float32))  # noqa: E731
    for x, log_det in (run(y), jax.jit(run)(y)):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(np.isneginf(log_det), [True, True, False])


def test_circle():
    spline, shift = jt.CircularSpline(bins=5), jt.CircularShift()
    params = jax.random.normal(KEY, (1, spline.num_params))
    ends = jnp.asarray([-jnp.pi, jnp.pi])
    slopes = spline.forward_and_log_det(ends, jnp.broadcast_to(params, (2, spline.num_params)))[1]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-9)
    x = jnp.asarray([0.3, 0.3 + 2 * jnp.pi, 0.3 - 6 * jnp.pi])
    y, _ = spline.forward_and_log_det(x, jnp.broadcast_to(params, (3, spline.num_params)))
    np.testing.assert_allclose(y, y[0], atol=1e-9)
    moved, log_det = shift.forward_and_log_det(jnp.asarray([3.0]), jnp.asarray([[1.0]]))
    np.testing.assert_allclose(moved, 4 - 2 * np.pi)
    np.testing.assert_array_equal(log_det, 0)
    slope = jax.grad(lambda x: spline.forward_and_log_det(x, jnp.zeros(params.shape[1]))[0])
    np.testing.assert_allclose(slope(-jnp.pi), 1, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jt.LinearSpline(bins=1), "LinearSpline: bins must be 2 or more; got 1"),
        (lambda: jt.RationalQuadraticSpline(bins=8, minimum=0.2), r"in \(0, 1 / bins\); got 0.2"),
        (lambda: jt.RationalQuadraticSpline(min_slope=2.0), r"min_slope must be in \(0, 1\)"),
        (lambda: jt.CubicSpline(bound=-1.0), "bound must be positive and finite; got -1.0"),
        (lambda: jt.QuadraticSpline(tails="flat"), "tails must be 'linear' or None; got 'flat'"),
        (lambda: jt.LogisticMixture(components=0), "components must be 1 or more; got 0"),
        (lambda: jt.BernsteinPolynomial(degree=3), "degree must be 4 or more, 100 at most .*got 3"),
        (lambda: jt.NonlinearSquared(bound=0.0), "bound must be positive; got 0.0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_implicit_derivatives_of_a_numerical_inverse():
    # x^3 + a x = y; both derivatives in closed form, and of second order.
    def cube(a, x):
        return x**3 + a * x, jnp.log(3 * x**2 + a)

    a, y = jnp.asarray(2.0), jnp.asarray(5.0)
    inverse = lambda a, y: invert_increasing(cube, a, y, jnp.asarray(-9.0), jnp.asarray(9.0))[0]  # noqa: E731
    x = inverse(a, y)
    np.testing.assert_allclose(x**3 + a * x, y, rtol=1e-14)
    slope = 1 / (3 * x**2 + a)
    np.testing.assert_allclose(jax.grad(inverse, 1)(a, y), slope, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(inverse)(a, y), -x * slope, rtol=1e-13)
    np.testing.assert_allclose(
        jax.grad(jax.grad(inverse, 1), 1)(a, y), -6 * x * slope**3, rtol=1e-12
    )
