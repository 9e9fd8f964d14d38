"""Mean velocities: what MeanFlow teaches, and steps along them as a flow of their own."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets, train
from jflow import functional as jf
from tests.test_matching import drawn

NET = nets.MLP((16, 16), activation="gelu")
Z = drawn(0, 6, 2)


def moved(scale, **options):
    """A density whose parameters are off their first values, in float64."""
    layer = jb.Continuous(NET, mean_velocities=True, **options)
    flow = jflow.Flow(layer, (2,))
    variables = jflow.init(flow, 0, Z)
    return jflow.Density(
        flow, jax.tree.map(lambda a: a + scale * drawn(1, *a.shape), dict(variables))
    )


@pytest.fixture(scope="module")
def density():
    return moved(0.15)


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_are_a_flow_of_their_own(density, steps):
    few = density.with_solver(jf.MeanSteps(steps))
    assert few.flow.bijector.log_det_kind == "exact"
    y = np.asarray(few.from_latents(Z))
    assert np.abs(y - Z).max() > 0.1
    np.testing.assert_allclose(few.latents(y), Z, atol=1e-11)
    jacobian = jax.vmap(jax.jacfwd(few.from_latents))(Z)
    expected = -np.sum(Z**2, -1) / 2 - np.log(2 * np.pi) - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(few.log_prob(y), expected, atol=1e-11)
    narrow = few.log_prob(y.astype(np.float32))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, expected, atol=1e-4)
    found = few.log_prob_estimate(y, 0)
    assert np.abs(found.mean - expected).max() < 1e-11
    assert found.solver_error.max() < 1e-12


def test_gradients_go_through_steps_back(density):
    few = density.with_solver(jf.MeanSteps(2))
    flow, variables = few.flow, few.variables
    log_prob = lambda v, y: jnp.sum(flow.apply(v, y, method="log_prob"))  # noqa: E731
    of_params, of_y = jax.jit(jax.grad(log_prob, argnums=(0, 1)))(variables, Z)
    step = 1e-6
    along = drawn(3, *Z.shape)
    both = [log_prob(variables, Z + s * step * along) for s in (1, -1)]
    np.testing.assert_allclose(np.sum(of_y * along), (both[0] - both[1]) / (2 * step), rtol=1e-7)
    along = jax.tree.map(lambda a: drawn(4, *a.shape), variables)
    both = [
        log_prob(jax.tree.map(lambda a, b, s=s: a + s * step * b, variables, along), Z)
        for s in (1, -1)
    ]
    moved = sum(
        np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (of_params, along)), strict=True)
    )
    np.testing.assert_allclose(moved, (both[0] - both[1]) / (2 * step), rtol=1e-6)


def test_derivatives_of_mean_velocities(density):
    layer, variables = density.flow.bijector, {"params": density.variables["params"]["bijector"]}
    t, length, v = jnp.linspace(0, 0.5, 6), jnp.linspace(0.4, 0.1, 6), drawn(2, 6, 2)

    def at(step):
        given = Z + step * v, t + step, length - step, v
        return layer.apply(variables, *given, method="mean_velocity")

    u, change = at(0.0)
    np.testing.assert_allclose(change, (at(1e-6)[0] - at(-1e-6)[0]) / 2e-6, rtol=1e-6, atol=1e-8)
    # Over no time, it is the field.
    field = layer.apply(variables, Z, t, method="velocity")
    np.testing.assert_array_equal(
        layer.apply(variables, Z, t, jnp.zeros(6), v, method="mean_velocity")[0], field
    )
    assert np.abs(u - field).max() > 1e-3


def end_and_log_prob(z):
    """Of paths in straight lines from z, in three dimensions, and the exact log p there."""
    stretched = 1 + 2 / np.cosh(2 * z) ** 2
    log_prob = -np.sum(z**2 / 2 + np.log(stretched), -1) - 1.5 * np.log(2 * np.pi)
    return (z + np.tanh(2 * z)).astype(np.float32), log_prob.astype(np.float32)


@pytest.fixture(scope="module")
def trained():
    z = drawn(0, 4_000, 3).astype(np.float32)
    flow = jflow.Flow(
        jb.Continuous(nets.MLP((32, 32), activation="gelu"), mean_velocities=True), (3,)
    )
    half = partial(train.MeanFlow, apart=0.5)
    return jflow.fit(
        flow, train.Pairs(end_and_log_prob(z)[0], None, z), key=0, steps=1_000, objective=half,
        learning_rate=1e-2, progress=False,
    )[0]  # fmt: skip


def test_one_step_is_the_flow(trained):
    z = drawn(5, 500, 3).astype(np.float32)
    y, log_prob = end_and_log_prob(z)
    one = trained.with_solver(jf.MeanSteps())
    assert np.abs(y - z).mean() > 0.5
    assert np.abs(one.from_latents(z) - y).mean() < 0.1
    assert np.abs(one.log_prob(y) - log_prob).mean() < 0.3
    assert np.abs(trained.log_prob(y) - log_prob).mean() < 0.3
    found = one.paths(z[:50], times=5)
    assert found.values.shape == (5, 50, 3)
    np.testing.assert_allclose(found.values[-1], one.from_latents(z[:50]), atol=1e-5)
    assert np.abs(found.values[2] - (z + y)[:50] / 2).mean() < 0.1
    np.testing.assert_allclose(found.log_prob[-1], one.log_prob(found.values[-1]), atol=1e-3)


def test_the_law_of_data_without_pairs():
    y = (drawn(0, 4_000, 1) * 2 + 1).astype(np.float32)
    flow = flows.flow_matching(1, (32, 32), mean_velocities=True)
    density, _ = jflow.fit(flow, y, key=0, steps=1_500, learning_rate=5e-3, progress=False)
    samples = density.with_solver(jf.MeanSteps(2)).sample(0, 4_000)
    assert abs(samples.mean() - 1) < 0.2
    assert abs(samples.std() - 2) < 0.2


class Turned(nn.Module):
    """A step of length 1 turns the line over."""

    outputs: int

    @nn.compact
    def __call__(self, x, context=None):
        return self.param("scale", nn.initializers.constant(-2), (), x.dtype) * x


def test_what_is_no_bijection_is_refused():
    flow = jflow.Flow(jb.Continuous(Turned, evaluation=jf.MeanSteps(), mean_velocities=True), (1,))
    density = jflow.Density(flow, jflow.init(flow, 0, Z[:, :1]))
    np.testing.assert_allclose(density.from_latents(Z[:, :1]), -Z[:, :1])
    for call in (lambda: density.log_prob(Z[:, :1]), lambda: density.sample_and_log_prob(0, 6)):
        with pytest.raises(FloatingPointError, match=r"for 6 of 6 points .* MeanSteps that"):
            call()
    with pytest.raises(FloatingPointError, match=r"MeanSteps\(1\) is no bijection at 6 of 6"):
        flow.apply(density.variables, Z[:, :1], method="latents")
    assert np.isnan(jax.jit(density.log_prob)(Z[:, :1])).all()
    # Two steps do not turn it over, and are as singular as can be.
    assert np.isnan(jax.jit(density.with_solver(jf.MeanSteps(2)).log_prob)(Z[:, :1])).all()


def test_images_and_contexts(tmp_path):
    y = np.random.default_rng(0).integers(0, 4, (40, 4, 4, 1), np.uint8)
    context = (y.mean((1, 2, 3), keepdims=False)[:, None] > 1.5).astype(np.float32)
    flow = flows.flow_matching(
        image_shape=(4, 4, 1), hidden=4, values=4, context_shape=1, mean_velocities=True
    )
    density, _ = jflow.fit(
        flow, y, context=context, key=0, steps=4, batch_size=16, evaluate_every=2, progress=False
    )
    one = density.with_solver(jf.MeanSteps())
    samples = one.sample(0, 3, context[0])
    assert samples.shape == (3, 4, 4, 1)
    assert not one.flow.bijector.needs_key("forward") or flow.integers
    density.save(tmp_path / "saved")
    again = jflow.load(tmp_path / "saved").with_solver(jf.MeanSteps())
    np.testing.assert_array_equal(again.sample(0, 3, context[0]), samples)


def test_large_events_have_samples_alone():
    flow = jflow.Flow(
        jb.Continuous(NET, jf.Hutchinson(), evaluation=jf.MeanSteps(), mean_velocities=True),
        (1025,),
    )
    y = np.zeros((1, 1025), np.float32)
    density = jflow.Density(flow, jflow.init(flow, 0, y))
    assert density.sample(0, 2).shape == (2, 1025)
    with pytest.raises(ValueError, match="Jacobians of D x D numbers, D = 1025 here and 1024"):
        density.log_prob(y)


PLAIN = flows.flow_matching(2, (4,))
MEANS = flows.flow_matching(2, (4,), mean_velocities=True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jb.Continuous(NET, evaluation=jf.MeanSteps()), "of layers with mean_velocities"),
        (lambda: jb.Continuous(NET, mean_velocities=True, guidance=2), "leave out guidance"),
        (lambda: jb.Continuous(nets.Potential(4), mean_velocities=True), "leave out guidance and"),
        (lambda: jf.MeanSteps(0), "MeanSteps: steps must be"),
        (lambda: train.MeanFlow(MEANS, apart=2), "apart must be"),
        (lambda: train.MeanFlow(MEANS, power=-1), "power must be from 0 to 1; got -1"),
        (lambda: jflow.fit(PLAIN, Z, key=0, objective="mean_flow"), "mean_velocities=False"),
        (lambda: jflow.fit(MEANS, Z, key=0, objective="likelihood"), "got MaximumLikelihood"),
        (lambda: train.FlowMatching(MEANS), "MeanFlow is of layers with mean_velocities=True"),
        (lambda: flows.flow_matching(2, mean_velocities="yes"), "mean_velocities must be True or"),
        (lambda: train.fit_to_target(MEANS, lambda y: 0 * y[0], key=0), "fit_to_target: mean vel"),
        (lambda: train.Distillation(PLAIN, samples=2), "samples.* must be 1; got 2"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
