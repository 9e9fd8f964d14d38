"""Bad input gets an error that names the argument, what was wanted, what came, and the fix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.distributions import Density

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def vector():
    flow = flows.real_nvp(3, layers=2, hidden=(4,), context_shape=2)
    y = jnp.ones((4, 3), jnp.float32)
    return Density(flow, jflow.init(flow, KEY, y, jnp.ones(2)))


@pytest.fixture(scope="module")
def image():
    flow = flows.glow((4, 4, 1), levels=1, steps=1, hidden=2, values=17)
    return Density(flow, jflow.init(flow, KEY, np.zeros((2, 4, 4, 1), np.int32)))


def test_wrong_event_shape(vector):
    with pytest.raises(ValueError, match=r"y must have shape \(\*batch, \*\(3,\)\); got \(4, 2\)"):
        vector.log_prob(jnp.ones((4, 2)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"z must have shape .*got \(\)"):
        vector.from_latents(jnp.ones(()), jnp.ones(2))


def test_context_missing_of_wrong_width_or_not_wanted(vector, image):
    with pytest.raises(ValueError, match=r"context must be \(2,\) or \(4, 2\); got None"):
        vector.log_prob(jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"context must be \(2,\) or \(4, 2\); got \(4, 5\)"):
        vector.log_prob(jnp.ones((4, 3)), jnp.ones((4, 5)))
    with pytest.raises(ValueError, match=r"context must be \(2,\) or \(6, 2\); got \(4, 2\)"):
        vector.sample(KEY, 6, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="context is given to a flow without one"):
        image.log_prob(jnp.zeros((2, 4, 4, 1), jnp.int32), jnp.ones(2), key=0)


def test_integers_given_to_log_prob(image, vector):
    with pytest.raises(TypeError, match=r"y must be integers, .* from 0 to 16; got float"):
        image.log_prob(jnp.zeros((2, 4, 4, 1)), key=0)
    with pytest.raises(ValueError, match=r"log_prob: give a key"):
        image.log_prob(jnp.zeros((2, 4, 4, 1), jnp.int32))
    with pytest.raises(TypeError, match=r"got int32; convert it to float"):
        vector.log_prob(jnp.zeros((2, 3), jnp.int32), jnp.ones(2))


def test_levels_out_of_range(image, vector):
    levels = np.full((2, 4, 4, 1), 17)
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 16; got numbers from 17 to 17"):
        image.bits_per_dim(levels, KEY)
    with pytest.raises(ValueError, match=r"got numbers from -1 to -1"):
        image.bits_per_dim(levels - 18, KEY)
    with pytest.raises(TypeError, match=r"y must be integers, .* 16; got float"):
        image.bits_per_dim(levels / 17, KEY)
    with pytest.raises(ValueError, match="bits_per_dim needs a flow of grey levels"):
        vector.bits_per_dim(levels, KEY)


def test_odd_sizes_and_too_many_levels():
    with pytest.raises(ValueError, match=r"Squeeze: height and width must be multiples of 2.*Pad"):
        flows.glow((7, 7, 1), levels=1)
    with pytest.raises(ValueError, match=r"got \(1, 1, 4\). Pad the images, or use fewer levels"):
        flows.glow((4, 4, 1), levels=3)
    with pytest.raises(ValueError, match="levels must hold one bijector or more"):
        jb.MultiScale((), (4, 4, 1))
    with pytest.raises(ValueError, match="Squeeze: factor must be 2 or more; got 1"):
        jb.Squeeze(1)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"mask must be one of half, half_swapped.*got 'chess'"):
        jb.Coupling(jt.Affine(), nets.MLP(), "chess")
    with pytest.raises(
        ValueError, match=r"memory must be one of \('store', 'remat', .*'reversible'\); got 'disk'"
    ):
        jb.Repeat(jb.ActNorm(), 3, memory="disk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"kind must be one of .*'plu', 'dense'.* got 'lu'"):
        jb.Conv1x1("lu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ((1, 1, 1), "leaves one part of"),
        ((1, 0), r"shape \(2,\), which does not fit \(3,\)"),
        ((0.5, 1, 0), "hold 0 and 1"),
        ("checkerboard", "is for events with 3 axes"),
    ],
)
def test_masks_that_do_not_fit(mask, message):
    with pytest.raises(ValueError, match=message):
        jflow.Flow(jb.Coupling(jt.Affine(), nets.MLP(), mask), (3,))


def test_a_mask_may_be_an_array_and_stays_hashable():
    coupling = jb.Coupling(jt.Affine(), nets.MLP(), np.asarray([True, False]))
    assert coupling == jb.Coupling(jt.Affine(), nets.MLP(), (1, 0))
    assert hash(coupling) == hash(jb.Coupling(jt.Affine(), nets.MLP(), [1, 0]))


def test_compositions_that_cannot_be():
    with pytest.raises(ValueError, match="Chain: bijectors must hold one bijector or more"):
        jb.Chain(())
    norm = jb.ActNorm()
    with pytest.raises(ValueError, match="one instance of ActNorm is in it twice"):
        jb.Chain((norm, norm))
    chain = jb.Chain((jb.ActNorm(1), jb.Elementwise(jt.Tanh(), event_ndim=2)))
    with pytest.raises(ValueError, match=r"ActNorm has log_det shape \(2, 3\) and Elementwise has"):
        jflow.init(chain, KEY, jnp.ones((2, 3, 4)) * 0.1)
    with pytest.raises(ValueError, match=r"Repeat: a layer must keep the event shape; Squeeze"):
        jb.Repeat(jb.Squeeze(), 2).latent_shape((4, 4, 1))
    with pytest.raises(ValueError, match="Squeeze: forward needs channels that 4 divides"):
        jb.Invert(jb.Squeeze()).latent_shape((4, 4, 1))
    with pytest.raises(ValueError, match="unroll must be True or False; got 4"):
        jb.Repeat(jb.ActNorm(), 3, unroll=4)
    with pytest.raises(ValueError, match="length must be 1 or more; got 0"):
        jb.Repeat(jb.ActNorm(), 0)
    with pytest.raises(ValueError, match=r"LeakyReLU takes no parameters.*use Elementwise"):
        jb.Coupling(jt.LeakyReLU(), nets.MLP())
    with pytest.raises(ValueError, match=r"Permute: order must be a permutation.*\(0, 0\)"):
        jb.Permute((0, 0))
    with pytest.raises(ValueError, match=r"order has 2 entries; the event shape is \(3,\)"):
        jflow.Flow(jb.Permute((1, 0)), (3,))
    with pytest.raises(ValueError, match=r"Conv1x1: the event shape must be \(height, width"):
        jflow.Flow(jb.Conv1x1(), (3,))
    with pytest.raises(ValueError, match=r"MultiScale: built for images of \(4, 4, 1\)"):
        jflow.Flow(jb.MultiScale((jb.Squeeze(),), (4, 4, 1)), (2, 2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jt.Affine(bound=0), "bound must be positive; got 0"),
        (lambda: jt.FixedAffine(scale=0), "scale must be finite and not 0; got 0"),
        (lambda: jt.LeakyReLU(-1), "slope must be positive; got -1"),
        (lambda: jt.Sigmoid(0.5), r"Sigmoid: alpha must be in \[0, 0.5\); got 0.5"),
        (lambda: jt.Logit(-1), r"Sigmoid: alpha must be in \[0, 0.5\); got -1"),
        (lambda: jt.Power(0), "exponent must be finite and not 0; got 0"),
        (lambda: jt.SoftplusAffine(least=2), r"least must be in \(0, 1\); got 2"),
        (lambda: jt.SinhArcsinh(max_tail=-1), "max_tail must be positive; got -1"),
        (lambda: nets.MLP(dropout=1.0), r"dropout must be in \[0, 1\); got 1.0"),
        (lambda: flows.nice(4, layers=3), "nice: layers must be an even number.*got 3"),
        (
            lambda: nets.ResidualConvNet(blocks=0),
            "ResidualConvNet: blocks must be a whole number, 1",
        ),
        (lambda: flows.real_nvp(), "give features, one number, or image_shape"),
        (lambda: flows.real_nvp((8, 8, 1)), r"or image_shape; got features=\(8, 8, 1\)"),
        (lambda: flows.maf((8,)), r"event_shape must be a whole number, 1 or more; got \(8,\)"),
        (lambda: flows.real_nvp(2, hidden=3), "hidden must be a tuple of widths; got 3"),
        (
            lambda: flows.real_nvp(image_shape=(4, 4, 1), hidden=(3,)),
            "for images, hidden must be one number",
        ),
        (lambda: jb.Dequantize(1), "Dequantize: values must be a whole number, 2 or more; got 1"),
        (lambda: jb.Dequantize(2**16 + 1), "values must be 65,536 or fewer; got 65537"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_init_on_bad_batches(vector):
    with pytest.raises(ValueError, match="y holds NaN"):
        jflow.init(vector.flow, KEY, jnp.full((2, 3), jnp.nan), jnp.ones(2))
    with pytest.raises(ValueError, match=r"y must hold a batch.*got shape \(0, 3\)"):
        jflow.init(vector.flow, KEY, jnp.ones((0, 3)), jnp.ones(2))


CAUSAL = (nets.MADE((4,)), nets.TwoLevel(size=2), nets.RowNet(), nets.CausalTransformer(8))
LAYERS_OF_ARRAYS = (
    lambda net: jb.Coupling(jt.Affine(), net=net),
    lambda net: jb.HINT(jt.Affine(), net=net),
    lambda net: jb.Continuous(net),
    lambda net: jb.SDE(net),
    lambda net: jb.SDE(nets.MLP((4,)), score=net),
    lambda net: jb.Augment(2, net=net),
    lambda net: jb.RAD(net=net),
    lambda net: nets.Denoiser(net),
)


@pytest.mark.parametrize("layer", LAYERS_OF_ARRAYS)
@pytest.mark.parametrize("net", [*CAUSAL, nets.LipschitzMLP((4,))])
def test_networks_that_return_functions_are_refused_where_arrays_are_wanted(layer, net):
    with pytest.raises(TypeError, match=r"must make networks that return arrays, as nets\.MLP"):
        layer(net)


@pytest.mark.parametrize("net", [nets.MLP((4,)), nets.Transformer(8), nets.LipschitzMLP((4,))])
def test_networks_that_are_not_causal_are_refused_where_these_are_wanted(net):
    with pytest.raises(TypeError, match=r"net must make networks that return causal functions"):
        jb.MaskedAutoregressive(jt.Affine(), net=net)


def test_networks_of_velocities_are_for_layers_along_paths():
    net = nets.Denoiser(nets.MLP((4,)))
    jb.Continuous(net)
    jb.SDE(net)
    with pytest.raises(TypeError, match="the one that is given return velocities"):
        jb.Coupling(jt.Affine(), net=net)


def test_a_score_may_be_the_slope_of_a_potential():
    jb.Continuous(nets.Denoiser(nets.Potential(4), predicts="score"))
