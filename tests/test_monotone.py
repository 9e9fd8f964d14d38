"""Monotone networks and low-rank residual flows: they sample and score, and integrate to one."""

import os
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


@pytest.mark.parametrize("context_shape", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_sample_score_and_save(name, context_shape, tmp_path):
    flow = RECIPES[name](3, context_shape=context_shape)
    assert flow == RECIPES[name](3, context_shape=context_shape)
    random = np.random.default_rng(0)
    context = None if context_shape is None else random.standard_normal((8, 2))
    y = 3 + 2 * random.standard_normal((8, 3))
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), 0.1))
    samples, log_prob = density.sample_and_log_prob(KEY, 8, context)
    np.testing.assert_allclose(density.log_prob(samples, context), log_prob, atol=1e-8)
    density.save(tmp_path / "density")
    again = jflow.load(tmp_path / "density")
    np.testing.assert_array_equal(again.log_prob(y, context), density.log_prob(y, context))


@pytest.mark.parametrize(
    "name",
    [
        "planar-inverse",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("naf", "bnaf", "sos", "umnn", "hint")
        ),
    ],
)
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
    params = np.random.default_rng(0).standard_normal(t.num_params)
    polynomials = np.array(params[:-1]).reshape(2, 4)
    polynomials[0, 0] += 1
    slope = np.polynomial.Polynomial([0.0])
    for coefficients in polynomials:
        slope = slope + np.polynomial.Polynomial(coefficients / 4.0 ** np.arange(4)) ** 2
    slope = 0.01 + 0.99 * slope
    x = np.asarray([*np.linspace(-4, 4, 9), 7.0])
    y, log_slope = jax.device_get(jax.jit(t.forward_and_log_det)(x, np.tile(params, (10, 1))))
    y, far, x, log_slope = y[:9], y[9], x[:9], log_slope[:9]
    np.testing.assert_allclose(y, slope.integ()(x) + float(params[-1]), atol=1e-12)
    np.testing.assert_allclose(log_slope, np.log(slope(x)), atol=1e-12)
    assert far == pytest.approx(y[-1] + 3 * slope(4.0))


def test_quadrature_is_declared_biased_until_it_converges():
    few, many = jt.UnconstrainedMonotonic(nodes=8), jt.UnconstrainedMonotonic(nodes=64)
    assert (few.log_det_kind, many.log_det_kind) == ("biased", "exact")
    assert jt.UnconstrainedMonotonic(steepness=6.0).log_det_kind == "biased"
    assert jt.UnconstrainedMonotonic(steepness=6.0, nodes=192).log_det_kind == "exact"
    assert flows.umnn(2, nodes=8).bijector.log_det_kind == "biased"
    assert jb.Coupling(few, lambda n: n).log_det_kind == "biased"
    random = np.random.default_rng(0)
    params, x = 5 * random.standard_normal((200, many.num_params)), random.uniform(-5, 5, 200)
    value = lambda t: np.asarray(jax.jit(t.forward_and_log_det)(x, params)[0])  # noqa: E731
    wanted = value(jt.UnconstrainedMonotonic(nodes=256))
    error = lambda t: np.abs(value(t) / wanted - 1).max()  # noqa: E731
    assert error(many) < 1e-11
    assert error(few) > 1e-4


def test_block_autoregressive_outputs_depend_on_features_up_to_their_own_and_increase():
    layer = jb.BlockAutoregressive(4)
    y = np.random.default_rng(0).standard_normal(5)
    variables = perturbed(jflow.init(layer, KEY, y[None]), 0.3)

    @jax.jit
    def run(variables, y):
        inverse = lambda y: (layer.apply(variables, y, method="inverse"),) * 2  # noqa: E731
        return jax.jacfwd(inverse, has_aux=True)(y)

    jacobian, _ = run(variables, y)
    assert (np.tril(np.ones((5, 5))) == (np.abs(jacobian) > 0)).all()
    assert (np.diag(jacobian) > 0).all()
    # Onto the line: given the features before, the last one's ends are far apart.
    ends = [float(run(variables, np.append(y[:4], far))[1][4]) for far in (-1e9, 1e9)]
    assert ends[0] < -1e3
    assert ends[1] > 1e3


def test_derivatives_of_block_autoregressive_samples():
    layer = jb.BlockAutoregressive(3)
    x = np.random.default_rng(0).standard_normal((4, 3))
    variables = perturbed(jflow.init(layer, KEY, x), 0.1)

    def loss(t):
        moved = jax.tree.map(lambda v: v + t, variables)
        y, log_det = layer.apply(moved, x + t, method="forward_and_log_det")
        return jnp.sum(jnp.sin(y)) + jnp.sum(log_det)

    run = jax.jit(lambda t: (*jax.value_and_grad(loss)(t), jax.jacfwd(loss)(t)))
    wanted = (run(1e-6)[0] - run(-1e-6)[0]) / 2e-6
    _, reverse_mode, forward_mode = run(0.0)
    np.testing.assert_allclose(reverse_mode, wanted, rtol=1e-6)
    np.testing.assert_allclose(forward_mode, wanted, rtol=1e-6)


