"""Exact inputs, exact outputs: ends of intervals, infinity, whole numbers, shapes, instances."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.distributions.base import default_promotion
from tests.test_transformers import ON_LINE, ON_UNIT, OTHERS, names

KEY = jax.random.key(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transformer", ON_UNIT, ids=names)
def test_ends_of_an_interval_go_to_its_ends(transformer, dtype):
    random = np.random.default_rng(0)
    params = jnp.asarray(random.choice([-20.0, 20.0], (100, transformer.num_params)), dtype)
    x = jnp.tile(jnp.asarray([0.0, 1.0], dtype), 50)

    @jax.jit
    def there_and_back(x, params):
        y, log_det = transformer.forward_and_log_det(x, params)
        return y, log_det, *transformer.inverse_and_log_det(y, params)

    y, log_det, back, opposite = there_and_back(x, params)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(back, x)
    np.testing.assert_allclose(log_det, -opposite, rtol=1e-5)


@pytest.mark.parametrize("transformer", [jt.Tanh(), jt.Sigmoid(), jt.Softplus(), jt.Exp()])
def test_samples_stay_inside_of_open_ends(transformer):
    x = jnp.asarray([-1e6, -200, -88, -20, 0, 20, 87, 200, 1e6, np.nan], jnp.float32)
    none = jnp.zeros((len(x), 0), x.dtype)
    y, _ = transformer.forward_and_log_det(x, none)
    back, log_det = transformer.inverse_and_log_det(y, none)
    low, high = transformer.codomain
    assert ((y[:-1] > low) & (y[:-1] < high)).all()
    assert np.isfinite(back[:-1]).all()
    assert np.isfinite(log_det[:-1]).all()
    assert jnp.isnan(y[-1])
    # Latents, too: of the other direction.
    inverse = jt.Inverted(transformer)
    np.testing.assert_array_equal(inverse.inverse_and_log_det(x, none)[0], y)


@pytest.mark.parametrize("base", [jflow.StandardNormal(), jflow.StandardLogistic()])
def test_no_density_at_infinity(base):
    far = jnp.asarray([[np.inf, 0, 0], [0, -np.inf, 0], [0, 0, np.inf], [-np.inf, np.inf, 0]])
    unknown = jnp.asarray([[np.nan, np.inf, 0]])
    with default_promotion():  # Distrax promotes ranks
        assert jnp.isneginf(base((3,), far.dtype).log_prob(far)).all()
        assert jnp.isnan(base((3,), far.dtype).log_prob(unknown)).all()
    flow = flows.nsf(3, layers=2, hidden=(4,), bins=4).clone(base=base)
    y = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3)))
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(density.log_prob)))(far)
    assert jnp.isneginf(value).all()
    assert (slope == 0).all()
    assert np.isfinite(density.latents(far)).all()
    assert jnp.isnan(density.log_prob(unknown)).all()


class _Unhashable:
    def __eq__(self, other):  # so that Python takes the hash away
        return True

    def __call__(self, event_shape, dtype):
        return jflow.StandardNormal()(event_shape, dtype)


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        (lambda shape, dtype: distrax.Normal(jnp.zeros(shape, dtype), jnp.ones(shape, dtype)),
         ValueError, r"one log_prob for each event \(3,\): \(5,\) of them, not \(5, 3\)"),
        (lambda shape, dtype: distrax.MultivariateNormalDiag(jnp.zeros(2, dtype)),
         ValueError, r"base must be of events \(3,\)"),
        (distrax.MultivariateNormalDiag(np.zeros(3)), TypeError, "base must make a distribution"),
        (_Unhashable(), TypeError, "base must be hashable, .* got _Unhashable"),
    ],
    ids=["not reduced", "of another size", "a distribution", "not hashable"],
)  # fmt: skip
def test_bases_that_do_not_fit_are_refused_when_a_flow_is_built(base, error, message):
    with pytest.raises(error, match=message):
        jflow.Flow(jb.ActNorm(), (3,), base)


def test_a_module_that_is_no_base_is_refused_by_init():
    flow = jflow.Flow(jb.ActNorm(), (3,), jflow.StudentT())
    wrong = flow.clone(base=_NotReduced())
    with pytest.raises(ValueError, match="one log_prob for each event"):
        jflow.init(wrong, KEY, jnp.ones((4, 3)))


class _NotReduced(jflow.StudentT):
    def __call__(self, event_shape, dtype, context=None):
        return distrax.Normal(jnp.zeros(event_shape, dtype), jnp.ones(event_shape, dtype))


@pytest.mark.parametrize("layer", [jb.ActNorm, jb.BatchNorm, jb.Permute, jb.Reverse])
def test_layers_of_channels_need_an_event_axis(layer):
    with pytest.raises(ValueError, match=r"event_ndim must be a whole number, 1 or more; got 0"):
        layer(event_ndim=0)


def test_an_instance_has_one_place():
    shared = jb.ActNorm()
    with pytest.raises(ValueError, match="one instance of ActNorm is in it twice"):
        jb.Chain((shared, jb.Chain((jb.Reverse(), shared))))
    level = jb.Squeeze()
    with pytest.raises(ValueError, match="one instance of Squeeze is in it twice"):
        jb.MultiScale((level, jb.Chain((level,))), (4, 4, 1))


def _multiscale(*layers, split="half"):
    level = lambda: jb.Chain((jb.Squeeze(), *(layer() for layer in layers)))  # noqa: E731
    return jb.MultiScale((level(), level()), (4, 4, 1), split)


def test_levels_are_kept_by_layers_that_move_nothing():
    x = jnp.arange(16.0)
    levels = [(2, 2, 2), (1, 1, 8)]
    for after in (jb.ActNorm(), jb.Repeat(jb.Elementwise(jt.Affine()), 2)):
        found = jb.Chain((_multiscale(), after)).latent_levels(x)
        assert [level.shape for level in found] == levels
    assert len(jb.Chain((_multiscale(), jb.Permute())).latent_levels(x)) == 1


def test_channels_are_ranked_after_residual_levels():
    block = lambda: jb.Residual(nets.LipschitzConvNet((4, 4), coefficient=0.9))  # noqa: E731
    layer = _multiscale(block, split="likelihood")
    y = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 4, 1)), jnp.float32)
    order = jflow.init(layer, KEY, y)["constants"]["order_0"]
    assert sorted(order.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("transformer", [*ON_LINE, *ON_UNIT, *OTHERS], ids=names)
def test_parameters_and_points_broadcast(transformer):
    random = np.random.default_rng(0)
    params = jnp.asarray(0.3 * random.standard_normal((1, 2, transformer.num_params)))
    x = jnp.asarray(random.uniform(0.1, 0.9, (3, 1)))
    apply = jax.jit(transformer.forward_and_log_det)
    wide = apply(jnp.broadcast_to(x, (3, 2)), jnp.broadcast_to(params, (3, 2, params.shape[-1])))
    for found, wanted in zip(apply(x, params), wide, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    one = apply(x, params[0, 0])  # fewer axes
    np.testing.assert_allclose(one[0], wide[0][:, :1], rtol=1e-12)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_low_rank_convolutions_of_few_channels(channels):
    y = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 2, channels)))
    layer = jb.WoodburyConv()
    jflow.init(layer, KEY, y)


@pytest.mark.parametrize("layer", [jb.Permute((1, 0, 3, 2)), jb.Reverse(), jb.Squeeze()])
def test_whole_numbers_are_moved_as_they_are(layer):
    shape = (2, 2, 4) if isinstance(layer, jb.Squeeze) else (4,)
    y = jnp.full(shape, 2**24 + 1, jnp.int32)
    x, log_det = layer.apply({}, y, method="inverse_and_log_det")
    assert x.dtype == jnp.int32
    assert (x == 2**24 + 1).all()
    assert jnp.issubdtype(log_det.dtype, jnp.floating)
    np.testing.assert_array_equal(layer.apply({}, x, method="forward"), y)


def test_a_mesh_that_someone_has_set_changes_no_program():
    flow = flows.nsf(2, layers=2, hidden=(4,), bins=4)
    variables = jax.eval_shape(lambda: jflow.init(flow, KEY, jnp.ones((4, 2))))

    def program():
        # Anew, since JAX keeps what it has traced.
        loss = lambda v, y: jnp.sum(flow.apply(v, y, method="log_prob"))  # noqa: E731
        return str(jax.make_jaxpr(loss)(variables, jnp.ones((4, 2))))

    alone = program()
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        inside = program()
    assert alone.count("remat") == inside.count("remat")


def test_shapes_in_both_directions():
    squeeze = jb.Chain((jb.Squeeze(), jb.Invert(jb.Squeeze()), jb.Squeeze()))
    assert squeeze.latent_shape((4, 6, 3)) == (2, 3, 12)
    assert squeeze.data_shape((2, 3, 12)) == (4, 6, 3)
    assert jb.Invert(squeeze).latent_shape((2, 3, 12)) == (4, 6, 3)
    assert jb.Invert(_multiscale()).latent_shape((16,)) == (4, 4, 1)
    with pytest.raises(ValueError, match="channels that 4 divides"):
        jb.Invert(jb.Squeeze()).latent_shape((2, 2, 3))
