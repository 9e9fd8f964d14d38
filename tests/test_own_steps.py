"""Continuous flows of many points at once: steps of each, values without log-determinants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import functional as jf

NET = nets.MLP((16, 16), activation="tanh")
Y = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)


def steep(evaluation, **options):
    """A density whose paths are harder the farther out they begin."""
    flow = jflow.Flow(jb.Continuous(NET, evaluation=evaluation, **options), (2,))
    variables = jflow.init(flow, 0, Y)
    own = jax.random.key(1)
    params = jax.tree.map(
        lambda a: a + 0.7 * jax.random.normal(own, a.shape, a.dtype), variables["params"]
    )
    return jflow.Density(flow, {**variables, "params": params})


@pytest.fixture(scope="module")
def density():
    return steep(jf.Adaptive())


def test_a_hard_point_is_lost_alone(density):
    y = Y.astype(float)

    def lost(max_steps, y, **options):
        solver = jf.Adaptive(1e-6, "tsit5", max_steps, **options)
        return np.isnan(jax.jit(density.with_solver(solver).log_prob)(y))

    few = next(n for n in range(8, 40, 2) if not lost(n, y).all())
    alone = lost(few, y)
    assert 0 < alone.sum() < 6
    for i, of in enumerate(alone):
        assert lost(few, y[i : i + 1])[0] == of
    assert lost(few, y, own_steps=False).all()
    with pytest.raises(FloatingPointError, match=f"for {alone.sum()} of 6 points"):
        density.with_solver(jf.Adaptive(1e-6, "tsit5", few)).log_prob(y)


def steps_of(density, y):
    _, told = density.flow.apply(density.variables, y, mutable=["solver"])
    return told["solver"]["bijector"]["steps"]


def test_no_point_depends_on_the_others(density):
    alone = jnp.concatenate([density.log_prob(y[None]) for y in Y])
    np.testing.assert_allclose(density.log_prob(Y), alone, rtol=2e-6)
    np.testing.assert_allclose(density.log_prob(Y.reshape(2, 3, 2)).ravel(), alone, rtol=2e-6)
    assert abs(steps_of(density, Y) - max(steps_of(density, y[None]) for y in Y)) <= 1
    assert density.log_prob(Y[:0]).shape == (0,)


def test_contexts_of_each_or_of_all():
    flow = jflow.Flow(jb.Continuous(NET), (2,), context_shape=1)
    context = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    density = jflow.Density(flow, jflow.init(flow, 0, Y, context))
    shared = density.with_solver(jf.Adaptive(own_steps=False))
    for given in (context, context[0]):
        np.testing.assert_allclose(
            density.log_prob(Y, given), shared.log_prob(Y, given), rtol=0, atol=1e-5
        )


def test_probes_are_those_of_each_point():
    density = steep(jf.Adaptive(), trace=jf.Hutchinson(1, "gaussian"))
    same = density.log_prob(np.repeat(Y[:1], 8, axis=0), key=0)
    assert np.unique(np.asarray(same)).size == 8
    np.testing.assert_array_equal(same, density.log_prob(np.repeat(Y[:1], 8, axis=0), key=0))


def test_gradients_of_each_are_those_of_all(density):
    # Steps of the batch are none of a `vmap`.
    shared = density.with_solver(jf.Adaptive(own_steps=False))
    expected = jax.jit(jax.grad(lambda y: jnp.sum(shared.log_prob(y))))(Y)
    of_all = jax.jit(jax.grad(lambda y: jnp.sum(density.log_prob(y))))(Y)
    of_each = jax.jit(jax.vmap(jax.grad(density.log_prob)))(Y)
    np.testing.assert_allclose(of_all, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(of_each, expected, rtol=1e-3, atol=1e-4)


def test_values_alone_have_no_trace():
    wide = steep(jf.Adaptive(), trace=jf.Hutchinson())
    layer, variables = jb.Continuous(NET), {"params": wide.variables["params"]["bijector"]}
    _, log_det = layer.apply(variables, Y, method="inverse_and_log_det")
    assert np.abs(log_det).max() > 0.1
    # A layer that estimates traces is asked for values without a key.
    alone = jb.Continuous(NET, jf.Hutchinson())
    for method in ("forward", "inverse"):
        exact, _ = layer.apply(variables, Y, method=f"{method}_and_log_det")
        found, told = alone.apply(variables, Y, method=method, mutable=["solver"])
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
        _, more = layer.apply(variables, Y, method=f"{method}_and_log_det", mutable=["solver"])
        assert told["solver"]["evaluations"] <= more["solver"]["evaluations"]
    with pytest.raises(ValueError, match="give a key"):
        alone.apply(variables, Y, method="inverse_and_log_det")


def test_flows_of_images():
    flow = flows.ffjord(
        image_shape=(4, 4, 1),
        hidden=3,
        levels=2,
        layers=2,
        values=None,
        alpha=0.01,
        context_shape=1,
    )
    y = np.random.default_rng(0).uniform(size=(3, 4, 4, 1))
    context = np.ones((3, 1))
    variables = jflow.init(flow, 0, y, context)
    density = jflow.Density(
        flow,
        jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), variables),
    ).with_estimator(jf.ExactTrace())
    z = density.latents(y, context)
    assert z.shape == (3, 16)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda y: density.latents(y, context[0]).ravel())))(y)
    log_det = np.linalg.slogdet(np.asarray(jacobian).reshape(3, 16, 16))[1]
    log_base = -np.sum(np.square(z), -1) / 2 - 8 * np.log(2 * np.pi)
    np.testing.assert_allclose(density.log_prob(y, context), log_base + log_det, rtol=0, atol=1e-7)


def test_fits_of_images():
    y = np.random.default_rng(0).integers(0, 4, (40, 4, 4, 1), np.uint8)
    flow = flows.rnode(
        image_shape=(4, 4, 1), levels=1, hidden=4, field="concat_squash", values=4, steps=2
    )
    density, _ = jflow.fit(flow, y, key=0, steps=4, batch_size=16, evaluate_every=2, progress=False)
    assert density.sample(0, 3).shape == (3, 4, 4, 1)
    assert np.isfinite(density.log_prob(y[:4], key=0)).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: flows.ffjord(), "give features or image_shape"),
        (lambda: flows.rnode(2, image_shape=(4, 4, 1)), "give features or image_shape"),
        (lambda: flows.ffjord(image_shape=(6, 8, 1)), r"and 2\^levels divide height and width"),
        (lambda: flows.ffjord(image_shape=(8, 8, 1), hidden=(8, 8)), "for images: hidden must be"),
        (lambda: nets.ConcatSquash((8,), 2), "kernel_size must be odd, such as 3, or None; got 2"),
        (lambda: jf.Adaptive(own_steps=1), "own_steps must be True or False; got 1"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_values_alone_go_through_compositions():
    estimated = jb.Continuous(NET, jf.Hutchinson())
    flow = jflow.Flow(
        jb.Chain(
            (jb.ActNorm(), jb.Invert(jb.Repeat(estimated, 2)), jb.Repeat(estimated.clone(), 1))
        ),
        (2,),
    )
    variables = jflow.init(flow, 0, Y)
    # No key: nothing is estimated.
    z = flow.apply(variables, Y, method="latents")
    np.testing.assert_allclose(flow.apply(variables, z, method="from_latents"), Y, atol=1e-5)
    both = flow.apply(variables, Y, method="latents_and_log_det", rngs={"noise": jax.random.key(0)})
    np.testing.assert_allclose(z, both[0], atol=1e-5)
    assert both[1].shape == (6,)


def test_a_flow_inside_a_layer_still_knows_its_density(density):
    """What a layer computes for its own use is not told that log_det is not wanted."""

    class Feature(jb.Bijector):
        def forward_and_log_det(self, x, context=None):
            return x + density.log_prob(x)[..., None], jnp.zeros(x.shape[:-1], x.dtype)

    moved = jflow.Flow(jb.Chain((Feature(), jb.Reverse())), (2,))
    found = moved.apply({}, Y, method="from_latents")
    turned = Y[:, ::-1]
    np.testing.assert_allclose(found, turned + density.log_prob(turned)[:, None], rtol=1e-5)
