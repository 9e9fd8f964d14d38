"""Worked numbers that a reader can check by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import transformers as jt

pytestmark = pytest.mark.oldest


class Given(nn.Module):
    """A network that returns given multiples of its input."""

    features: int
    factors: tuple[float, ...]

    @nn.compact
    def __call__(self, x, context=None):
        return x * jnp.asarray(self.factors, x.dtype)[None]


class GivenNet:
    def __init__(self, *factors):
        self.factors = factors

    def __call__(self, features):
        return Given(features, self.factors)


class Linear(jb.Bijector):
    """z = A y + b, from data y to base z: how a user writes a bijector of their own."""

    matrix: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]

    def inverse_and_log_det(self, y, context=None):
        z = y @ jnp.asarray(self.matrix).T + jnp.asarray(self.bias).reshape(
            (1,) * (y.ndim - 1) + (-1,)
        )
        return z, jnp.full(y.shape[:-1], np.linalg.slogdet(np.asarray(self.matrix))[1])


def test_linear_flow():
    bijector = Linear(((2.0, 0.5), (0.1, 1.5)), (0.3, -0.2))
    density = jflow.Density(jflow.Flow(bijector, (2,)), {})
    x = np.asarray([0.5, -1.0])
    np.testing.assert_allclose(density.latents(x), [0.8, -1.65], atol=1e-12)
    run = jax.jit(lambda x: bijector.apply({}, x, method="inverse_and_log_det"))
    _, log_det = run(x)
    assert float(log_det) == pytest.approx(1.0818, abs=5e-5)
    assert float(density.log_prob(x)) == pytest.approx(-2.4373, abs=5e-5)


def test_a_direction_that_is_missing_says_so():
    bijector = Linear(((1.0,),), (0.0,))
    with pytest.raises(NotImplementedError, match="Linear has no forward direction"):
        bijector.apply({}, np.ones(1), method="forward_and_log_det")
    assert (bijector.forward_kind, bijector.inverse_kind) == ("missing", "closed form")
    assert jb.Invert(bijector).inverse_kind == "missing"
    assert jb.Chain((jb.Reverse(), bijector)).forward_kind == "missing"
    with pytest.raises(ValueError, match=r"Linear has .*forward_kind 'missing'"):
        jb.Repeat(bijector, 2, memory="reversible")


def test_affine_coupling():
    # shift t = 0.2 x1 and log-scale s = 0.5 x1, forward in the direction x -> y
    coupling = jb.Coupling(jt.Affine(bound=float("inf")), GivenNet(0.2, 0.5))
    x = np.asarray([[0.5, -1.0]])
    run = jax.jit(lambda x: coupling.apply({}, x, method="forward_and_log_det"))
    y, log_det = run(x)
    np.testing.assert_allclose(y, [[0.5, -1.1840]], atol=5e-5)
    assert float(log_det[0]) == pytest.approx(0.25)
    flow = jflow.Flow(jb.Invert(coupling), (2,))
    log_prob = np.asarray(jflow.Density(flow, {}).log_prob(x))
    normal = -0.5 * (0.25 + 1.1840**2) - np.log(2 * np.pi)
    assert float(log_prob[0]) == pytest.approx(normal + 0.25, abs=5e-5)
    assert float(log_prob[0]) == pytest.approx(-2.4138, abs=5e-5)


def test_square_of_a_uniform():
    flow = jflow.Flow(jb.Elementwise(jt.Power(2.0)), (1,), jflow.StandardUniform())
    x = np.asarray([[0.04], [0.25], [0.81]])
    p = np.exp(jflow.Density(flow, {}).log_prob(x))
    np.testing.assert_allclose(p, 1 / (2 * np.sqrt(x[:, 0])), rtol=1e-12)


def test_logistic_of_a_standard_normal():
    flow = jflow.Flow(jb.Elementwise(jt.Sigmoid()), (1,))
    y = np.asarray([[0.1], [0.5], [0.9]])
    z = np.log(y / (1 - y))
    wanted = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) / (y * (1 - y))
    p = np.exp(jflow.Density(flow, {}).log_prob(y))
    np.testing.assert_allclose(p, wanted[:, 0], rtol=1e-12)


def test_leaky_relu_of_a_standard_normal():
    flow = jflow.Flow(jb.Elementwise(jt.LeakyReLU(0.1)), (1,))
    y = np.asarray([[-0.2], [0.7]])
    z = np.where(y < 0, y / 0.1, y)
    wanted = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * np.where(y < 0, 10, 1)
    p = np.exp(jflow.Density(flow, {}).log_prob(y))
    np.testing.assert_allclose(p, wanted[:, 0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["plu", "dense"])
def test_conv1x1_log_det_is_pixels_times_that_of_the_matrix(kind):
    layer = jb.Conv1x1(kind)
    y = np.random.default_rng(0).normal(size=(4, 5, 3))
    pixels = np.eye(3).reshape(3, 1, 1, 3)

    @jax.jit
    def run(key):
        variables = jflow.init(layer, key, y)
        variables["params"]["log_scale"] += jnp.asarray([0.3, -0.4, 0.9])
        _, log_det = layer.apply(variables, y, method="inverse_and_log_det")
        return log_det, layer.apply(variables, pixels, method="inverse")[:, 0, 0]

    log_det, matrix = run(jax.random.key(1))
    assert float(log_det) == pytest.approx(4 * 5 * np.linalg.slogdet(matrix)[1], abs=1e-10)
    assert abs(float(log_det)) > 1


def test_nice_base_is_the_standard_logistic():
    base = jflow.StandardLogistic()((1,), jnp.float64)
    with jax.numpy_rank_promotion("allow"):
        log_prob = jax.jit(base.log_prob)(np.asarray([[0.7]]))
    assert float(np.asarray(log_prob)[0]) == pytest.approx(-0.7 - 2 * np.log1p(np.exp(-0.7)))


def _integral(density, low, high, count, dims=2):
    axis = np.linspace(low, high, count + 1)[:-1] + (high - low) / count / 2
    grid = np.stack(np.meshgrid(*[axis] * dims, indexing="ij"), -1).reshape(-1, dims)
    return float(np.exp(density.log_prob(grid)).sum()) * ((high - low) / count) ** dims


@pytest.mark.parametrize("build", [jflow.flows.real_nvp, jflow.flows.nice])
def test_densities_of_2d_flows_integrate_to_one(build):
    from tests.harness import perturbed

    flow = build(2, layers=4, hidden=(16,))
    y = np.random.default_rng(0).normal(size=(100, 2))
    # Moved further, SiLU networks make a ridge that is narrower than the cells.
    variables = perturbed(jflow.init(flow, jax.random.key(1), y), 0.1)
    assert _integral(jflow.Density(flow, variables), -40, 40, 800) == pytest.approx(1, abs=1e-3)


def test_the_integral_would_notice_a_wrong_log_det():
    class Wrong(jb.Bijector):
        def inverse_and_log_det(self, y, context=None):
            return 2 * y, jnp.full(y.shape[:-1], 1.01 * 2 * np.log(2.0))

    density = jflow.Density(jflow.Flow(Wrong(), (2,)), {})
    assert abs(_integral(density, -10, 10, 400) - 1) > 1e-2
