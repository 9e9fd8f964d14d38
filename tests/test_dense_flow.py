"""DenseFlow: its network, its noise, its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import flows, nets
from tests.harness import perturbed

KEY = jax.random.key(0)
SMALL = {"units": (2, 1), "steps": (1, 2), "growth": 2, "hidden": 4, "layers": 2, "width": 3}


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("heads", [0, 2])
def test_dense_networks_see_what_they_should(heads):
    """All of the image with attention, and two pixels far without it; each layer all before."""
    net = nets.DenseConvNet(4, 2, 3, heads, activation="silu")(5)
    x, context = normal(1, 8, 8, 2), normal(1, 8, 8, 1)
    variables = perturbed(net.init(KEY, x, context), 0.3)
    slope = jax.jacobian(lambda x: net.apply(variables, x, context)[0, 0, 0])(x)
    reached = np.abs(slope).max(axis=(0, 1, -1)) > 0
    assert reached[:3, :3].all()
    assert reached.all() == (heads > 0)
    if not heads:
        assert not reached[3:].any()
    again = net.apply(variables, x, context + 1)
    assert np.abs(again - net.apply(variables, x, context)).min() > 0
    kernels = {
        name: leaf["kernel"].shape for name, leaf in variables["params"].items() if "_" in name
    }
    assert kernels["narrow_1"] == (7, 7)
    assert kernels["wide_1"] == (3, 3, 7, 3)


def test_images_come_and_go_beside_noise():
    """Latents hold the noise; log p is that of the joint law over that of the noise, both ways."""
    flow = flows.dense_flow((4, 4, 1), **SMALL, values=None, context_shape=2)
    y, context = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4, 4, 1)), normal(3, 2)
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), 0.1))
    z, log_det = density.latents(y, context, key=1, log_det=True)
    assert z.shape == (3, 16 + 2 * 4)
    back, there = density.from_latents(z, context, log_det=True)
    np.testing.assert_allclose(back, y, atol=1e-10)
    np.testing.assert_allclose(there, -log_det, atol=1e-8)
    other = density.latents(y, context, key=2)
    np.testing.assert_allclose(density.from_latents(other, context), y, atol=1e-10)
    assert np.abs(other - z).max() > 0.1
    assert flow.bijector.log_det_kind == "bound"
    inner = flow.bijector.bijectors[1]
    with pytest.raises(ValueError, match=r"latents have shape \(24,\); got \(25,\)"):
        inner.init(KEY, jnp.ones((3, 25)), context, method="forward")


def test_log_p_is_a_bound_that_rises_to_one_for_all_laws_of_the_noise():
    """The mean of p over draws is p(y), whatever the network of the noise makes of the image."""
    flow = flows.dense_flow((2, 2, 1), (2,), (1,), 2, hidden=4, layers=1, width=2, values=None)
    y = np.random.default_rng(0).uniform(0.1, 0.9, (4, 2, 2, 1))
    variables = perturbed(jflow.init(flow, KEY, y), 0.1)

    @jax.jit
    def log_p(variables):
        run = lambda key: flow.apply(variables, y, method="log_prob", rngs={"noise": key})  # noqa: E731
        return jax.vmap(run)(jax.random.split(KEY, 20_000))

    def without_its_law(path, leaf):
        return leaf * 0 if "['levels_0']['bijectors_2']" in jax.tree_util.keystr(path) else leaf

    other = jax.tree_util.tree_map_with_path(without_its_law, variables)
    draws = [np.asarray(log_p(of)) for of in (variables, other)]
    means = [jax.nn.logsumexp(found, axis=0) - np.log(len(found)) for found in draws]
    np.testing.assert_allclose(*means, atol=0.03)
    assert np.abs(draws[0] - draws[1]).max() > 0.1
    for found, mean in zip(draws, means, strict=True):
        assert (found.mean(0) < mean).all()


def test_the_defaults_are_of_the_published_sizes():
    """Of DenseFlow-74-10: 30, 24 and 20 couplings, of 7 dense layers that add 64 channels to 48."""
    flow = flows.dense_flow((32, 32, 3), dequantization="variational")
    y = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.int32)
    variables = jax.eval_shape(lambda y: flow.init({"params": KEY, "noise": KEY}, y), y)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))
    assert count == 128_686_556


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nets.DenseConvNet(6, heads=2), "heads must divide half of hidden=6, or be 0; got"),
        (lambda: nets.DenseConvNet(growth=0), "growth must be"),
        (lambda: flows.dense_flow((4, 4)), r"dense_flow: image_shape must be \(height, width, cha"),
        (
            lambda: flows.dense_flow((4, 6, 1)),
            "width that 2.2 divides, .* got .4, 6, 1.. Pad",
        ),
        (lambda: flows.dense_flow((4, 4, 1), (1,)), r"of the same levels; got \(1,\) and \(4, 4\)"),
        (lambda: flows.dense_flow((4, 4, 1), 3), "units must be a count for each level, such as"),
        (lambda: flows.dense_flow((4, 4, 1), steps=(1, 0)), "each of steps must be a whole number"),
        (lambda: flows.dense_flow((4, 4, 1), growth=3), "growth must be even, so that levels can"),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
