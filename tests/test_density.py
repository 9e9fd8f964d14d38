"""Flows and densities: likelihoods, samples, latents, bits per dimension, saving."""

import copy
import hashlib
import io
import json
import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import save as to_bytes

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.distributions import Density, compiled, saving
from jflow.distributions.description import as_now, describe, difference
from jflow.distributions.recipe import RECIPES
from jflow.functional import Interval
from tests.harness import perturbed

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def vector():
    flow = flows.real_nvp(3, layers=2, hidden=(8,), context_shape=2)
    random = np.random.default_rng(0)
    y, context = (random.normal(size=(32, n)).astype(np.float32) for n in (3, 2))
    variables = perturbed(jflow.init(flow, KEY, y, context), 0.2)
    return Density(flow, variables), y, context


@pytest.fixture(scope="module")
def image():
    flow = flows.glow((4, 4, 1), levels=2, steps=3, hidden=4, values=17)
    y = (17 * np.random.default_rng(0).uniform(size=(16, 4, 4, 1)) ** 2).astype(int)
    return Density(flow, perturbed(jflow.init(flow, KEY, y), 0.05)), y


@pytest.fixture(scope="module")
def conditional_image():
    """A Real NVP on images of three classes."""
    flow = flows.real_nvp(image_shape=(4, 4, 1), levels=1, hidden=2, blocks=1, context_shape=3)
    y = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1))
    labels = np.eye(3)[np.arange(6) % 3]
    return Density(flow, perturbed(jflow.init(flow, KEY, y, labels), 0.1)), y, labels


def test_batched_single_mapped_and_jitted_log_probs_agree(vector):
    density, y, context = vector
    wanted = density.log_prob(y, context)
    assert wanted.shape == (32,)
    for i in range(4):
        np.testing.assert_allclose(density.log_prob(y[i], context[i]), wanted[i], rtol=1e-5)

    @jax.jit
    def others(y, context):
        return (
            density.log_prob(y, context),
            jax.vmap(density.log_prob)(y, context),
            density.log_prob(y.reshape(4, 8, 3), context.reshape(4, 8, 2)),
            density.log_prob(y, context[0]),
        )

    jitted, mapped, square, shared = others(y, context)
    np.testing.assert_allclose(mapped, wanted, rtol=1e-5)
    np.testing.assert_allclose(jitted, wanted, rtol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(density.log_prob(y, context), wanted, rtol=1e-5)
    assert square.shape == (4, 8)
    np.testing.assert_allclose(np.ravel(square), wanted, rtol=1e-5)
    np.testing.assert_allclose(shared[0], wanted[0], rtol=1e-5)


def test_log_probs_in_batches(vector):
    density, y, context = vector
    wanted = density.log_prob(y, context)
    for size in (5, 16, 100):
        found = density.log_prob(y, context, batch_size=size)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    square = density.log_prob(y.reshape(4, 8, 3), context[0], batch_size=5)
    np.testing.assert_allclose(square, density.log_prob(y.reshape(4, 8, 3), context[0]), rtol=1e-5)
    with pytest.raises(ValueError, match="batch_size must be a whole number, 1 or more; got 0"):
        density.log_prob(y, context, batch_size=0)
    with pytest.raises(ValueError, match="must have shape"):
        density.log_prob(y[:, :2], context, batch_size=5)
    with pytest.raises(ValueError, match="context must be"):
        density.log_prob(y, context[:5], batch_size=5)

    def bytes_of(count):
        rows = jax.ShapeDtypeStruct((count, 3), np.float32)
        arguments = (density.variables, rows, context[0], None, 64)
        program = compiled.log_prob_by_batches.lower(density.flow, *arguments).compile()
        return program.memory_analysis().temp_size_in_bytes

    # 24 bytes for each more: they are cut into batches, and joined.
    assert bytes_of(64_000) - bytes_of(6_400) <= 24 * 57_600


def test_per_example_gradients_agree_with_single_ones(vector):
    density, y, context = vector

    def loss(params, y, context):
        return Density(density.flow, {**density.variables, "params": params}).log_prob(y, context)

    @jax.jit
    def gradients(params, y, context):
        mapped = jax.vmap(jax.grad(loss), (None, 0, 0))(params, y, context)
        return mapped, jax.grad(loss)(params, y[2], context[2])

    mapped, single = gradients(density.variables["params"], y[:3], context[:3])
    last = jax.tree.map(lambda g: np.asarray(g)[2], mapped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), last, single)


