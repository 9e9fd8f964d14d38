"""Flow++, Jet and transformer flows of tables, and the layers and networks that they are of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from tests.harness import perturbed

KEY = jax.random.key(0)


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def parameters(flow):
    """How many, without making them."""
    y = jax.ShapeDtypeStruct((2, *flow.event_shape), jnp.int32)
    variables = jax.eval_shape(lambda y: flow.init({"params": KEY, "noise": KEY}, y), y)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))


def test_checkerboards_become_channels():
    y = np.arange(2 * 4 * 2).reshape(2, 4, 2)
    x = np.asarray(jb.CheckerboardSqueeze().apply({}, y, method="inverse"))
    assert x.shape == (2, 2, 4)
    assert x.dtype == y.dtype
    colour = np.add.outer(np.arange(2), np.arange(4)) % 2
    for own, part in enumerate(np.split(x, 2, axis=-1)):
        np.testing.assert_array_equal(part.reshape(-1, 2), y[colour == own])


def test_pairs_are_of_different_tokens_and_each_has_one():
    layer = jb.PairTokens()
    y = np.arange(6 * 2).reshape(6, 2)
    variables = layer.init(KEY, y, method="inverse")
    x = np.asarray(layer.apply(variables, y, method="inverse"))
    assert sorted(x.ravel()) == sorted(y.ravel())
    tokens = x.reshape(3, 2, 2)
    np.testing.assert_array_equal(tokens[..., 1] - tokens[..., 0], 1)  # whole tokens


@pytest.mark.parametrize("heads", [0, 2])
def test_gated_networks_see_what_they_should(heads):
    """All of the image with attention, and only what is near without it."""
    net = nets.GatedConvNet(4, 1, heads)(3)
    x, context = normal(1, 8, 8, 2), normal(1, 8, 8, 1)
    variables = perturbed(net.init(KEY, x, context), 0.3)
    slope = jax.jacobian(lambda x: net.apply(variables, x, context)[0, 0, 0])(x)
    reached = np.abs(slope).max(axis=(0, 1, -1)) > 0
    assert reached[:4, :4].all()
    assert reached.all() == (heads > 0)
    again = net.apply(variables, x, context + 1)
    assert np.abs(again - net.apply(variables, x, context)).min() > 0
    rematerialised = nets.GatedConvNet(4, 1, heads, remat=True)(3)
    np.testing.assert_allclose(
        rematerialised.apply(variables, x, context), net.apply(variables, x, context), rtol=1e-12
    )


RECIPES = {
    "flow_pp": lambda **more: flows.flow_pp(
        (4, 4, 3), 4, 1, couplings=(2, 1, 1), heads=2, components=2, context_shape=2, **more
    ),
    "jet": lambda **more: flows.jet(
        (4, 4, 3), 4, 1, 8, patch=2, heads=2, channel_couplings=2, context_shape=2, **more
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_images_come_and_go(name):
    flow = RECIPES[name](values=8, dequantization="variational")
    y = np.random.default_rng(0).integers(0, 8, (3, 4, 4, 3))
    context = normal(3, 2)
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), 0.1))
    z = density.latents(y, context, key=1)
    assert z.shape == y.shape
    np.testing.assert_array_equal(density.from_latents(z, context), y)
    assert np.isfinite(density.log_prob(y, context, key=1)).all()
    drawn = density.sample(0, 3, context)
    assert drawn.shape == y.shape
    assert 0 <= drawn.min() < drawn.max() < 8


@pytest.mark.parametrize("name", RECIPES)
def test_log_det_is_that_of_the_jacobian(name):
    flow = RECIPES[name](values=None)
    y = np.random.default_rng(0).uniform(0.1, 0.9, (1, 4, 4, 3))
    context = normal(1, 2)
    variables = perturbed(jflow.init(flow, KEY, y, context), 0.1)

    @jax.jit
    def both(y):
        given = variables, y, context
        latents = lambda y: flow.apply(variables, y, context, method="latents").ravel()  # noqa: E731
        jacobian = jax.jacobian(latents)(y).reshape(y.size, y.size)
        return flow.apply(*given, method="latents_and_log_det")[1], jnp.linalg.slogdet(jacobian)[1]

    found, wanted = both(y)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-8)


def test_every_number_is_transformed():
    """Of Jet with one group of couplings: none is what it was."""
    flow = flows.jet(
        (4, 4, 1), 5, 1, 8, patch=2, heads=2, channel_couplings=4, values=None, bound=3.0
    )
    y = np.random.default_rng(0).uniform(0.1, 0.9, (2, 4, 4, 1))
    variables = perturbed(jflow.init(flow, KEY, y), 0.3)
    latents = lambda y: flow.apply(variables, y, method="latents")[0].ravel()  # noqa: E731
    slope = np.asarray(jax.jacobian(latents)(y))[:, 0].reshape(16, 16)
    assert (np.sort(np.abs(slope), axis=0)[-3] > 0).all()  # each pixel reaches three latents


def test_sizes_are_those_of_the_papers():
    """Flow++ has 31.4 M parameters of CIFAR-10, with a dequantizer of its own."""
    assert parameters(flows.flow_pp((32, 32, 3), dequantization="variational")) == 30_570_228
    assert parameters(flows.jet((64, 64, 3))) == 206_923_648


def test_transformers_of_tables_share_their_weights():
    sizes = [parameters_of_table(features) for features in (3, 9)]
    assert sizes[1] < 1.3 * sizes[0]


def parameters_of_table(features):
    flow = flows.transformer_af(features)
    variables = jax.eval_shape(lambda: flow.init(KEY, jnp.zeros((2, features))))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("transformer", ["affine", "deep_sigmoid"])
def test_transformers_of_vectors(transformer):
    flow = flows.transformer_af(
        4, 2, 1, 8, heads=2, transformer=transformer, components=3, context_shape=1
    )
    y, context = normal(5, 4), normal(5, 1)
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), 0.2))
    z = density.latents(y, context)
    np.testing.assert_allclose(density.from_latents(z, context), y, atol=1e-8)
    assert np.isfinite(density.log_prob(y, context)).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nets.GatedConvNet(5, heads=2), "heads must divide hidden=5, or be 0; got 2"),
        (lambda: nets.GatedConvNet(0), "hidden must be"),
        (lambda: nets.GatedConvNet(4, remat="yes"), "remat must be True or False"),
        (lambda: jb.CheckerboardSqueeze().latent_shape((2, 3, 1)), "the width must be even"),
        (lambda: jb.CheckerboardSqueeze().data_shape((2, 2, 3)), "an even number of channels"),
        (lambda: jb.PairTokens().latent_shape((3, 2)), "an even number of tokens"),
        (lambda: jb.PairTokens().data_shape((2, 3)), "an even number of features"),
        (lambda: flows.jet((4, 4, 1), patch=4), "an even number of patches, .* got 1 of 16"),
        (lambda: flows.jet((4, 4, 1), patch=1), "of two numbers or more; got 16 of 1"),
        (lambda: flows.jet((4, 4, 1), 0, patch=2), "couplings must be"),
        (lambda: flows.jet((4, 4, 1), patch=2, context_shape=(4, 4, 1)), "contexts are vectors"),
        (lambda: flows.jet((4, 4, 1), patch=2, transformer="cubic"), "transformer must be one of"),
        (lambda: flows.flow_pp((4, 4, 1), couplings=(1, 2)), "couplings must be three counts"),
        (lambda: flows.flow_pp((4, 4, 1), couplings=(1, -1, 2)), "each of couplings must be"),
        (lambda: flows.flow_pp((4, 4)), r"flow_pp: image_shape must be \(height, width, channels"),
        (lambda: flows.flow_pp((5, 4, 1)), "flow_pp: image_shape must have an even height and a w"),
        (lambda: flows.vflow((4, 6, 1)), "vflow: image_shape must have .* a width that 4 divides"),
        (lambda: flows.flow_pp((4, 4, 1), couplings=(0, 0, 0)), "one of couplings must be 1"),
        (lambda: flows.flow_pp((4, 4, 1), dropout="a"), "dropout must be in .*; got a"),
        (lambda: flows.flow_pp((4, 4, 1), bound=None), "flow_pp: bound must be"),
        (lambda: flows.vflow((4, 4, 1), 0), "vflow: extra must be"),
        (lambda: flows.jet((4, 4, 1), depth=0, patch=2), "jet: depth must be"),
        (lambda: flows.transformer_af(3, heads=5), "heads must divide width=32; got 5"),
        (lambda: flows.transformer_af(3, transformer="cubic"), "transformer_af: transformer must"),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
