"""Fields with and without their context: laws given more of it, or less."""

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
from jflow import transformers as jt
from tests.harness import perturbed
from tests.test_matching import drawn

CLASSES = np.repeat(np.eye(2, dtype=np.float32), 2_000, axis=0)
Y = (drawn(0, 4_000, 2) + (CLASSES[:, :1] - 0.5) * [3, 0]).astype(np.float32)
NEW = (drawn(1, 200, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def density():
    flow = flows.flow_matching(2, (32, 32), context_shape=2, guidance=1.0)
    half = partial(train.FlowMatching, drop_context=0.5)
    return jflow.fit(
        flow, Y, context=CLASSES, key=0, objective=half, steps=1_500, batch_size=512,
        learning_rate=1e-2, progress=False,
    )[0]  # fmt: skip


def normal(y, middle):
    return -((y[:, 0] - middle) ** 2 + y[:, 1] ** 2) / 2 - np.log(2 * np.pi)


def test_laws_with_and_without_the_context(density):
    for given, middle in ((CLASSES[0], 1.5), (CLASSES[-1], -1.5)):
        off = np.asarray(density.log_prob(NEW, given)) - normal(NEW, middle)
        assert np.abs(off[np.abs(NEW[:, 0] - middle) < 2]).mean() < 0.15
    without = density.with_guidance(0.0)
    both = np.logaddexp(normal(NEW, 1.5), normal(NEW, -1.5)) - np.log(2)
    off = np.abs(np.asarray(without.log_prob(NEW, CLASSES[0])) - both).mean()
    assert off < 0.2 * np.abs(normal(NEW, 1.5) - both).mean()
    np.testing.assert_allclose(
        without.log_prob(NEW, CLASSES[0]), without.log_prob(NEW, CLASSES[-1]), atol=1e-4
    )


def test_guided_samples_follow_the_context_more(density):
    middles = [
        float(density.with_guidance(w).sample(0, 1_000, CLASSES[0])[:, 0].mean())
        for w in (0.0, 1.0, 3.0)
    ]
    assert middles[0] == pytest.approx(0, abs=0.3)
    assert middles[1] == pytest.approx(1.5, abs=0.3)
    assert middles[2] > middles[1] + 0.3
    # Their log p is that of a density of its own.
    guided = density.with_guidance(3.0)
    y, log_p = guided.sample_and_log_prob(0, 50, CLASSES[0])
    np.testing.assert_allclose(guided.log_prob(y, CLASSES[0]), log_p, atol=1e-2)
    x, y = np.meshgrid(np.linspace(-8, 12, 150), np.linspace(-8, 8, 120))
    grid = np.stack([x, y], -1).astype(np.float32)
    total = np.exp(guided.log_prob(grid, CLASSES[0])).sum() * (20 / 149) * (16 / 119)
    assert total == pytest.approx(1, abs=0.02)


class Flag(nn.Module):
    """1,000 where the context is given."""

    @nn.compact
    def __call__(self, x, context):
        known = context[..., 1:2] + 0 * self.param("unused", nn.initializers.zeros, (), x.dtype)
        return jnp.broadcast_to(1_000 * known, x.shape)


def test_contexts_are_dropped_as_often_as_asked():
    layer = jb.Continuous(lambda _: Flag(), guidance=1.0)
    flow = jflow.Flow(layer, (2,), context_shape=1)
    goal = train.FlowMatching(flow, drop_context=0.2)
    batch = jnp.asarray(drawn(0, 2_000, 2)), jnp.asarray(drawn(1, 2_000, 1))
    key = jax.random.key(0)
    losses, _ = goal.losses(goal.init(key, batch), batch, key, training=True)
    assert (np.asarray(losses) < 1e5).mean() == pytest.approx(0.2, abs=0.03)


def test_potentials_and_images_are_guided():
    flow = jflow.Flow(jb.Continuous(nets.Potential(4), guidance=2.0), (2,), context_shape=2)
    moved = jflow.init(flow, 0, Y[:8], CLASSES[:8])
    for trace in (jf.ExactTrace(), jf.Hutchinson()):
        assert jflow.Density(flow, moved).with_estimator(trace).log_prob(
            Y[:8], CLASSES[:8], key=0
        ).shape == (8,)
    images = drawn(0, 6, 4, 4, 1).astype(np.float32)
    flow = flows.flow_matching(
        image_shape=(4, 4, 1), hidden=2, values=None, context_shape=(4, 4, 2), guidance=1.0
    )
    given = drawn(1, 6, 4, 4, 2).astype(np.float32)
    density, _ = jflow.fit(
        flow, images, context=given, key=0, steps=2, batch_size=4, progress=False
    )
    few = density.with_guidance(2.0).with_solver(jf.FixedGrid(4))
    assert few.sample(0, 6, given).shape == images.shape


@pytest.fixture(scope="module")
def autoregressive():
    layers = [
        jb.MaskedAutoregressive(
            jt.RationalQuadraticSpline(8, bound=8.0),
            net=nets.MADE((32,)),
            order=order,
            guidance=1.0,
        )
        for order in ("natural", "reversed")
    ]
    flow = jflow.Flow(jb.Chain(tuple(layers)), (2,), context_shape=2)
    half = partial(train.MaximumLikelihood, drop_context=0.5)
    return jflow.fit(
        flow, Y, context=CLASSES, key=0, objective=half, steps=800, batch_size=512,
        learning_rate=1e-2, progress=False,
    )[0]  # fmt: skip


def test_guided_autoregressive_laws_are_laws(autoregressive):
    """Of one context, of none, and of more than one: each with its own exact log p."""
    for given, middle in ((CLASSES[0], 1.5), (CLASSES[-1], -1.5)):
        off = np.asarray(autoregressive.log_prob(NEW, given)) - normal(NEW, middle)
        assert np.abs(off[np.abs(NEW[:, 0] - middle) < 2]).mean() < 0.15
    both = np.logaddexp(normal(NEW, 1.5), normal(NEW, -1.5)) - np.log(2)
    without = autoregressive.with_guidance(0.0).log_prob(NEW, CLASSES[0])
    assert np.abs(np.asarray(without) - both).mean() < 0.15
    unknown = autoregressive.log_prob(NEW, np.full(2, np.nan, np.float32))
    np.testing.assert_allclose(unknown, without, atol=1e-5)
    guided = autoregressive.with_guidance(3.0)
    y, log_p = guided.sample_and_log_prob(0, 2_000, CLASSES[0])
    assert float(y[:, 0].mean()) > 1.8
    np.testing.assert_allclose(guided.log_prob(y, CLASSES[0]), log_p, atol=1e-3)
    swept = guided.with_solver(jb.Jacobi(1e-6)).sample(0, 2_000, CLASSES[0])
    np.testing.assert_allclose(swept, y, atol=1e-3)
    x, y = np.meshgrid(np.linspace(-8, 12, 200), np.linspace(-8, 8, 160))
    grid = np.stack([x, y], -1).astype(np.float32)
    total = np.exp(guided.log_prob(grid, CLASSES[0])).sum() * (20 / 199) * (16 / 159)
    assert total == pytest.approx(1, abs=0.01)


def test_transformers_of_images_are_guided():
    flow = flows.tarflow(
        (4, 4, 1), 2, 1, 4, heads=2, components=2, values=4, context_shape=2, guidance=1.0, within=4
    )
    y = np.random.default_rng(0).integers(0, 4, (8, 4, 4, 1))
    goal = train.MaximumLikelihood(flow)
    variables = perturbed(goal.init(jax.random.key(0), (y, CLASSES[:8])), 0.5)
    loss = lambda v: goal.losses(v, (y, CLASSES[:8]), jax.random.key(0), training=True)[0].sum()  # noqa: E731
    slopes = jax.jit(jax.grad(lambda p: loss({**variables, "params": p})))(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    density = jflow.Density(flow, variables)
    without, more = (density.with_guidance(w) for w in (0.0, 3.0))
    y_new = without.sample(0, 6, CLASSES[0])
    assert y_new.shape == (6, 4, 4, 1)
    drawn = more.sample(0, 6, CLASSES[0])
    assert (drawn != y_new).any()
    swept = more.with_solver(jb.Jacobi(1e-9, block=8)).sample(0, 6, CLASSES[0])
    np.testing.assert_array_equal(swept, drawn)
    np.testing.assert_array_equal(without.sample(0, 6, CLASSES[-1]), y_new)


def test_a_guided_flow_is_fitted_with_checkpoints(autoregressive, tmp_path):
    quiet = {"context": CLASSES, "key": 0, "steps": 2, "progress": False}
    fitted, _ = jflow.fit(autoregressive.flow, Y, directory=tmp_path, **quiet)
    assert np.isfinite(fitted.log_prob(Y[:2], CLASSES[:2])).all()


def test_what_guided_autoregressive_layers_refuse(autoregressive):
    flow = autoregressive.flow
    with pytest.raises(ValueError, match="drop_context must be a number at least 0 and below 1"):
        train.MaximumLikelihood(flow, drop_context=1.0)
    with pytest.raises(ValueError, match="with guidance: drop_context must be a number above 0"):
        train.MaximumLikelihood(flow, drop_context=0)
    with pytest.raises(ValueError, match="an encoder does not know"):
        train.MaximumLikelihood(flow.clone(encoder=nn.Dense(2)))
    with pytest.raises(ValueError, match=r"give\s+objective=train.MaximumLikelihood; got FlowLoss"):
        jflow.fit(flow, Y, context=CLASSES, key=0, loss=lambda *_: 0, progress=False)
    with pytest.raises(ValueError, match=r"guidance is towards a context"):
        jflow.init(flow.clone(context_shape=None), 0, Y[:4])
    with pytest.raises(ValueError, match="guidance must be a"):
        jb.MaskedAutoregressive(jt.Affine(), guidance="much")
    quiet = {"context": CLASSES, "key": 0, "steps": 2, "progress": False}
    with pytest.raises(ValueError, match=r"trained with guidance=1.0, .*; got \[2.0\]"):
        jflow.fit(autoregressive.with_guidance(2.0).flow, Y, **quiet)
    plain = jb.MaskedAutoregressive(jt.Affine(), net=nets.MADE((4,)))
    mixed = jb.Chain((*flow.bijector.bijectors, plain))
    with pytest.raises(ValueError, match="every part of a flow with guidance that takes the cont"):
        jflow.fit(jflow.Flow(mixed, (2,), context_shape=2), Y, **quiet)
    field = jb.Continuous(nets.MLP((4,)))
    both = jflow.Flow(jb.Chain((flow.bijector.bijectors[0], field)), (2,), context_shape=2)
    with pytest.raises(ValueError, match=r"objective=train.MaximumLikelihood; got FlowMatching"):
        jflow.fit(both, Y, objective="flow_matching", **quiet)
    with pytest.raises(ValueError, match="and not by a target: build it without guidance"):
        jflow.fit_to_target(flow, lambda y, c: -(y**2).sum(-1), key=0, steps=2, context=CLASSES)
    with pytest.raises(ValueError, match="guidance is towards a context: give context_shape, too"):
        flows.tarflow((4, 4, 1), guidance=1.0)
    with pytest.raises(ValueError, match="learned noise has no guidance"):
        flows.tarflow((4, 4, 1), guidance=1.0, context_shape=2, dequantization="variational")


def test_bad_arguments(density):
    plain = flows.flow_matching(2, (8,), context_shape=2)
    with pytest.raises(TypeError, match=r"flows\.flow_matching\(\.\.\., guidance=1\.0\)"):
        jflow.Density(plain, {}).with_guidance(2.0)
    with pytest.raises(ValueError, match="with_guidance: guidance must be a"):
        density.with_guidance("much")
    with pytest.raises(ValueError, match="guidance must be"):
        jb.Continuous(nets.MLP((4,)), guidance=float("nan"))
    with pytest.raises(ValueError, match="give the flow context_shape="):
        jflow.init(flows.flow_matching(2, (8,), guidance=1.0), 0, Y)
    with pytest.raises(ValueError, match="drop_context must be"):
        train.FlowMatching(plain, drop_context=1.0)
    with pytest.raises(ValueError, match="with guidance: drop_context must be a number above 0"):
        train.FlowMatching(density.flow, drop_context=0)
    quiet = {"key": 0, "steps": 2, "progress": False, "batch_size": 32}
    with pytest.raises(ValueError, match="a flow with guidance is also trained without its"):
        jflow.fit(density.flow, Y, context=CLASSES, objective="likelihood", **quiet)
    guided = density.with_guidance(2.0).with_solver(jf.FixedGrid(4))
    pairs = train.draw_pairs(guided, 0, 64, CLASSES[0])
    with pytest.raises(ValueError, match="would be guided once more"):
        jflow.fit(guided.flow, pairs, **quiet)
    again, _ = jflow.fit(density.flow, pairs, variables=density.variables, **quiet)
    assert again.flow.bijector.bijectors[1].guidance == 1.0
    for shape in ((4, 4), 4, (4, 3, 1), (4, 4, 0)):
        with pytest.raises(ValueError, match=r"image_shape must be \(height, width, channels\)"):
            flows.flow_matching(image_shape=shape)  # type: ignore[arg-type]