def test_a_density_passes_through_jit_without_retracing(vector):
    density, y, context = vector

    @jax.jit
    @chex.assert_max_traces(n=1)
    def mean_log_prob(density, y, context):
        return density.log_prob(y, context).mean()

    # The same architecture, built anew, with other variables.
    flow = flows.real_nvp(3, layers=2, hidden=(8,), context_shape=2)
    other = Density(flow, jax.tree.map(lambda v: v * 1.5, density.variables))
    assert mean_log_prob(density, y, context) != mean_log_prob(other, y, context)
    assert len(jax.tree.leaves(density)) == len(jax.tree.leaves(density.variables))


@pytest.mark.parametrize(
    "flow",
    [
        flows.iaf(2, 2, (4,)),
        flows.planar(2, 1, direction="inverse"),
        flows.i_resnet(2, 2, (4,), direction="forward"),
    ],
    ids=lambda flow: flow.recipe.name,
)
def test_files_from_when_bijectors_had_a_direction(flow, tmp_path):
    """What is under an `Invert` now was in its place."""
    y = np.random.default_rng(0).standard_normal((8, 2))
    variables = perturbed(jflow.init(flow, KEY, y), 0.1)
    flat = flatten_dict(dict(variables), sep="/")
    old = {}
    for name, value in flat.items():
        at = name.rfind("/bijector/")
        inverted = re.search("/(conditioner|numbers|net)/", name[at:])
        old[name[:at] + name[at + len("/bijector") :] if inverted else name] = value
    assert set(old) != set(flat)
    density = jflow.Density(flow, variables)
    density.save(tmp_path / "d")
    _rewrite(tmp_path / "d", old)
    loaded = jflow.load(tmp_path / "d")
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.variables), dict(variables))


@pytest.mark.oldest
def test_samples_and_their_log_probs(vector):
    density, _, context = vector

    @jax.jit
    def draw(key):
        y, log_prob = density.sample_and_log_prob(key, (32,), context)
        return y, log_prob, density.sample(key, (32,), context)

    # In one program, because two may differ in the last digit of the same draw.
    y, log_prob, alone = draw(KEY)
    np.testing.assert_allclose(log_prob, density.log_prob(y, context), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(y, alone)
    assert density.sample(KEY, (), context[0]).shape == (3,)
    assert density.sample(KEY, 5, context[0]).shape == (5, 3)
    assert density.sample(KEY, (2, 16), context.reshape(2, 16, 2)).shape == (2, 16, 3)


def test_temperature_scales_the_latents(vector):
    density, _, context = vector
    hot, cold = (density.sample(KEY, 32, context, temperature=t) for t in (1.0, 0.5))
    z = np.asarray(density.latents(hot, context))
    np.testing.assert_allclose(density.latents(cold, context), 0.5 * z, atol=1e-4)


def test_latents_and_back(image):
    density, y = image
    z = np.asarray(density.latents(y, key=0))
    back = density.from_latents(z)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, y)
    np.testing.assert_allclose(density.latents(y, key=0), z, atol=1e-10)
    assert np.abs(density.latents(y, key=1) - z).max() > 1e-3
    levels = density.latent_levels(z)
    assert [level.shape for level in levels] == [(16, 2, 2, 2), (16, 1, 1, 8)]
    np.testing.assert_array_equal(np.concatenate([a.reshape(16, -1) for a in levels], 1), z)


def test_points_outside_the_support():
    flow = jflow.Flow(jb.Elementwise(jt.Sigmoid()), (2,))
    density = Density(flow, {})
    y = np.asarray([[0.2, 1.5], [0.2, 0.0], [-1.0, 2.0], [0.2, 0.5], [0.2, np.nan]])
    log_prob = np.asarray(density.log_prob(y))
    assert np.isneginf(log_prob[:3]).all()
    assert np.isfinite(log_prob[3])
    assert np.isnan(log_prob[4])
    assert np.isfinite(density.latents(y)[:4]).all()
    gradient = np.asarray(jax.jit(jax.vmap(jax.grad(density.log_prob)))(y))
    np.testing.assert_array_equal(gradient[:3], 0)
    assert np.abs(gradient[3]).max() > 0


