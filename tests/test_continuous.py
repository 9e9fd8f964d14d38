"""Continuous flows: solves against closed forms, honest errors, penalties, recipes."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.linalg import expm
from scipy.stats import t as student

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import functional as jf
from jflow.functional.ode import METHOD_NAMES, integrate, method
from tests.harness import perturbed

KEY = jax.random.key(0)
MATRIX = np.random.default_rng(0).normal(size=(3, 3))
Y = np.random.default_rng(1).normal(size=(40, 3))
NET = nets.MLP((8,), activation="tanh")


class Linear(nn.Module):
    """The field A y, whatever the time."""

    def __call__(self, x, context=None):
        return x @ jnp.asarray(MATRIX.T, x.dtype)


def linear(outputs):
    return Linear()


def moved(bijector, features=3, scale=0.5, dtype=jnp.float64):
    flow = jflow.Flow(bijector, (features,))
    variables = jflow.init(flow, KEY, jnp.ones((4, features), dtype))
    return jflow.Density(flow, perturbed(variables, scale))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_a_linear_field_is_the_matrix_exponential(dtype):
    density = jflow.Density(jflow.Flow(jb.Continuous(linear), (3,)), {})
    y, close = Y.astype(dtype), 1e-10 if dtype == jnp.float64 else 1e-4
    z = Y @ expm(-MATRIX).T
    wanted = -0.5 * (z**2).sum(-1) - 1.5 * np.log(2 * np.pi) - np.trace(MATRIX)
    np.testing.assert_allclose(density.log_prob(y), wanted, atol=close)
    np.testing.assert_allclose(density.from_latents(density.latents(y)), Y, atol=1e-5)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_errors_shrink_with_the_order_of_the_method(name):
    field = Partial(lambda t, y: jnp.cos(3 * t) * y**2)
    scheme, start = method(name), jnp.asarray(0.9)
    exact = 1 / (1 / 0.9 - np.sin(3.0) / 3)
    few = 4 if scheme.order > 5 else 8
    errors = [
        abs(float(integrate(field, start, jnp.linspace(0, 1, n + 1), scheme)) - exact)
        for n in (few, 4 * few)
    ]
    rate = np.log2(errors[0] / errors[1]) / 2
    assert 0.9 * scheme.order < rate < scheme.order + 2


def test_derivatives_of_adaptive_solves_of_any_order():
    field = Partial(lambda a, t, y: a * jnp.sin(y), jnp.asarray(0.7))
    solve = lambda field, y: (  # noqa: E731
        jf.Adaptive().solve(field, y, jnp.zeros(()), jnp.ones(()), 0).y
    )
    end = lambda a, y: 2 * jnp.arctan(jnp.tan(y / 2) * jnp.exp(a))  # noqa: E731
    y = jnp.asarray(0.8)
    close = lambda found, wanted: np.testing.assert_allclose(found, wanted, atol=1e-9)  # noqa: E731
    close(jax.jit(solve)(field, y), end(0.7, y))
    for derivative in (jax.grad, jax.jacfwd, lambda f: jax.jacfwd(jax.grad(f))):
        close(
            jax.jit(derivative(lambda y: solve(field, y)))(y), derivative(lambda y: end(0.7, y))(y)
        )
    by_parameter = jax.jit(jax.grad(lambda field: solve(field, y)))(field).args[0]
    close(by_parameter, jax.grad(lambda a: end(a, y))(0.7))


def test_steps_that_do_not_suffice():
    few = jb.Continuous(linear, evaluation=jf.Adaptive(max_steps=2))
    with pytest.raises(FloatingPointError, match="did not reach its end for 40 of 40 points"):
        few.apply({}, Y, method="inverse_and_log_det")
    density = jflow.Density(jflow.Flow(few, (3,)), {})
    with pytest.raises(FloatingPointError, match="did not converge"):
        density.log_prob(Y)
    with pytest.raises(FloatingPointError, match="a larger `max_steps` or `tolerance`"):
        density.from_latents(Y)
    inside = jax.jit(lambda y: few.apply({}, y, method="inverse_and_log_det"))(Y)
    assert np.isnan(inside[0]).all()
    gradient = jax.jit(jax.grad(lambda y: few.apply({}, y, method="inverse").sum()))(Y)
    assert np.isnan(gradient).all()


def test_what_is_not_finite_stays_in_its_row():
    bijector = jb.Continuous(NET)
    variables = perturbed(bijector.init(KEY, Y, Y[:, :2], method="inverse_and_log_det"), 0.5)
    run = jax.jit(lambda y, c: bijector.apply(variables, y, c, method="inverse_and_log_det"))
    z, log_det = run(Y, Y[:, :2])
    for y, context in (
        (np.where(np.arange(40)[:, None] == 3, np.inf, Y), Y[:, :2]),
        (Y, np.where(np.arange(40)[:, None] == 3, np.nan, Y[:, :2])),
    ):
        again, log_det_again = run(y, context)
        others = np.arange(40) != 3
        np.testing.assert_allclose(again[others], z[others], atol=1e-9)
        np.testing.assert_allclose(log_det_again[others], log_det[others], atol=1e-9)
        assert np.isnan(again[3]).all()
        assert np.isnan(log_det_again[3])
    assert np.isnan(run(Y, np.full(2, np.nan))[0]).all()


def test_tolerances_below_rounding_are_those_of_rounding():
    fine = jb.Continuous(NET, evaluation=jf.Adaptive(1e-12))
    density = moved(fine, dtype=jnp.float32)
    assert np.isfinite(density.log_prob(np.float32(Y))).all()


def test_training_takes_the_grid_and_all_else_the_tolerance():
    density = moved(jb.Continuous(NET, solver=jf.FixedGrid(1, "euler")))
    other = density.flow.clone(bijector=jb.Continuous(NET, solver=jf.FixedGrid(32)))
    run = jax.jit(
        lambda flow, training: flow.apply(
            density.variables, Y, method="log_prob", mutable=["losses"] if training else False
        ),
        static_argnums=(0, 1),
    )
    exact = run(density.flow, False)
    np.testing.assert_array_equal(exact, run(other, False))
    (coarse, _), (fine, _) = run(density.flow, True), run(other, True)
    assert np.abs(coarse - exact).max() > 1e-2
    np.testing.assert_allclose(fine, exact, atol=1e-5)
    assert jb.Continuous(NET).log_det_kind == "exact"
    assert jb.Continuous(NET, evaluation=jf.FixedGrid(8)).log_det_kind == "biased"


class Told(nn.Module):
    """A field that is the time, its sine and its cosine, in proportion to the flow's context."""

    def __call__(self, x, context):
        return jnp.broadcast_to(context[..., :1] * context[..., 1:], x.shape)


