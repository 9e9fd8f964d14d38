"""Invertible convolutions: what each pixel depends on, and both directions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import nets
from jflow import transformers as jt
from jflow.functional import causal_convolution as conv
from tests.harness import perturbed

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@partial(jax.jit, static_argnums=(0, 1))
def run(layer, method, variables, y):
    return layer.apply(variables, y, method=method)


@partial(jax.jit, static_argnums=2)
def there_and_back(x, kernel, size):
    y = conv.causal_conv(x, kernel, size)
    return y, conv.causal_conv_inverse(y, kernel, size)


def started(layer, shape, scale=0.1):
    y = normal(2, *shape)
    return perturbed(jflow.init(layer, KEY, y), scale), y


def dependence(layer, variables, shape):
    """Of each output number (pixel major) on each input number, (n, n) booleans.

    At one of four points at least: where rectified units are off, nothing depends on anything.
    """

    def inverse(y, variables):
        return layer.apply(variables, y.reshape(shape), method="inverse").ravel()

    points = normal(4, int(np.prod(shape)))
    jacobians = jax.jit(jax.vmap(jax.jacfwd(inverse), (0, None)))(points, variables)
    return (np.abs(jacobians) > 0).any(0)


def test_a_causal_convolution_is_triangular_in_raster_order():
    kernel = normal(len(conv.taps(3)), 2, 2)
    kernel[-1] = np.triu(kernel[-1])
    x = normal(3, 4, 5, 2, seed=1)
    flat = lambda x: conv.causal_conv(x.reshape(1, 4, 5, 2), kernel, 3).ravel()  # noqa: E731
    jacobian = np.asarray(jax.jit(jax.jacfwd(flat))(x[0].ravel()))
    np.testing.assert_array_equal(np.triu(jacobian, 1), 0)
    # All taps count: a pixel inside sees 4 neighbours, and the channels up to its own.
    assert (np.abs(jacobian[(1 * 5 + 2) * 2 + 1]) > 0).sum() == 4 * 2 + 2
    _, again = there_and_back(x, kernel, 3)
    np.testing.assert_allclose(again, x, atol=1e-7)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_causal_convolutions_of_all_sizes(size):
    kernel = 0.2 * normal(len(conv.taps(size)), 3, 3)
    kernel[-1] = np.triu(kernel[-1], 1) + np.eye(3)
    x = normal(2, 6, 4, 3, seed=1)
    y, again = there_and_back(x, kernel, size)
    wanted = np.zeros_like(x)
    padded = np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))
    for (down, right), tap in zip(conv.taps(size), kernel, strict=True):
        rows, columns = slice(size + down, size + down + 6), slice(size + right, size + right + 4)
        wanted += padded[:, rows, columns] @ tap
    np.testing.assert_allclose(y, wanted, atol=1e-12)
    np.testing.assert_allclose(again, x, atol=1e-10)


def test_an_emerging_convolution_sees_all_around():
    layer, shape = jb.EmergingConv(), (5, 5, 1)
    variables, _ = started(layer, shape)
    seen = dependence(layer, variables, shape)[12].reshape(5, 5)
    # Two kernels that look up and to the left, and down and to the right.
    assert seen[1:4, 1:4].all()


def test_a_periodic_convolution_is_one():
    layer = jb.PeriodicConv()
    variables, y = started(layer, (5, 4, 2))
    kernel = np.asarray(variables["params"]["kernel"])
    wanted = sum(
        np.roll(y, (1 - a, 1 - b), axis=(1, 2)) @ kernel[a, b] for a in range(3) for b in range(3)
    )
    flat = lambda y: layer.apply(variables, y.reshape(5, 4, 2), method="inverse").ravel()  # noqa: E731
    (x, told), whole, spectrum = jax.jit(
        lambda y: (
            layer.apply(variables, y, method="inverse", mutable=["solver"]),
            jax.jacfwd(flat)(jnp.zeros(40)),
            conv.spectrum(jnp.asarray(kernel), 5, 4),
        )
    )(y)
    np.testing.assert_allclose(x, wanted, atol=1e-12)
    # The matrix is normal, up to channels: blocks of its Fourier transform hold its condition.
    blocks = np.linalg.cond(spectrum)
    assert float(told["solver"]["condition"]) == pytest.approx(blocks.max(), rel=1e-6)
    assert np.linalg.cond(whole) >= blocks.max() - 1e-6


@pytest.mark.parametrize("order", ["down", "up", "right", "left"])
def test_rows_depend_on_rows_before_alone(order):
    layer = jb.RowAutoregressive(jt.Affine(), nets.RowNet(6, rows=1, width=3), order)
    variables, _ = started(layer, (4, 4, 1), scale=0.5)
    seen = dependence(layer, variables, (4, 4, 1))[5].reshape(4, 4)  # pixel (1, 1)
    wanted = np.zeros((4, 4), bool)
    wanted[1, 1] = True
    before = {"down": np.s_[0, :3], "up": np.s_[2, :3], "right": np.s_[:3, 0], "left": np.s_[:3, 2]}
    wanted[before[order]] = True
    np.testing.assert_array_equal(seen, wanted)


def test_four_orders_make_every_pixel_depend_on_all():
    orders = ("down", "up", "right", "left")
    layer = jb.Chain(
        tuple(jb.RowAutoregressive(jt.Affine(), nets.RowNet(4, 3, 5), o) for o in orders)
    )
    variables, y = started(layer, (4, 4, 1), scale=0.5)
    assert dependence(layer, variables, (4, 4, 1)).all()
    x = run(layer, "inverse", variables, y)
    np.testing.assert_allclose(run(layer, "forward", variables, x), y, atol=1e-9)


def test_gradients_of_the_direction_that_goes_row_by_row():
    for layer in (jb.EmergingConv(), jb.RowAutoregressive(jt.Affine(), nets.RowNet(4, 2, 3))):
        variables, x = started(layer, (3, 3, 2))

        def loss(t, layer=layer, variables=variables, x=x):
            moved = jax.tree.map(lambda v: v + t, variables["params"])
            return jnp.sum(jnp.sin(layer.apply({"params": moved}, x + t, method="forward")))

        found = jax.jit(jax.value_and_grad(loss))
        wanted = (found(1e-6)[0] - found(-1e-6)[0]) / 2e-6
        np.testing.assert_allclose(found(0.0)[1], wanted, rtol=1e-6)


def test_haar_squeeze_separates_the_mean():
    y = normal(4, 6, 1)
    x = np.asarray(run(jb.HaarSqueeze(), "inverse", {}, y))
    means = y.reshape(2, 2, 3, 2).mean((1, 3))
    np.testing.assert_allclose(x[..., 0], 2 * means, atol=1e-12)
    assert np.sum(x**2) == pytest.approx(np.sum(y**2))


@pytest.mark.parametrize("mixing", ["qr", "emerging", "periodic", "woodbury", "permute"])
def test_glow_takes_the_mixing_by_name(mixing):
    flow = jflow.flows.glow((4, 4, 1), levels=1, steps=2, hidden=4, values=None, mixing=mixing)
    y = np.random.default_rng(0).uniform(size=(8, 4, 4, 1))
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.05))
    again = density.from_latents(density.latents(y))
    np.testing.assert_allclose(again, y, atol=1e-7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jb.EmergingConv(2), "EmergingConv: kernel_size must be odd; got 2"),
        (lambda: jb.PeriodicConv(0), "kernel_size must be a whole number, 1 or more; got 0"),
        (lambda: jb.EmergingConv().latent_shape((4,)), "event shape must be"),
        (lambda: nets.RowNet(width=4), "RowNet: width must be odd; got 4"),
        (lambda: jb.RowAutoregressive(jt.Affine(), order="back"), "order must be one of"),
        (lambda: jb.RowAutoregressive(jt.Tanh()), "takes no parameters"),
        (lambda: jflow.flows.glow((4, 4, 1), levels=1, mixing="lower"), "glow: mixing must be one"),
        (lambda: jflow.flows.real_nvp(4, mixing="emerging"), "real_nvp: mixing must be one"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