def test_bits_per_dim_of_a_uniform_density_are_log2_of_the_levels():
    order = jb.Chain((jb.Dequantize(17), jb.Permute((0, 1, 2))))
    flow = jflow.Flow(order, (3,), jflow.StandardUniform())
    y = np.asarray([[0, 16, 3]])
    bits = Density(flow, {}).bits_per_dim(y, KEY, samples=3)
    np.testing.assert_allclose(bits, np.log2(17), rtol=1e-6)
    shared = Density(flow, {}).bits_per_dim(y, KEY, dimensions=2)
    np.testing.assert_allclose(shared, 3 / 2 * np.log2(17), rtol=1e-6)


def test_bits_per_dim_is_a_bound_on_the_discrete_model():
    # y = 0..3 cells of sigmoid(x): P(y) is known exactly from the normal's distribution function
    from scipy.stats import norm

    flow = jflow.Flow(jb.Chain((jb.Dequantize(4), jb.Elementwise(jt.Sigmoid()))), (1,))
    edges = np.asarray([-np.inf, np.log(1 / 3), 0, np.log(3), np.inf])
    exact = -np.log2(np.diff(norm.cdf(edges)))
    bits = Density(flow, {}).bits_per_dim(np.arange(4)[:, None], KEY, samples=20_000)
    assert (bits > exact).all()
    np.testing.assert_allclose(bits[1:3], exact[1:3], rtol=0.02)


def test_averaging_over_dequantization_noise(image):
    density, y = image
    once = [np.asarray(density.bits_per_dim(y, jax.random.key(i))) for i in range(4)]
    assert np.std([b.mean() for b in once]) > 0
    assert density.bits_per_dim(y, KEY, samples=4).shape == (16,)


@pytest.mark.oldest
@pytest.mark.parametrize("build", ["vector", "image"])
def test_save_and_load(build, request, tmp_path):
    density, y, *_ = request.getfixturevalue(build)
    density.save(tmp_path / "density")
    loaded = jflow.load(tmp_path / "density")
    assert loaded.flow == density.flow
    chex.assert_trees_all_equal(loaded.variables, dict(density.variables))
    if build == "image":
        np.testing.assert_array_equal(loaded.bits_per_dim(y, KEY), density.bits_per_dim(y, KEY))
    density.save(tmp_path / "density")  # replaces
    assert len(list((tmp_path / "density").iterdir())) == 2


def test_a_flow_of_ones_own_is_loaded_by_giving_it(tmp_path):
    flow = jflow.Flow(jb.ActNorm(), (2,))
    density = Density(flow, jflow.init(flow, KEY, np.random.default_rng(0).normal(size=(5, 2))))
    density.save(tmp_path / "d")
    with pytest.raises(ValueError, match=r"not built by a recipe; give it: load\(path, flow="):
        jflow.load(tmp_path / "d")
    loaded = jflow.load(tmp_path / "d", flow=flow)
    chex.assert_trees_all_equal(loaded.variables, density.variables)
    with pytest.raises(ValueError, match=r"does not fit the flow: it was saved with .*\[2\]"):
        jflow.load(tmp_path / "d", flow=jflow.Flow(jb.ActNorm(), (3,)))
    with pytest.raises(ValueError, match=r"does not fit the flow: missing .*transformer"):
        jflow.load(tmp_path / "d", flow=jflow.Flow(jb.Elementwise(jt.Affine()), (2,)))
    bounded = lambda bound: jflow.Flow(jb.Elementwise(jt.Affine(bound)), (2,))  # noqa: E731
    Density(bounded(2.0), jflow.init(bounded(2.0), KEY, np.ones((2, 2)))).save(tmp_path / "e")
    with pytest.raises(ValueError, match=r"bijector.transformer.bound was 2.0, and is 5.0"):
        jflow.load(tmp_path / "e", flow=bounded(5.0))
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match="was saved in float64; switch it on"):
            jflow.load(tmp_path / "d", flow=flow)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_arrays_of_another_shape_are_refused(tmp_path):
    def flow(width):
        return jflow.Flow(jb.Coupling(jt.Affine(), nets.MLP((width,))), (2,))

    density = Density(flow(4), jflow.init(flow(4), KEY, np.ones((5, 2))))
    density.save(tmp_path / "d")
    with pytest.raises(ValueError, match=r"hidden_0/bias has shape \(4,\); the flow has \(5,\)"):
        jflow.load(tmp_path / "d", flow=flow(5))