def test_fields_are_told_the_time_and_the_context():
    bijector = jb.Continuous(lambda outputs: Told(), frequencies=1)
    run = jax.jit(lambda x, context: bijector.apply({}, x, context, method="forward"))
    for context in (jnp.asarray([2.0]), jnp.arange(40.0)[:, None]):
        wanted = Y + np.reshape(context, (-1, 1)) * np.asarray([[2 / np.pi, 0, 1 / 2]])
        np.testing.assert_allclose(run(Y, context), wanted, atol=1e-9)


def test_the_solver_says_how_far_off_it_is():
    density = moved(jb.Continuous(nets.MLP((16, 16), activation="tanh")), scale=0.6)
    exact = np.asarray(density.log_prob(Y))
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), density.variables)
    for evaluation in (
        jf.Adaptive(), jf.Adaptive(1e-4), jf.FixedGrid(6), jf.FixedGrid(12, "heun"),
    ):  # fmt: skip
        bijector = density.flow.bijector.clone(evaluation=evaluation)
        other = jflow.Density(density.flow.clone(bijector=bijector), narrow)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = jax.device_get(other.log_prob_estimate(np.float32(Y), 0))
        error = np.abs(found.mean - exact)
        assert np.mean(found.solver_error >= error) >= 0.95, evaluation
        assert (found.standard_error == 0).all()
        assert np.median(found.solver_error) < 1e3 * np.median(error) + 1e-5
    coarse = density.flow.bijector.clone(evaluation=jf.FixedGrid(1, "euler"))
    with pytest.warns(UserWarning, match=r"error of the solver, up to .* exceeds 0\.01 nats"):
        jflow.Density(density.flow.clone(bijector=coarse), narrow).log_prob_estimate(
            np.float32(Y), 0
        )


def test_other_solvers():
    exact = moved(jb.Continuous(NET))
    coarse = exact.with_solver(jf.FixedGrid(2, "midpoint"))
    assert coarse.flow.bijector.evaluation == jf.FixedGrid(2, "midpoint")
    assert np.abs(exact.log_prob(Y) - coarse.log_prob(Y)).max() > 1e-3
    fine = exact.with_solver(jf.FixedGrid(64))
    np.testing.assert_allclose(exact.log_prob(Y), fine.log_prob(Y), atol=1e-5)
    np.testing.assert_allclose(exact.sample(0, 5), fine.sample(0, 5), atol=1e-5)
    with pytest.raises(TypeError, match=r"such as FixedGrid\(4\)"):
        exact.with_solver(4)
    with pytest.raises(TypeError, match="no layer of this flow is Continuous"):
        jflow.Density(jflow.Flow(jb.ActNorm(), (3,)), {}).with_solver(jf.FixedGrid(4))


def test_estimated_traces():
    exact = moved(jb.Continuous(NET))
    density = exact.with_estimator(jf.Hutchinson())
    assert density.flow.bijector.log_det_kind == "unbiased"
    points = np.random.default_rng(2).normal(size=(1500, 3))
    found = density.log_prob_estimate(points, 1, probes=16)
    reach = student.ppf(0.975, 15) * found.standard_error
    covered = np.mean(np.abs(found.mean - exact.log_prob(points)) < reach)
    assert 0.93 < covered < 0.97
    once = density.log_prob(Y, key=3)
    np.testing.assert_array_equal(once, density.log_prob(Y, key=3))
    assert np.abs(once - density.log_prob(Y, key=4)).max() > 1e-3
    with pytest.raises(ValueError, match="give a key"):
        density.flow.apply(density.variables, Y)
    _, log_p = density.sample_and_log_prob(0, 5)
    assert np.isfinite(log_p).all()


