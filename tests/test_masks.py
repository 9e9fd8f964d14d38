"""Masks, nets and convolutions on their own."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow import nets
from jflow.bijectors.masks import MASK_NAMES, freeze_mask, partition
from jflow.functional import conv2d

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("name", MASK_NAMES)
def test_named_masks_split_and_merge(name):
    shape = (5,) if name.startswith(("half", "alternating")) else (3, 4, 3)
    parts = partition(freeze_mask(name), shape)
    y = normal(2, *shape)

    @jax.jit
    def split_and_merge(y):
        seen, moved = parts.split(y)
        other = parts.merge(y, moved + 100)
        return seen, parts.merge(y, moved), other, parts.split(other)[0]

    seen, merged, other, still_seen = split_and_merge(y)
    np.testing.assert_array_equal(merged, y)
    changed = np.asarray(other) - y
    assert 0 < (changed > 50).sum() < y.size
    # What the network sees does not depend on what is moved.
    np.testing.assert_array_equal(still_seen, seen)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("half", [2, 3, 4]),
        ("half_swapped", [0, 1]),
        ("alternating", [1, 3]),
        ("alternating_swapped", [0, 2, 4]),
    ],
)
def test_what_named_masks_move(name, moved):
    _, part = partition(freeze_mask(name), (5,)).split(jnp.arange(5.0))
    assert part.tolist() == moved


def test_checkerboard_moves_odd_pixels_and_the_net_sees_zeros_there():
    y = 1 + jnp.arange(6.0).reshape(2, 3, 1)
    seen, moved = partition(freeze_mask("checkerboard"), (2, 3, 1)).split(y)
    assert seen[..., 0].tolist() == [[1, 0, 3], [0, 5, 0]]
    assert moved.tolist() == [2, 4, 6]


def native(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


@pytest.mark.parametrize("channels", [(2, 5), (5, 2)])
@pytest.mark.parametrize("size", [(3, 3), (5, 1)])
def test_convolution_and_its_derivatives_are_the_native_ones(channels, size):
    x = normal(2, 4, 3, channels[0])
    kernel = normal(*size, *channels, seed=1)
    weights = normal(2, 4, 3, channels[1], seed=2)

    def derivatives(f, x, kernel):
        def loss(x, kernel):
            return jnp.sum(weights * f(x, kernel) ** 3)

        gradient = jax.grad(loss, (0, 1))
        tangent = jax.jvp(gradient, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))[1]
        return f(x, kernel), gradient(x, kernel), tangent

    @jax.jit
    def results(x, kernel):
        mapped = jax.vmap(lambda x: conv2d(x[None], kernel)[0])(x)
        return derivatives(conv2d, x, kernel), derivatives(native, x, kernel), mapped

    found, wanted, mapped = results(x, kernel)
    chex.assert_trees_all_close(found, wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mapped, wanted[0], atol=1e-12)


@pytest.mark.parametrize(
    "net", [nets.ConvNet(4, positions=True), nets.ResidualConvNet(4, 2), nets.ZeroConvNet()]
)
def test_image_networks_start_at_zero_and_take_context(net):
    module = net(3)
    x, context = normal(2, 4, 4, 2), np.ones(5)

    @jax.jit
    def results(key, x, context):
        variables = module.init(key, x, context)
        moved = jax.tree.map(lambda v: v + 0.1, variables)
        apply = partial(module.apply, moved)
        out = module.apply(variables, x, context)
        return out, apply(x, context), apply(x[1], context), apply(x, -context)

    out, moved, alone, opposite = results(KEY, x, context)
    assert out.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_allclose(alone, moved[1], atol=1e-12)
    assert np.abs(moved - opposite).max() > 0


def test_networks_refuse_contexts_of_another_batch():
    with pytest.raises(ValueError, match=r"context must be \(C,\) or .*batch shape \(2,\); got"):
        nets.MLP((4,))(1).init(KEY, jnp.ones((2, 3)), jnp.ones((5, 1)))


def test_equal_networks_are_equal():
    assert nets.MLP((4, 4)) == nets.MLP([4, 4])  # type: ignore[arg-type]
    assert hash(nets.ConvNet(8)) == hash(nets.ConvNet(8))