def test_a_flow_changed_after_its_recipe_is_not_loaded_as_the_recipe(vector, tmp_path):
    density = vector[0]
    changed = density.flow.clone(base=jflow.StandardLogistic())
    Density(changed, density.variables).save(tmp_path / "d")
    with pytest.raises(ValueError, match="not built by a recipe; give it"):
        jflow.load(tmp_path / "d")
    other = jb.Chain((jb.Dequantize(4), changed.bijector))
    with pytest.raises(ValueError, match=r"saved with .*'integers': None.*has .*: \[0, 3\]"):
        jflow.load(tmp_path / "d", flow=changed.clone(bijector=other))


def test_bfloat16_parameters_are_saved_too(tmp_path):
    net = nets.MLP((4,), param_dtype=jnp.bfloat16)
    flow = jflow.Flow(jb.Coupling(jt.Affine(), net), (2,))
    density = Density(flow, jflow.init(flow, KEY, np.ones((5, 2))))
    density.save(tmp_path / "d")
    loaded = jflow.load(tmp_path / "d", flow=flow)
    chex.assert_trees_all_equal(loaded.variables, density.variables)
    chex.assert_trees_all_equal_dtypes(loaded.variables, density.variables)


def test_what_a_killed_save_left_does_not_block_the_next(vector, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / ".variables-0123.safetensors.77.tmp").write_bytes(b"half")
    vector[0].save(folder)
    assert jflow.load(folder).flow == vector[0].flow


def test_a_save_while_it_is_loaded(vector, tmp_path, monkeypatch):
    density, read = vector[0], saving._read_config
    other = Density(density.flow, jax.tree.map(lambda v: v * 0.5, dict(density.variables)))
    density.save(tmp_path / "d")
    saves = [other]

    def overtaken(folder):
        config = read(folder)
        if saves:
            saves.pop().save(folder)  # what was just read of is gone
        return config

    monkeypatch.setattr(saving, "_read_config", overtaken)
    chex.assert_trees_all_equal(jflow.load(tmp_path / "d").variables, other.variables)


def test_checks_do_not_break_inside_jit(image):
    density, y = image
    bits = jax.jit(lambda key: density.bits_per_dim(y, key))(KEY)
    np.testing.assert_allclose(bits, density.bits_per_dim(y, KEY), rtol=1e-6)
    flow = jflow.Flow(jb.ActNorm(), (2,))
    jax.jit(lambda key: jflow.init(flow, key, jnp.arange(6.0).reshape(3, 2)))(KEY)


class Positive(jflow.StandardNormal):
    """What it says of itself is wrong."""

    def support(self, event_shape):
        return Interval(0.0)


def test_samples_whose_density_does_not_exist_have_no_log_prob():
    flow = jflow.Flow(jb.Elementwise(jt.Power(2.0)), (1,), Positive())
    _, log_prob = Density(flow, {}).sample_and_log_prob(KEY, 50)
    assert np.isneginf(log_prob).any()
    assert np.isfinite(log_prob).any()
    assert not np.isposinf(log_prob).any()


def test_empty_batches(image, conditional_image):
    density, _ = image
    assert density.log_prob(np.ones((0, 4, 4, 1), int), key=0).shape == (0,)
    assert density.sample(KEY, 0).shape == (0, 4, 4, 1)
    density, _, labels = conditional_image
    assert density.sample(KEY, np.int64(0), labels[0]).shape == (0, 4, 4, 1)