def test_slope_of_the_activation():
    h = np.linspace(-30, 30, 101)
    wanted = -2 * (np.logaddexp(h, -h) - np.log(2))
    np.testing.assert_allclose(jax.jit(block._tanh)(h)[1], wanted, atol=1e-12)


@jax.jit
def there_and_back(z, raw):
    """Each map of z and its inverse of the image, and the map again, with that raw number."""
    ones = jnp.ones(3)
    maps = {
        "planar": (lr.planar, lr.planar_inverse, lr.Planar(ones, raw * ones, jnp.zeros(()))),
        "radial": (
            lr.radial, lr.radial_inverse, lr.Radial(0 * ones, jnp.zeros(()), jnp.asarray(raw)),
        ),
        "sylvester": (
            lr.sylvester, lr.sylvester_inverse,
            lr.Sylvester(jnp.eye(3), jnp.ones((3, 3)), jnp.ones((3, 3)), raw * ones, ones, ones),
        ),
    }  # fmt: skip
    found = {}
    for name, (forward, backward, p) in maps.items():
        y, log_det = forward(p, z)
        again, opposite = backward(p, y)
        found[name] = y, log_det, again, opposite, forward(p, again)[0]
    return found


@pytest.mark.parametrize("raw", [-1e4, -50.0, 0.0, 50.0])
def test_constraints_hold_whatever_the_numbers(raw):
    """Points and their images come back where an unconstrained map would fold."""
    z = np.random.default_rng(0).standard_normal((50, 3))
    found = jax.device_get(there_and_back(z, raw))
    for name, (y, log_det, again, opposite, y_again) in found.items():
        assert np.isfinite(log_det).all(), name
        np.testing.assert_allclose(y_again, y, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(again, z, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(opposite, -log_det, atol=1e-5, err_msg=name)


def test_at_the_centre_of_a_radial_flow():
    @jax.jit
    def at_the_centre(centre):
        p = lr.Radial(centre, jnp.zeros(()), jnp.asarray(1.0))
        y, log_det = lr.radial(p, centre)
        grad = jax.jacfwd(lambda z: lr.radial(p, z)[0])(centre)
        return y, log_det, grad, lr.radial_inverse(p, y)[0]

    y, log_det, grad, again = jax.device_get(at_the_centre(np.ones(2)))
    np.testing.assert_allclose(y, 1, atol=1e-12)
    assert np.linalg.slogdet(grad)[1] == pytest.approx(float(log_det), abs=1e-12)
    np.testing.assert_allclose(again, 1, atol=1e-12)


def test_sylvester_of_rank_one_is_planar():
    @jax.jit
    def both(z):
        w, u = jnp.asarray([0.6, 0.8]), jnp.asarray([0.3, 0.4])
        zero, one = jnp.zeros((1, 1)), jnp.ones(1)
        planar = lr.Planar(w, u, jnp.asarray(0.2))
        sylvester = lr.Sylvester(w[None], zero, zero, 0.5 * one, 0 * one, 0.2 * one)
        return lr.planar(planar, z), lr.sylvester(sylvester, z)

    z = np.random.default_rng(0).standard_normal((6, 2))
    for a, b in zip(*both(z), strict=True):
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

    layer = jb.HINT(jt.Affine(), nets.MLP((6,), activation=jax.nn.silu))  # which is never dead
    y = np.random.default_rng(0).standard_normal(8)
    variables = perturbed(jflow.init(layer, KEY, y[None]), 0.5)
    inverse = lambda y: layer.apply(variables, y, method="inverse")  # noqa: E731
    jacobian = jax.jit(jax.jacfwd(inverse))(y)
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
        (lambda: flows.planar(2, direction="up"), "planar: direction must be 'forward' or"),
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
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from tests.test_transformers import ON_LINE, ON_UNIT, params_of, points_of

# As little as XLA can do, and not with the code generators whose programs are checked.
PLAIN = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
if jax.__version_info__ < (0, 11):
    PLAIN["xla_cpu_use_fusion_emitters"] = False

def results(dtype, options):
    for t in (*ON_LINE, *ON_UNIT):
        x = np.resize(points_of(t, 2000), (1000, 2))
        x = np.where(np.abs(x) > 50, np.float32(1), x) if t.domain[0] < 0 else x
        params = params_of(t, x.size, scale=1.0).reshape(1000, 2, -1)
        for method in ("forward_and_log_det", "inverse_and_log_det"):
            run = jax.jit(getattr(t, method), compiler_options=options)
            yield (t, method), jax.device_get(run(x.astype(dtype), params.astype(dtype)))

right = dict(results(np.float64, PLAIN))
for which, got in results(np.float32, None):
    for a, b in zip(got, right[which], strict=True):
        assert np.abs(a - b).max() < 1e-3 * (1 + np.abs(b).max()), which
"""


@pytest.mark.slow
def test_compiled_with_all_optimisations():
    """The other tests switch most of them off; XLA:CPU once made wrong code of a sum over nodes."""
    # As users compile it, and not as conftest.py has it.
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "emitters" not in flag]
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    # Set to nothing, the variable is taken for the name of a file.
    environment.pop("XLA_FLAGS", None)
    environment |= {"XLA_FLAGS": " ".join(flags)} if flags else {}
    subprocess.run([sys.executable, "-c", OPTIMISED], check=True, env=environment)