def test_penalties_are_those_of_the_path():
    """Of the field A y: both integrals are known."""
    bijector = jb.Continuous(linear, solver=jf.FixedGrid(64), kinetic=2.0, jacobian=3.0)
    run = lambda **options: bijector.apply(  # noqa: E731
        {}, Y, method="inverse_and_log_det", rngs={"noise": KEY}, **options
    )
    _, losses = run(mutable=["losses"])
    times = np.linspace(0, 1, 201)
    speeds = [((Y @ expm(-t * MATRIX).T @ MATRIX.T) ** 2).sum(-1).mean() for t in times]
    path = losses["losses"]["path"][0]
    probe_free = 2 * np.trapezoid(speeds, times) / 3
    # E|A v|^2 = |A|_F^2 of Rademacher probes, here of 40 of them
    norm = 3 * (MATRIX**2).sum() / 3
    assert abs(float(path) - probe_free - norm) < 0.35 * norm
    assert len(run()) == 2
    both = {"kinetic": 0.0, "jacobian": 0.0}
    _, none = bijector.clone(**both).apply({}, Y, method="inverse_and_log_det", mutable=["losses"])
    assert not none


def test_memory_does_not_grow_with_steps():
    def bytes_of(steps, memory):
        solver = jf.FixedGrid(steps, memory=memory)
        flow = jflow.Flow(jb.Continuous(nets.MLP((32, 32), activation="tanh"), solver=solver), (2,))
        y = jnp.ones((256, 2), jnp.float32)
        variables = jax.eval_shape(lambda: jflow.init(flow, KEY, y))
        loss = lambda v, y: flow.apply(v, y, mutable=["losses"])[0].mean()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(variables, y).compile().memory_analysis()

    ways = ((8, "remat"), (64, "remat"), (64, "store"))
    few, many, stored = (bytes_of(*how).temp_size_in_bytes for how in ways)
    assert many < 1.5 * few
    assert stored > 4 * many


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jb.Continuous(NET(3)), "factory of networks"),
        (lambda: jb.Continuous(NET, trace=jf.ExactLogDet()), "trace must be a TraceEstimator"),
        (lambda: jb.Continuous(NET, solver=jf.Adaptive()), "solver must be a FixedGrid"),
        (lambda: jb.Continuous(NET, evaluation="rk4"), "evaluation must be a Solver"),
        (lambda: jb.Continuous(NET, kinetic=-1.0), "kinetic must be a number at least 0; got -1"),
        (lambda: jf.FixedGrid(0), "steps must be"),
        (lambda: jf.FixedGrid(8, memory=True), "memory must be 'remat' or 'store'; got True"),
        (lambda: jf.FixedGrid(8, "rk5"), "method must be one of euler, .*; got 'rk5'"),
        (lambda: jb.Continuous(NET, jacobian="a"), "jacobian must be a number at least 0; got 'a'"),
        (lambda: jf.Adaptive(-1.0), "tolerance must be a number above 0 and below 1"),
        (lambda: jf.Adaptive(np.inf), "tolerance must be a number above 0 and below 1"),
        (lambda: jf.Adaptive("a"), "tolerance must be a number above 0 and below 1"),
        (lambda: flows.ffjord("2"), "features must be"),
        (lambda: flows.rnode(2, exact_up_to=-1), "exact_up_to must be"),
        (lambda: jf.Adaptive(method="rk4"), "which estimate their errors"),
        (lambda: flows.ffjord(2, field="film"), "field must be 'concat' or 'concat_squash'"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: flows.ffjord(3, hidden=(8,), steps=4, context_shape=2, field="concat_squash"),
        lambda: flows.rnode(3, layers=2, hidden=(8,), steps=4, exact_up_to=2),
    ],
    ids=["ffjord", "rnode"],
)
def test_recipes(build, tmp_path):
    flow = build()
    y = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32) ** 3
    context = y[:, :2] if flow.context_shape else None
    density, history = jflow.fit(
        flow, y, context=context, key=0, steps=8, batch_size=32, evaluate_every=4, progress=False
    )
    assert np.isfinite(history.column("validation_nll")).all()
    drawn = density.flow.bijector.needs_key("inverse")
    assert drawn == (flow.recipe.name == "rnode")
    given = (y[:5], None if context is None else context[:5])
    options = {"key": 1} if drawn else {}
    density.save(tmp_path / "saved")
    again = jflow.load(tmp_path / "saved")
    np.testing.assert_array_equal(
        density.log_prob(*given, **options), again.log_prob(*given, **options)
    )
    samples = density.sample(0, 5, given[1])
    assert samples.shape == (5, 3)