def test_damaged_and_foreign_files(vector, tmp_path):
    density = vector[0]
    with pytest.raises(FileNotFoundError, match="no saved density at"):
        jflow.load(tmp_path / "nothing")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"model": "other"}')
    with pytest.raises(ValueError, match="is not the file of a saved density, or is damaged"):
        jflow.load(tmp_path / "foreign")
    with pytest.raises(FileExistsError, match="something other than a saved density"):
        density.save(tmp_path / "foreign")
    folder = tmp_path / "d"
    density.save(folder)
    (file,) = folder.glob("*.safetensors")
    content = file.read_bytes()
    for damaged in (content[:-5], content[:200] + b"x" + content[201:], b"", b"\x80\x04N."):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged: its checksum is not"):
            jflow.load(folder)
    file.unlink()
    with pytest.raises(ValueError, match="is incomplete"):
        jflow.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99; this jflow reads formats 1 to 2"),
        ({"recipe": {"name": "magic", "arguments": {}}}, "unknown recipe 'magic'; known are"),
        ({"recipe": {"name": "glow", "arguments": {"size": 1}}}, "refuses its arguments"),
        ({"recipe": 3}, "is not the file of a saved density, or is damaged"),
        ({"variables": 3}, "is not the file of a saved density, or is damaged"),
    ],
)
def test_altered_configs(vector, tmp_path, change, message):
    vector[0].save(tmp_path / "d")
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    (tmp_path / "d" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        jflow.load(tmp_path / "d")


def test_recipes_refuse_what_cannot_be_saved():
    with pytest.raises(TypeError, match="a recipe takes numbers, strings, dtypes and tuples"):
        flows.real_nvp(3, dropout=object())  # type: ignore[arg-type]
    flow = flows.real_nvp(3, layers=2, dtype=jnp.bfloat16)  # type: ignore[arg-type]
    assert json.loads(flow.recipe.arguments)["dtype"] == "bfloat16"
    flow = flows.real_nvp(np.int64(3), layers=2)  # type: ignore[arg-type]
    assert json.loads(flow.recipe.arguments)["features"] == 3
    with pytest.raises(ValueError, match=r"recipe 'glow' is already defined in jflow.flows.glow"):
        jflow.recipe(_named("glow"))


def _named(name):
    def build():
        return jflow.Flow(jb.ActNorm(), (2,))

    build.__name__ = name
    return build


def test_bfloat16_networks_keep_float32_parameters_and_log_probs():
    flow = flows.glow((4, 4, 1), levels=1, steps=2, hidden=4, values=None, dtype="bfloat16")
    y = np.random.default_rng(0).uniform(size=(8, 4, 4, 1)).astype(np.float32)
    variables = perturbed(jflow.init(flow, KEY, y), 0.1)
    assert {v.dtype for v in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    density = Density(flow, variables)

    @jax.jit
    def run(y):
        return density.log_prob(y), density.from_latents(density.latents(y))

    log_prob, again = run(y)
    assert log_prob.dtype == jnp.float32
    np.testing.assert_allclose(again, y, atol=1e-4)


def test_context_changes_the_density_of_every_recipe(conditional_image):
    cases, labels_of_images = [conditional_image], conditional_image[2]
    for flow in (
        flows.nice(4, layers=2, hidden=(4,), context_shape=3),
        flows.glow((4, 4, 1), levels=2, steps=1, hidden=2, values=None, context_shape=3),
    ):
        y, labels = np.random.default_rng(0).uniform(size=(6, *flow.event_shape)), labels_of_images
        density = Density(flow, perturbed(jflow.init(flow, KEY, y, labels), 0.1))
        cases.append((density, y, labels))
    for density, y, labels in cases:
        one, other = (np.asarray(density.log_prob(y, c, key=0)) for c in (labels, labels[::-1]))
        assert np.abs(one - other).max() > 1e-3


def test_initialisation_standardises_every_actnorm_of_a_deep_flow(image, monkeypatch):
    flow = flows.glow((4, 4, 1), levels=2, steps=3, hidden=4, values=None)
    y = (image[1] + 0.5) / 17
    variables = jflow.init(flow, KEY, y)
    plain = jb.ActNorm.inverse_and_log_det

    def recording(self, y, context=None):
        x, log_det = plain(self, y, context)
        self.sow("seen", "x", x)
        return x, log_det

    monkeypatch.setattr(jb.ActNorm, "inverse_and_log_det", recording)
    look = jax.jit(lambda y: flow.apply(variables, y, method="log_prob", mutable=["seen"])[1])
    # Those of layers that are stacked are stacked.
    outputs = [x.reshape(-1, *x.shape[-4:]) for x in jax.tree.leaves(look(y))]
    assert sum(map(len, outputs)) == 10  # 3 steps on 2 levels, and 2 pairs of checkerboards
    for x in outputs:
        np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 0, atol=1e-10)
        np.testing.assert_allclose(x.var(axis=(1, 2, 3)), 1, atol=1e-10)


def test_forward_initialisation_standardises_the_data_side():
    layer = jb.Repeat(jb.ActNorm(), 2)
    x = 3 * np.random.default_rng(0).normal(size=(50, 2)) + 1

    @jax.jit
    def run(x):
        variables = layer.init(KEY, x, method="forward_and_log_det")
        return layer.apply(variables, x, method="forward_and_log_det")

    y = np.asarray(run(x)[0])
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(y.var(0), 1, atol=1e-10)


def test_constant_channels_are_only_shifted_at_initialisation():
    y = np.stack([np.full(10, 1e4 / 3), np.arange(10.0)], axis=1)
    for dtype in (np.float32, np.float64):
        variables = jflow.init(jb.ActNorm(), KEY, y.astype(dtype))
        assert float(np.asarray(variables["params"]["log_scale"])[0]) == 0


def test_sharded_initialisation_equals_that_on_one_device(image):
    devices = jax.devices("cpu")
    if len(devices) < 8:
        pytest.skip("needs 8 simulated devices: tests/conftest.py sets them")
    flow, y = image[0].flow, image[1]
    mesh = Mesh(np.asarray(devices[:8]), ("batch",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(y, NamedSharding(mesh, PartitionSpec("batch")))
    one, many = jflow.init(flow, KEY, y), jflow.init(flow, KEY, sharded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), one, many)
    for leaf in jax.tree.leaves(many["params"]):
        assert leaf.is_fully_replicated


def test_contexts_are_those_of_the_last_axes(vector, monkeypatch):
    """Fifty samples of each of four contexts, and scores of them."""
    density, _, context = vector
    context = context[:4]
    y = density.sample(KEY, (50, 4), context)
    whole = np.broadcast_to(context, (50, 4, 2))
    np.testing.assert_array_equal(y, density.sample(KEY, (50, 4), whole))
    wanted = density.log_prob(y, whole)
    np.testing.assert_allclose(density.log_prob(y, context), wanted, rtol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "apply", None)  # not all at once
        np.testing.assert_allclose(density.log_prob(y, context, batch_size=7), wanted, rtol=1e-5)
    assert density.sample_and_log_prob(KEY, (2, 3, 4), context)[1].shape == (2, 3, 4)
    message = (
        r"context must be \(2,\) or \(50, 4, 2\), or have the last axes of that; got \(50, 2\)"
    )
    with pytest.raises(ValueError, match=message):
        density.sample(KEY, (50, 4), whole[:, 0])


def _joblib(density):
    joblib = pytest.importorskip("joblib")
    file = io.BytesIO()
    joblib.dump(density, file)
    file.seek(0)
    return joblib.load(file)


COPIES = {
    "pickle": lambda density: pickle.loads(pickle.dumps(density)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "joblib": _joblib,
    "cloudpickle": lambda density: pickle.loads(
        pytest.importorskip("cloudpickle").dumps(density)
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_every_recipe_are_equal(how):
    for name, build in RECIPES.items():
        if name in flows.__all__:
            flow = (
                build((8, 8, 1))
                if name in ("dense_flow", "flow_pp", "glow", "jet", "tarflow", "vflow")
                else build(3)
            )
            copied = COPIES[how](Density(flow, {"params": {"a": np.ones(3)}}))
            assert copied.flow == flow
            assert hash(copied.flow) == hash(flow)
            assert copied.flow.recipe == flow.recipe
            np.testing.assert_array_equal(copied.variables["params"]["a"], 1)


def test_a_copy_compiles_nothing_again():
    net = nets.MLP((4,), activation=jax.nn.gelu)
    flow = jflow.Flow(jb.Chain((jb.ActNorm(), jb.Coupling(jt.Affine(), net))), (3,))
    y = jnp.ones((4, 3))
    density = Density(flow, jflow.init(flow, KEY, y))
    wanted = density.log_prob(y)
    before = compiled.apply._cache_size()
    for of in COPIES.values():
        np.testing.assert_array_equal(of(density).log_prob(y), wanted)
    assert compiled.apply._cache_size() == before


def test_activations_are_known_by_name():
    for name in ("silu", "relu", "gelu", "elu", "tanh", "softplus"):
        function = getattr(jnp if name == "tanh" else jax.nn, name)
        assert nets.MLP(activation=function) == nets.MLP(activation=name)
        x = jnp.linspace(-3, 3, 7)
        np.testing.assert_allclose(nets.MADE(activation=name).act(x), function(x), rtol=1e-12)
    with pytest.raises(ValueError, match=r"MLP: activation must be one of silu, .* got 'swoosh'"):
        nets.MLP(activation="swoosh")
    with pytest.raises(TypeError, match="MADE: activation must be a name or a function; got 3"):
        nets.MADE(activation=3)


class _Plain:
    def __init__(self, scale):
        self.scale = scale


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (
            {"is": "MaskedAutoregressive", "transformer": {"is": "Affine"}, "direction": "forward"},
            jb.Invert(jb.MaskedAutoregressive(jt.Inverted(jt.Affine()))),
        ),
        (
            {"is": "Coupling", "transformer": {"is": "Invert", "transformer": {"is": "Affine"}}},
            jb.Coupling(jt.Inverted(jt.Affine()), nets.MLP()),
        ),
        (
            {"is": "MaskedAutoregressive", "direction": "forward",
             "transformer": {"is": "Invert", "transformer": {"is": "SoftplusAffine"}}},
            jb.Invert(jb.MaskedAutoregressive(jt.SoftplusAffine())),
        ),
        ({"is": "Planar", "direction": "inverse"}, jb.Invert(jb.Planar())),
        ({"is": "Planar", "direction": "forward"}, jb.Planar()),
        (
            {"is": "RowAutoregressive", "hidden": 8, "rows": 1, "width": 3, "order": "up",
             "net": {"is": "Net", "activation": "tanh"}},
            jb.RowAutoregressive(jt.Affine(), nets.RowNet(8, 1, 3, activation="tanh"), "up"),
        ),
    ],
)  # fmt: skip
def test_descriptions_by_earlier_versions(then, now):
    told = describe(now)
    assert difference({"parts": [then]}, {"parts": [told]}, values_only=True) is not None
    assert difference(as_now({"parts": [then]}), {"parts": [told]}, values_only=True) is None
    assert as_now(told) == told


@pytest.mark.parametrize("direction", ["up", "forward"])
def test_a_direction_of_something_else_stays(direction):
    told = describe({"a": {"direction": direction}, "b": [{"is": "Mine", "direction": direction}]})
    assert as_now(told) == told


@pytest.mark.parametrize("layer", [jb.Planar(), jb.Residual(nets.LipschitzMLP((4,)))], ids=repr)
def test_parameters_that_are_single_numbers_are_saved(layer, tmp_path):
    """NumPy makes arrays of one entry of them, and so were those in files."""
    flow = jflow.Flow(layer, (3,))
    density = Density(flow, jflow.init(flow, KEY, np.zeros((2, 3))))
    assert any(leaf.shape == () for leaf in jax.tree.leaves(density.variables["params"]))
    density.save(tmp_path / "d")
    loaded = jflow.load(tmp_path / "d", flow=flow)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, density.variables)
    flat = flatten_dict(dict(density.variables), sep="/")
    _rewrite(tmp_path / "d", {name: np.atleast_1d(value) for name, value in flat.items()})
    again = jflow.load(tmp_path / "d", flow=flow)
    jax.tree.map(np.testing.assert_array_equal, again.variables, density.variables)


def _rewrite(folder, arrays):
    """Puts other arrays into the files of a density."""
    (file,) = folder.glob("*.safetensors")
    content = to_bytes({name: np.array(value) for name, value in arrays.items()})
    file.write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["variables"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def test_descriptions_tell_what_differs():
    base = lambda scale: lambda shape, dtype: jflow.BoxUniform(-scale, scale)(shape, dtype)  # noqa: E731
    told = [describe(jflow.Flow(jb.ActNorm(), (2,), base(scale))) for scale in (1.0, 1.0, 2.0)]
    assert told[0] == told[1] == json.loads(json.dumps(told[0]))
    assert difference(told[0], told[2]) == "base.given[0] was 1.0, and is 2.0"
    assert difference(describe(_Plain(1)), describe(_Plain(2))) == "scale was 1, and is 2"
    net = nets.MLP((4,), dtype="bfloat16", dropout=0.1)
    other = nets.MLP((4, 4))
    assert difference(describe(net), describe(nets.MLP((4,))), values_only=True) is None
    assert difference(describe(net), describe(nets.MLP((4,)))) is not None
    assert difference(describe(net), describe(other), values_only=True) == (
        "hidden was [4], and is [4, 4]"
    )
    # Fields that came later are passed over for files, and tell two runs apart.
    older = {name: value for name, value in describe(other).items() if name != "dropout"}
    assert difference(older, describe(other), values_only=True) is None
    assert difference(older, describe(other)) == "dropout was None, and is 0.0"
