"""Monotone networks and low-rank residual flows: they sample and score, and integrate to one."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import data, flows
from jflow import transformers as jt
from jflow.functional import block_autoregressive as block
from jflow.functional import low_rank as lr
from tests.harness import perturbed

KEY = jax.random.key(0)
RECIPES = {
    "naf": lambda d, **o: flows.naf(d, 2, (16,), units=4, **o),
    "sos": lambda d, **o: flows.sos(d, 2, (16,), terms=2, degree=3, **o),
    "umnn": lambda d, **o: flows.umnn(d, 2, (16,), units=4, nodes=48, **o),
    "bnaf": lambda d, **o: flows.bnaf(d, 2, 6, **o),
    "planar": lambda d, **o: flows.planar(d, 4, **o),
    "planar-inverse": lambda d, **o: flows.planar(d, 4, direction="inverse", **o),
    "radial": lambda d, **o: flows.radial(d, 4, **o),
    "sylvester": lambda d, **o: flows.sylvester(d, 2, direction="inverse", **o),
    "sylvester-householder": lambda d, **o: flows.sylvester(d, 2, 2, basis="householder", **o),
    "hint": lambda d, **o: flows.hint(d, 2, (8,), **o),
}


@pytest.mark.parametrize("context_features", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_sample_score_and_save(name, context_features, tmp_path):
    flow = RECIPES[name](3, context_features=context_features)
    assert flow == RECIPES[name](3, context_features=context_features)
    context = None if context_features is None else jax.random.normal(KEY, (8, 2))
    y = 3 + 2 * jax.random.normal(KEY, (8, 3))
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), 0.1))
    samples, log_prob = density.sample_and_log_prob(KEY, 8, context)
    np.testing.assert_allclose(density.log_prob(samples, context), log_prob, atol=1e-8)
    density.save(tmp_path / "density")
    again = jflow.load(tmp_path / "density")
    np.testing.assert_array_equal(again.log_prob(y, context), density.log_prob(y, context))


@pytest.mark.parametrize("name", ["naf", "sos", "umnn", "bnaf", "planar-inverse", "hint"])
def test_trained_densities_integrate_to_one(name):
    density = data.toy("two_moons")
    y = density.sample(KEY, 2_000)
    options = {"steps": 150, "batch_size": 128, "learning_rate": 1e-2, "validation": None}
    fitted, history = jflow.fit(RECIPES[name](2), y, key=KEY, progress=False, **options)
    rows = history.rows
    assert rows[-1]["train_nll"] < float(-jnp.mean(fitted.log_prob(10 * y)))
    # Fine where the data are, and reaching to 3000: the tails of some are wide, if thin.
    t, step = np.linspace(-1, 1, 600, retstep=True)
    end = np.arcsinh(3000)
    axis, weight = np.sinh(end * t), end * np.cosh(end * t) * step
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    p = np.exp(np.concatenate([fitted.log_prob(part) for part in np.split(grid, 16)]))
    total = float((p.reshape(600, 600) * weight[:, None] * weight[None]).sum())
    assert total == pytest.approx(1, abs=1e-3)


def test_sum_of_squares_is_the_integral_of_its_polynomial():
    t = jt.SumOfSquares(terms=2, degree=3, bound=4.0, minimum=0.01)
    params = jax.random.normal(KEY, (t.num_params,))
    polynomials = np.array(params[:-1]).reshape(2, 4)
    polynomials[0, 0] += 1
    slope = np.polynomial.Polynomial([0.0])
    for coefficients in polynomials:
        slope = slope + np.polynomial.Polynomial(coefficients / 4.0 ** np.arange(4)) ** 2
    slope = 0.01 + 0.99 * slope
    x = np.linspace(-4, 4, 9)
    y, log_slope = t.forward_and_log_det(jnp.asarray(x), jnp.tile(params[None], (9, 1)))
    np.testing.assert_allclose(y, slope.integ()(x) + float(params[-1]), atol=1e-12)
    np.testing.assert_allclose(log_slope, np.log(slope(x)), atol=1e-12)
    far, _ = t.forward_and_log_det(jnp.asarray([7.0]), params[None])
    assert float(far[0]) == pytest.approx(y[-1] + 3 * slope(4.0))


def test_quadrature_is_declared_biased_until_it_converges():
    few, many = jt.UnconstrainedMonotonic(nodes=8), jt.UnconstrainedMonotonic(nodes=64)
    assert (few.log_det_kind, many.log_det_kind) == ("biased", "exact")
    assert jt.UnconstrainedMonotonic(steepness=6.0).log_det_kind == "biased"
    assert jt.UnconstrainedMonotonic(steepness=6.0, nodes=192).log_det_kind == "exact"
    assert flows.umnn(2, nodes=8).bijector.log_det_kind == "biased"
    assert jb.Coupling(few, lambda n: n).log_det_kind == "biased"
    params = 5 * jax.random.normal(KEY, (200, many.num_params))
    x = 5 * jax.random.uniform(KEY, (200,), minval=-1)
    wanted, _ = jt.UnconstrainedMonotonic(nodes=256).forward_and_log_det(x, params)
    error = lambda t: np.abs(t.forward_and_log_det(x, params)[0] / wanted - 1).max()  # noqa: E731
    assert error(many) < 1e-11
    assert error(few) > 1e-4


def test_block_autoregressive_outputs_depend_on_features_up_to_their_own_and_increase():
    layer = jb.BlockAutoregressive(4)
    y = jax.random.normal(KEY, (5,))
    variables = perturbed(jflow.init(layer, KEY, y[None]), 0.3)
    jacobian = jax.jacfwd(lambda y: layer.apply(variables, y, method="inverse"))(y)
    assert (np.tril(np.ones((5, 5))) == (np.abs(jacobian) > 0)).all()
    assert (np.diag(jacobian) > 0).all()
    # Onto the line: given the features before, the last one's ends are far apart.
    run = jax.jit(lambda y: layer.apply(variables, y, method="inverse"))
    ends = [float(run(y.at[4].set(far))[4]) for far in (-1e9, 1e9)]
    assert ends[0] < -1e3
    assert ends[1] > 1e3


def test_derivatives_of_block_autoregressive_samples():
    layer = jb.BlockAutoregressive(3)
    x = jax.random.normal(KEY, (4, 3))
    variables = perturbed(jflow.init(layer, KEY, x), 0.1)

    def loss(t):
        moved = jax.tree.map(lambda v: v + t, variables)
        y, log_det = layer.apply(moved, x + t, method="forward_and_log_det")
        return jnp.sum(jnp.sin(y)) + jnp.sum(log_det)

    wanted = (loss(1e-6) - loss(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(0.0), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(loss)(0.0), wanted, rtol=1e-6)


def test_slope_of_the_activation():
    h = jnp.linspace(-30, 30, 101)
    wanted = -2 * (np.logaddexp(h, -h) - np.log(2))
    np.testing.assert_allclose(block._tanh(h)[1], wanted, atol=1e-12)


@pytest.mark.parametrize("raw", [-1e4, -50.0, 0.0, 50.0])
def test_constraints_hold_whatever_the_numbers(raw):
    """Points and their images come back where an unconstrained map would fold."""
    z = jax.random.normal(KEY, (50, 3))
    ones = jnp.ones(3)
    numbers = {
        "planar": (lr.planar, lr.planar_inverse, lr.Planar(ones, raw * ones, jnp.zeros(()))),
        "radial": (
            lr.radial, lr.radial_inverse, lr.Radial(0 * ones, jnp.zeros(()), jnp.asarray(raw)),
        ),
        "sylvester": (
            lr.sylvester, lr.sylvester_inverse,
            lr.Sylvester(jnp.eye(3), jnp.ones((3, 3)), jnp.ones((3, 3)), raw * ones, ones, ones),
        ),
    }  # fmt: skip
    for name, (forward, backward, p) in numbers.items():
        y, log_det = forward(p, z)
        assert np.isfinite(log_det).all(), name
        again, opposite = backward(p, y)
        np.testing.assert_allclose(forward(p, again)[0], y, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(again, z, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(opposite, -log_det, atol=1e-5, err_msg=name)


def test_at_the_centre_of_a_radial_flow():
    p = lr.Radial(jnp.ones(2), jnp.zeros(()), jnp.asarray(1.0))
    grad = jax.jacfwd(lambda z: lr.radial(p, z)[0])(jnp.ones(2))
    y, log_det = lr.radial(p, jnp.ones(2))
    np.testing.assert_allclose(y, 1, atol=1e-12)
    assert float(jnp.linalg.slogdet(grad)[1]) == pytest.approx(float(log_det), abs=1e-12)
    np.testing.assert_allclose(lr.radial_inverse(p, y)[0], 1, atol=1e-12)


def test_sylvester_of_rank_one_is_planar():
    w, u = jnp.asarray([0.6, 0.8]), jnp.asarray([0.3, 0.4])
    planar = lr.Planar(w, u, jnp.asarray(0.2))
    zero = jnp.zeros((1, 1))
    sylvester = lr.Sylvester(
        w[None], zero, zero, jnp.asarray([0.5]), jnp.zeros(1), 0.2 * jnp.ones(1)
    )
    z = jax.random.normal(KEY, (6, 2))
    for a, b in zip(lr.planar(planar, z), lr.sylvester(sylvester, z), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_planar_flows_learn_a_target():
    def target(y):
        return -2 * jnp.square(y[:, 1] - 2 * jnp.tanh(y[:, 0])) - jnp.square(y[:, 0]) / 2

    options = {"steps": 300, "samples": 64, "learning_rate": 1e-2, "evaluate_every": 100}
    _, history = jflow.fit_to_target(flows.planar(2, 6), target, key=KEY, progress=False, **options)
    rows = history.rows
    assert rows[-1]["ess"] > 0.3
    assert rows[-1]["train_kl"] < rows[0]["train_kl"]


def test_hint_is_block_triangular_and_denser_than_a_coupling():
    from jflow import nets

    layer = jb.HINT(jt.Affine(), nets.MLP((6,)))
    y = jax.random.normal(KEY, (8,))
    variables = perturbed(jflow.init(layer, KEY, y[None]), 0.5)
    jacobian = jax.jacfwd(lambda y: layer.apply(variables, y, method="inverse"))(y)
    seen = np.abs(np.asarray(jacobian)) > 0
    assert (np.tril(np.ones((8, 8), bool)) == seen).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: jt.DeepSigmoid(units=0),
            "DeepSigmoid: units must be a whole number, 1 or more; got 0",
        ),
        (lambda: jt.DeepSigmoid(bound=-1.0), "DeepSigmoid: bound must be positive"),
        (lambda: jt.SumOfSquares(terms=0), "SumOfSquares: terms must be a whole number"),
        (lambda: jt.SumOfSquares(minimum=1.0), r"minimum must be in \(0, 1\)"),
        (lambda: jt.SumOfSquares(bound=float("inf")), "SumOfSquares: bound must be positive"),
        (lambda: jt.UnconstrainedMonotonic(nodes=0), "nodes must be a whole number"),
        (lambda: jt.UnconstrainedMonotonic(steepness=0.0), "steepness must be positive"),
        (
            lambda: jb.BlockAutoregressive(0),
            "BlockAutoregressive: units must be a whole number, 1 or more; got 0",
        ),
        (lambda: jb.BlockAutoregressive(direction="up"), "direction must be one of"),
        (lambda: flows.planar(2, direction="up"), "Planar: direction must be one of"),
        (lambda: flows.sylvester(3, rank=4), "rank must be at most the number of features, 3"),
        (lambda: jb.Sylvester(rank=0), "Sylvester: rank must be a whole number"),
        (lambda: jb.Sylvester(basis="svd"), "basis must be 'qr' or 'householder'"),
        (lambda: jb.ConvFlow(kernel_size=1), "kernel_size must be 2 or more"),
        (lambda: jb.ConvFlow(dilation=3).latent_shape((5,)), "reaches beyond 5 features"),
        (lambda: flows.hint(1), "HINT: it takes 2 features or more; got 1"),
        (lambda: flows.hint(3, depth=0), "HINT: depth must be a whole number"),
        (lambda: jb.Sylvester(rank=2.0), "rank must be a whole number, 1 or more; got 2.0"),
        (lambda: jt.DeepSigmoid("a"), "units must be a whole number, 1 or more; got 'a'"),
        (lambda: jb.HINT(jt.Affine(), lambda n: n, depth=1.5), "depth must be a whole number"),
        (lambda: jb.HINT(jt.Tanh(), lambda n: n), "takes no parameters"),
        (lambda: flows.naf(3, mixing="none"), "naf: mixing must be one of"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


OPTIMISED = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from tests.test_transformers import ON_LINE, ON_UNIT, params_of, points_of

for t in (*ON_LINE, *ON_UNIT):
    x = jnp.resize(points_of(t, 2000), (1000, 2))
    x = jnp.where(jnp.abs(x) > 50, 1, x) if t.domain[0] < 0 else x
    params = params_of(t, x.size, scale=1.0).reshape(1000, 2, -1)
    for method in ("forward_and_log_det", "inverse_and_log_det"):
        run = getattr(t, method)
        got = jax.jit(run)(x, params)
        wanted = run(x.astype(float), params.astype(float))
        for a, b in zip(got, wanted):
            assert np.abs(a - b).max() < 1e-3 * (1 + np.abs(b).max()), (t, method)
"""


def test_compiled_with_all_optimisations():
    """The other tests switch most of them off; XLA:CPU once made wrong code of a sum over nodes."""
    subprocess.run([sys.executable, "-c", OPTIMISED], check=True)
