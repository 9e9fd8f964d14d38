"""Transformers: their contract, extreme parameters, and the worked cases of the textbook."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow import testing
from jflow import transformers as jt
from jflow.functional import rational_quadratic, splines
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
# Without a row above, since parameters are few or none, or their number line is a circle.
OTHERS = [
    jt.Shift(),
    jt.SoftplusAffine(),
    jt.SinhArcsinh(),
    jt.CircularSpline(bins=5),
    jt.CircularShift(),
    jt.SquareRootBins(),
    jt.Inverted(jt.SumOfSquares()),
    jt.FixedAffine(shift=2.0, scale=-3.0),
    jt.LeakyReLU(),
    jt.Tanh(),
    jt.Sigmoid(),
    jt.Sigmoid(alpha=0.05),
    jt.Logit(),
    jt.Logit(alpha=0.05),
    jt.Softplus(),
    jt.Exp(),
    jt.Power(),
    jt.Power(-1.5),
]
SPLINES = [t for t in (*ON_LINE, *ON_UNIT) if "Spline" in type(t).__name__]
# So steep at large parameters that x itself, in float32, is too coarse for y to come back to 1e-5.
STEEP = (jt.DeepSigmoid, jt.UnconstrainedMonotonic)
COUNT = 2000
names = lambda t: f"{type(t).__name__}-{'unit' if t.domain[0] == 0 else 'line'}"  # noqa: E731


def params_of(transformer, count, scale=20.0):
    """Parameters up to +-scale, in float32."""
    shape = (count, transformer.num_params)
    return np.random.default_rng(0).uniform(-scale, scale, shape).astype(np.float32)


def points_of(transformer, count):
    """Points of the domain: its middle, and at the end its edges, and far out on the line."""
    x = np.random.default_rng(1).uniform(size=count)
    edges = [0.0, 1.0, 0.5, 1e-7, 1 - 1e-7]
    if transformer.domain[0] < 0:
        x = 12 * x - 6
        edges = [0.0, 5.0, -5.0, 50.0, -50.0, 1e6, -1e6, 4.999999, -4.999999]
    x[-len(edges) :] = edges
    return x.astype(np.float32)


@partial(jax.jit, static_argnums=0)
def _both(transformer, x, y, params, weights, step):
    def one(method, x):
        apply = getattr(transformer, method)
        results, pull = jax.vjp(apply, x, params)
        along = None if step is None else jax.jvp(lambda p: apply(x, p), (params,), (step,))[1]
        return results, pull(weights), along

    forward = one("forward_and_log_det", x)
    return (forward,) if y is None else (forward, one("inverse_and_log_det", y))


def both(transformer, dtype, x, y, params, weights=(1.0, 0.0), step=0.0):
    """Forward at x and inverse at y, in one program for each transformer and dtype.

    All are repeated to one number of points, so that it is the same program in each test. What no
    test needs is left out: in float64, the inverse of what is no spline.

    Returns:
      For each direction the value and log-derivative; the gradients, by the point and by
      parameters, of their sum with those weights; and for splines in float64, their derivatives
      along `step`, of parameters.
    """
    width, spline, wide = transformer.num_params, transformer in SPLINES, dtype == "float64"
    cast = lambda value, *shape: np.resize(value, (COUNT, *shape)).astype(dtype)  # noqa: E731
    y = cast(y) if spline or not wide else None
    step = cast(step, width) if spline and wide else None
    weights = tuple(cast(weight) for weight in weights)
    return jax.device_get(_both(transformer, cast(x), y, cast(params, width), weights, step))


on_circle = lambda t: isinstance(t, (jt.CircularSpline, jt.CircularShift))  # noqa: E731


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT, *OTHERS], ids=repr)
def test_keeps_the_contract(transformer):
    """In float64 to rounding, in float32 near and far; see `check_transformer`."""
    x = np.random.default_rng(0).uniform(-np.pi, np.pi, 96) if on_circle(transformer) else None
    testing.check_transformer(transformer, x=x, large=20.0)


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_finite_values_and_gradients_at_any_logits(transformer):
    x, params = points_of(transformer, COUNT), params_of(transformer, COUNT)
    for results, gradients, _ in both(transformer, "float32", x, x, params, (1e-6, 1.0)):
        for value in (*results, *gradients):
            assert np.isfinite(value).all()


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_honest_round_trip_at_steep_parameters(transformer):
    """|f(f^-1(y)) - y| <= 1e-5, and |x error| <= 8 ulp / f'(x), of the interval's own size."""
    x = points_of(transformer, COUNT)
    x = np.resize(x[np.abs(x) < 50], COUNT)
    params = params_of(transformer, COUNT, scale=1.0 if isinstance(transformer, STEEP) else 5.0)
    run = lambda x, y: both(transformer, "float32", x, y, params)  # noqa: E731
    y, log_det = run(x, x)[0][0]
    again, _ = run(x, y)[1][0]
    back, log_det_there = run(again, y)[0][0]
    np.testing.assert_allclose(back, y, rtol=1e-5, atol=1e-5)
    size = 1.0 if transformer.domain[0] == 0 else 10.0
    ulp = np.spacing(np.float32(size) + np.abs(y))
    # At a knot between a steep and a flat bin, a rounded y may belong to the other one.
    slope = np.exp(np.minimum(log_det, log_det_there).astype(np.float64))
    assert (np.abs(again - x) <= 8 * ulp / slope + 8 * np.spacing(np.float32(size))).all()


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_log_det_is_the_slope_in_float64(transformer):
    x, params = points_of(transformer, COUNT), params_of(transformer, COUNT, scale=8.0)
    (_, log_det), (slope, _), _ = both(transformer, "float64", x, x, params)[0]
    # Edges belong to two pieces; a derivative taken there may be either's.
    inner = (np.abs(x - 0.5) < 0.49) if transformer.domain[0] == 0 else np.abs(x) != 5
    np.testing.assert_allclose(np.log(slope)[inner], log_det[inner], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT], ids=names)
def test_log_det_in_float32_is_that_of_float64(transformer):
    x, params = points_of(transformer, COUNT), params_of(transformer, COUNT, scale=1.0)
    (_, log_det), *_ = both(transformer, "float32", x, x, params)[0]
    (_, wanted), *_ = both(transformer, "float64", x, x, params)[0]
    np.testing.assert_allclose(log_det, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("transformer", SPLINES, ids=names)
def test_gradients_by_parameters_agree_with_differences(transformer):
    x, params = points_of(transformer, COUNT)[:50], params_of(transformer, 50, scale=1.0)
    x, params = np.resize(x, COUNT), np.resize(params, (COUNT, transformer.num_params))
    step = np.random.default_rng(2).standard_normal((50, transformer.num_params))
    step = np.resize(step, params.shape)
    weights = np.linspace(0.5, 1, COUNT), np.linspace(1, 0.5, COUNT)
    run = lambda t: both(  # noqa: E731
        transformer, "float64", x, x, params + t * step, weights, step
    )
    for here, above, below in zip(run(0.0), run(1e-6), run(-1e-6), strict=True):
        _, (_, by_params), along = here
        for forward_mode, more, less in zip(along, above[0], below[0], strict=True):
            np.testing.assert_allclose(forward_mode, (more - less) / 2e-6, rtol=1e-6, atol=1e-6)
        wanted = weights[0] * along[0] + weights[1] * along[1]
        np.testing.assert_allclose((by_params * step).sum(-1), wanted, rtol=1e-9, atol=1e-9)


def test_many_bins_make_no_longer_programs_than_few_and_compute_the_same(monkeypatch):
    random = np.random.default_rng(0)
    # More than the eight bins that a loop takes at a time.
    x, params = random.uniform(-5, 5, 200), random.normal(size=(200, 3 * 12 - 1))

    def run(x, params):
        spline = jt.RationalQuadraticSpline(bins=(params.shape[-1] + 1) // 3)
        both = spline.forward_and_log_det, spline.inverse_and_log_det
        return [
            jax.vmap(jax.value_and_grad(lambda *given, f=f, i=i: f(*given)[i], (0, 1)))(x, params)
            for f in both
            for i in (0, 1)
        ]

    def length(bins):
        wide = np.zeros((200, 3 * bins - 1))
        return str(jax.make_jaxpr(run)(x, wide)).count("\n")

    with jax.enable_x64(True):
        assert length(40) == length(128)
        assert length(12) > length(8)
        unrolled = jax.jit(run)(x, params)
        monkeypatch.setattr(rational_quadratic, "_FEW", 4)
        jax.clear_caches()
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9),
            jax.jit(run)(x, params),
            unrolled,
        )


@pytest.mark.parametrize("transformer", SPLINES, ids=names)
def test_zero_parameters_are_the_identity(transformer):
    """And slopes at knots, which two bins share, are not halved."""
    zeros = np.zeros((1, transformer.num_params))
    knots = [0.0, 0.5, 1.0] if transformer.domain[0] == 0 else [0.0, 1.25, -2.5]
    x = np.asarray([*knots, *points_of(transformer, COUNT - len(knots))])
    for (value, log_det), (slope, _), _ in both(transformer, "float64", x, x, zeros):
        np.testing.assert_allclose(value, x, atol=1e-12)
        np.testing.assert_allclose(log_det, 0, atol=1e-12)
        np.testing.assert_allclose(slope[: len(knots)], 1, atol=1e-9)


@pytest.mark.parametrize("transformer", [t for t in ON_LINE if t in SPLINES], ids=names)
def test_identity_outside_of_the_interval_with_gradient_one(transformer):
    x = np.resize([5.0, -5.0, 5.5, -70.0, 1e6], COUNT)
    params = params_of(transformer, COUNT)
    for (value, log_det), (slope, _), _ in both(transformer, "float32", x, x, params):
        np.testing.assert_array_equal(value, x)
        np.testing.assert_array_equal(log_det, 0)
        np.testing.assert_array_equal(slope, 1)


@pytest.mark.parametrize("transformer", ON_UNIT, ids=names)
def test_outside_of_the_unit_interval(transformer):
    y = [-0.1, 1.1, 0.0, 1.0, np.nan]
    x, log_det = both(transformer, "float32", y, y, params_of(transformer, COUNT, 1.0))[1][0]
    x, log_det = x.reshape(-1, 5), log_det.reshape(-1, 5)
    assert np.isneginf(log_det[:, :2]).all()
    assert np.isfinite(x[:, :4]).all()
    assert np.isfinite(log_det[:, 2:4]).all()
    assert np.isnan(x[:, 4]).all()
    np.testing.assert_allclose(x[:, 2:4], np.tile([0, 1], (len(x), 1)), atol=1e-6)


PHI = np.asarray([0.1, 0.2, 0.5, 0.1, 0.1])


def test_linear_spline_of_the_textbook():
    # Eq. 16.12 with K = 5: f(0.3) = phi_1 + (1.5 - 1) phi_2; f(0.5) = phi_1 + phi_2 + phi_3 / 2.
    x = np.asarray([0.0, 0.2, 0.3, 0.5, 0.9, 1.0])

    @jax.jit
    def there_and_back(x):
        y, log_det = splines.linear(x, PHI)
        return y, log_det, splines.linear_inverse(y, PHI)[0]

    y, log_det, again = jax.device_get(there_and_back(x))
    np.testing.assert_allclose(y, [0, 0.1, 0.2, 0.55, 0.95, 1], atol=1e-12)
    np.testing.assert_allclose(np.exp(log_det), [0.5, 1, 1, 2.5, 0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(again, x, atol=1e-12)


def test_square_root_bins_of_the_textbook():
    # Problem 16.9 with the same phi.
    roots = np.sqrt(PHI)
    x = np.asarray([0.0, 0.25, 0.5, 0.7, 1.0])

    @jax.jit
    def there_and_back(x):
        y, slope, log_det = jax.jvp(
            lambda x: splines.square_root(x, PHI), (x,), (jnp.ones_like(x),), has_aux=True
        )
        return y, slope, log_det, *splines.square_root_inverse(y, PHI)

    y, slope, log_det, again, opposite = jax.device_get(there_and_back(x))
    wanted = [
        0,
        roots[0] + np.sqrt(0.25 * 0.2),
        roots[:2].sum() + np.sqrt(0.5 * 0.5),
        roots[:3].sum() + np.sqrt(0.5 * 0.1),
        roots.sum(),
    ]
    np.testing.assert_allclose(y, wanted, atol=1e-12)
    np.testing.assert_allclose(again, x, atol=1e-12)
    inner = slice(1, 4)
    np.testing.assert_allclose(opposite[inner], -log_det[inner], atol=1e-9)
    np.testing.assert_allclose(np.log(slope[inner]), log_det[inner], atol=1e-9)


def test_square_root_bins_beyond_their_range():
    inverse = jax.jit(jt.SquareRootBins(bins=5).inverse_and_log_det)
    y = np.asarray([2.0, 2.2, 2.3])  # codomain for equal shares: [0, sqrt(5)] = [0, 2.236]
    log_det = inverse(y, np.zeros((3, 5)))[1]
    np.testing.assert_array_equal(np.isneginf(log_det), [False, False, True])
    skewed = inverse(y, 3 * np.eye(5)[:3])[1]
    assert np.isneginf(skewed).all()


def test_square_root_bins_have_second_derivatives_everywhere():
    t, one, zeros = jt.SquareRootBins(bins=8), jt.SquareRootBins(bins=1), np.zeros(8, np.float32)
    ends = np.asarray([0.0, 0.125, 0.5, 1.0, 8**0.5], np.float32)

    @jax.jit
    def derivatives(ends):
        second = [
            jax.vmap(jax.grad(jax.grad(lambda x, run=run: run(x, zeros)[1])))(ends)
            for run in (t.forward_and_log_det, t.inverse_and_log_det)
        ]
        return second, jax.grad(lambda y: one.inverse_and_log_det(y, zeros[:1])[0])(ends[3])

    second, slope = derivatives(ends)
    assert np.isfinite(second).all()
    np.testing.assert_allclose(slope, 2)


@pytest.mark.parametrize("transformer", [jt.Softplus(), jt.Exp(), jt.Power(-1.5)])
def test_denormal_numbers_at_an_open_end_are_outside(transformer):
    y = jnp.asarray([1e-40, 0.0, 2e-38], jnp.float32)
    run = lambda y: transformer.inverse_and_log_det(y, jnp.zeros((3, 0), jnp.float32))  # noqa: E731
    for x, log_det in (run(y), jax.jit(run)(y)):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(np.isneginf(log_det), [True, True, False])


def test_circle():
    spline, shift = jt.CircularSpline(bins=5), jt.CircularShift()
    params = np.random.default_rng(0).standard_normal(spline.num_params)

    @jax.jit
    def values_and_slopes(x, params):
        return jax.value_and_grad(spline.forward_and_log_det, has_aux=True)(x, params)

    run = lambda x, params: jax.device_get(values_and_slopes(x, params))  # noqa: E731
    (_, log_det), _ = run(-np.pi, params)
    (_, other_end), _ = run(np.pi, params)
    np.testing.assert_allclose(log_det, other_end, atol=1e-9)
    (y, _), _ = run(0.3, params)
    for turns in (2 * np.pi, -6 * np.pi):
        np.testing.assert_allclose(run(0.3 + turns, params)[0][0], y, atol=1e-9)
    _, slope = run(-np.pi, np.zeros_like(params))
    np.testing.assert_allclose(slope, 1, atol=1e-9)
    moved, log_det = jax.jit(shift.forward_and_log_det)(np.asarray([3.0]), np.asarray([[1.0]]))
    np.testing.assert_allclose(moved, 4 - 2 * np.pi)
    np.testing.assert_array_equal(log_det, 0)


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

    def inverse(a, y):
        return invert_increasing(cube, a, y, jnp.asarray(-9.0), jnp.asarray(9.0))[0]

    @jax.jit
    def derivatives(a, y):
        first = jax.value_and_grad(inverse, (0, 1))(a, y)
        return first, jax.grad(jax.grad(inverse, 1), 1)(a, y)

    a, y = 2.0, 5.0
    (x, (by_a, by_y)), second = jax.device_get(derivatives(a, y))
    np.testing.assert_allclose(x**3 + a * x, y, rtol=1e-14)
    slope = 1 / (3 * x**2 + a)
    np.testing.assert_allclose(by_y, slope, rtol=1e-13)
    np.testing.assert_allclose(by_a, -x * slope, rtol=1e-13)
    np.testing.assert_allclose(second, -6 * x * slope**3, rtol=1e-12)
