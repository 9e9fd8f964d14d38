"""Contexts of any shape: their units, encoders, images, sets; saved, streamed, refused."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.nets.layers import context_of_pixels

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
C = RANDOM.normal(size=(600, 1))
Y = np.concatenate([np.sin(2 * C), C**2], axis=1) + 0.1 * RANDOM.normal(size=(600, 2))
Y = Y.astype(np.float32)


class Pool(nn.Module):
    """The mean over the known points of a set, of a network's features."""

    features: int = 4

    @nn.compact
    def __call__(self, context):
        dtype = context["points"].dtype
        h = nn.Dense(self.features, dtype=dtype, param_dtype=dtype)(context["points"])
        mask = context["mask"][..., None]
        return jnp.sum(mask * nn.silu(h), axis=-2) / jnp.maximum(jnp.sum(mask, axis=-2), 1)


SET = {"points": (5, 2), "mask": (5,)}


def a_set(rows):
    mask = (np.arange(5) < RANDOM.integers(1, 6, size=(rows, 1))).astype(np.float32)
    points = RANDOM.normal(size=(rows, 5, 2)).astype(np.float32)
    return {"points": points * mask[..., None], "mask": mask}


def set_flow():
    step = jb.Chain((jb.Coupling(jt.Affine(), nets.MLP((8,))), jb.Reverse()))
    return jflow.Flow(jb.Repeat(step, 2), (2,), context_shape=SET, encoder=Pool())


def moved(density):
    """The density with all of its parameters changed."""
    params = jax.tree.map(lambda p: p + 0.1, density.variables["params"])
    return jflow.Density(density.flow, {**density.variables, "params": params})


def initialised(flow, y, context):
    return moved(jflow.Density(flow, jflow.init(flow, KEY, y, context)))


def nll(flow, context):
    context = context.astype(np.float32)
    density, _ = jflow.fit(
        flow, Y, context=context, key=KEY, steps=150, evaluate_every=150, progress=False
    )
    return jflow.evaluate(density, Y, context=context, key=KEY).mean


def test_units_of_contexts_do_not_matter():
    flow = flows.nsf(2, 2, hidden=(16, 16), context_shape=1)
    wanted = nll(flow, C)
    for scale, offset in ((10, 2000), (1e6, 0), (1e-6, 0)):
        np.testing.assert_allclose(nll(flow, scale * C + offset), wanted, atol=0.02)
    raw = flow.clone(standardize_context=False)
    assert nll(raw, 10 * C + 2000) > wanted + 0.5


def test_classes_and_masks_stay_as_they_are():
    flow = flows.maf(2, 1, (4,), context_shape=4)
    classes = np.eye(3)[RANDOM.integers(3, size=64)]
    context = np.concatenate([classes, np.full((64, 1), 1990.0)], axis=1)
    constants = jflow.init(flow, KEY, Y[:64], context)["constants"]["context_scale"]
    np.testing.assert_array_equal(constants["mean"], [0, 0, 0, 1990])
    np.testing.assert_array_equal(constants["log_std"], 0)
    constants = jflow.init(flow, KEY, Y[:64], context[0])["constants"]["context_scale"]
    np.testing.assert_array_equal(constants["mean"], 0)


def test_a_set_with_a_mask():
    density = initialised(set_flow(), Y[:64], a_set(64))
    names = {"mask.log_std", "mask.mean", "points.log_std", "points.mean"}
    assert set(density.variables["constants"]["context_scale"]) == names
    y, context = Y[:6], a_set(6)
    whole = density.log_prob(y, context)
    # What the mask leaves out, and the order of the others, do not matter.
    hidden = context["points"] + 7 * (1 - context["mask"])[..., None]
    turned = {"points": hidden[:, ::-1], "mask": context["mask"][:, ::-1]}
    constants = density.variables["constants"]["context_scale"]
    assert not np.any(constants["mask.mean"])
    np.testing.assert_allclose(density.log_prob(y, turned), whole, rtol=1e-5)
    # One for all, for the last axes, in batches, and through vmap.
    one = {name: part[0] for name, part in context.items()}
    np.testing.assert_allclose(density.log_prob(y, one)[0], whole[0], rtol=1e-5)
    twice = np.stack([y, y])
    np.testing.assert_allclose(density.log_prob(twice, context), [whole, whole], rtol=1e-5)
    batches = density.log_prob(twice, context, batch_size=5)
    np.testing.assert_allclose(batches, [whole, whole], rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(density.log_prob)(y, context), whole, rtol=1e-5)
    none = jax.tree.map(lambda part: part[:0], context)
    assert density.log_prob(y[:0], none).shape == (0,)
    samples = density.sample(KEY, (3, 6), context)
    z = density.latents(samples, context)
    np.testing.assert_allclose(density.from_latents(z, context), samples, atol=1e-5)


def test_a_set_is_learned_saved_and_exported(tmp_path):
    context = a_set(300)
    mean = context["points"].sum(1) / context["mask"].sum(1)[:, None]
    y = (mean + 0.1 * RANDOM.normal(size=mean.shape)).astype(np.float32)
    density, history = jflow.fit(
        set_flow(), y, context=context, key=KEY, learning_rate=1e-2, steps=200, evaluate_every=200,
        validation=(y[:50], jax.tree.map(lambda part: part[:50], context)), progress=False,
    )  # fmt: skip
    assert "kernel" in density.variables["params"]["encoder"]["Dense_0"]
    assert history.rows[-1]["validation_nll"] < -0.5
    given = y[:4], jax.tree.map(lambda part: part[:4], context)
    wanted = density.log_prob(*given)
    density.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="not built by a recipe; give it"):
        jflow.load(tmp_path / "saved")
    again = jflow.load(tmp_path / "saved", flow=set_flow())
    np.testing.assert_array_equal(again.log_prob(*given), wanted)
    density.export(tmp_path / "export")
    read = jax.export.deserialize(bytearray((tmp_path / "export/log_prob.jaxexport").read_bytes()))
    np.testing.assert_allclose(read.call(*given), wanted, rtol=1e-5, atol=1e-5)
    described = json.loads((tmp_path / "export/export.json").read_text())
    assert described["context_shape"] == {"mask": [5], "points": [5, 2]}
    arguments = described["programs"]["log_prob"]["arguments"]
    assert arguments["context"]["points"] == "float32[batch, 5, 2]"


def test_streams_of_sets():
    import grain

    y, context = Y[:40], a_set(40)
    rows = [
        {"y": y[i], "context": {name: part[i] for name, part in context.items()}} for i in range(40)
    ]
    stream = grain.MapDataset.source(rows)
    options = {"key": KEY, "steps": 2, "batch_size": 8, "evaluate_every": 2, "progress": False}
    density, _ = jflow.fit(set_flow(), stream, validation=0.25, **options)
    assert np.isfinite(jflow.evaluate(density, stream, key=KEY).mean)


def target(y, context):
    context = jax.tree.map(lambda part: part.astype(y.dtype), context)
    mean = jnp.sum(context["points"], axis=-2) / jnp.sum(context["mask"], axis=-1)[..., None]
    return -jnp.sum(jnp.square(y - mean), axis=-1)


def test_targets_of_sets():
    context = jax.tree.map(np.float64, a_set(20))
    options = {"steps": 3, "evaluate_every": 3, "clip_norm": None, "progress": False}
    density, _ = jflow.fit_to_target(
        set_flow(), target, key=KEY, context=context, samples=16, evaluation_samples=64, **options
    )
    assert density.sample(KEY, 20, a_set(20)).shape == (20, 2)


def test_an_image_conditioned_on_a_smaller_one():
    flow = flows.glow((8, 8, 1), 2, 1, 4, values=None).clone(context_shape=(2, 2, 1))
    images = RANDOM.uniform(size=(16, 8, 8, 1)).astype(np.float32)
    small = images.reshape(16, 2, 4, 2, 4, 1).mean((2, 4))
    density = initialised(flow, images, small)
    log_prob = density.log_prob(images, small)
    assert log_prob.shape == (16,)
    z = density.latents(images, small)
    np.testing.assert_allclose(density.from_latents(z, small), images, atol=1e-4)
    assert density.sample(KEY, 3, small[0]).shape == (3, 8, 8, 1)
    assert not np.allclose(log_prob, density.log_prob(images, small[::-1]))
    large = flow.clone(context_shape=(16, 16, 2))
    context = RANDOM.normal(size=(16, 16, 16, 2)).astype(np.float32)
    assert initialised(large, images, context).log_prob(images, context).shape == (16,)


def test_context_of_pixels():
    x, image = np.zeros((3, 2, 4, 5)), RANDOM.normal(size=(3, 4, 4, 2)).astype(np.float32)
    found = np.asarray(context_of_pixels(jnp.asarray(image), jnp.asarray(x)))
    assert found.shape == (3, 2, 4, 4)
    np.testing.assert_array_equal(found[1, 1, 3], image[1, 2:4, 3].ravel())
    small = jnp.asarray(image[:, :1, :2])
    found = context_of_pixels(small, jnp.asarray(x))
    np.testing.assert_array_equal(found[:, 1, 3], image[:, 0, 1])
    assert context_of_pixels(jnp.asarray(image[:0]), jnp.asarray(x[:0])).shape == (0, 2, 4, 4)
    with pytest.raises(ValueError, match=r"a size that \(2, 4\) divides or is divided by; got"):
        context_of_pixels(jnp.zeros((3, 3, 4, 2)), jnp.asarray(x))


def test_files_from_before_contexts_were_standardised(tmp_path):
    flow = flows.maf(2, 2, (4,), context_shape=1)
    raw = flow.clone(standardize_context=False)
    density = initialised(raw, Y[:32], C[:32])
    wanted = density.log_prob(Y[:32], C[:32])
    density.save(tmp_path)
    same = jflow.load(tmp_path)
    assert same.flow == raw
    np.testing.assert_array_equal(same.log_prob(Y[:32], C[:32]), wanted)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["flow"] = {"event_shape": [2], "context_features": 1, "values": None}
    arguments = config["recipe"]["arguments"]
    arguments["context_features"] = arguments.pop("context_shape")
    file.write_text(json.dumps(config))
    for given in (None, flow):
        again = jflow.load(tmp_path, flow=given)
        np.testing.assert_array_equal(again.log_prob(Y[:32], C[:32]), wanted)


class Wrong(nn.Module):
    @nn.compact
    def __call__(self, context):
        return context[..., None, :]


def test_what_does_not_fit():
    step = jb.Coupling(jt.Affine(), nets.MLP((4,)))
    build = lambda **options: jflow.Flow(step, (2,), **options)  # noqa: E731
    for shape in ((5, 2), {"a": 3}, (8, 8, 1)):
        with pytest.raises(ValueError, match="needs an encoder, a Flax module that makes"):
            build(context_shape=shape)
    with pytest.raises(ValueError, match="an encoder needs the shape of the context"):
        build(encoder=Pool())
    with pytest.raises(ValueError, match="encoder must be a Flax module; got function"):
        build(context_shape=2, encoder=lambda c: c)
    with pytest.raises(ValueError, match="context_shape must be a whole number, 1 or more; got 0"):
        build(context_shape={"a": (3, 0)}, encoder=Pool())
    with pytest.raises(ValueError, match="context_shape must have names as its keys"):
        build(context_shape={})
    with pytest.raises(ValueError, match=r"without '/' and '\.'"):
        build(context_shape={"a/b": 2}, encoder=Pool())
    with pytest.raises(
        ValueError, match=r"encoder must return an array \(4, C\); .*; got \(4, 1, 3\)"
    ):
        jflow.init(build(context_shape=3, encoder=Wrong()), KEY, Y[:4], np.zeros((4, 3)))
    density = initialised(set_flow(), Y[:8], a_set(8))
    context = a_set(8)
    with pytest.raises(ValueError, match=r"must be a dict of \['mask', 'points'\]; got an array"):
        density.log_prob(Y[:8], context["points"])
    with pytest.raises(
        ValueError, match=r"context\['mask'\] must be \(5,\) or \(8, 5\); got \(8, 4\)"
    ):
        density.log_prob(Y[:8], {**context, "mask": context["mask"][:, :4]})
    with pytest.raises(ValueError, match="must have one batch shape"):
        density.log_prob(Y[:8], {**context, "mask": context["mask"][0]})
    with pytest.raises(
        ValueError, match=r"context of data\['mask'\] must have shape \(8, 5\); got"
    ):
        jflow.fit(set_flow(), Y[:8], context={**context, "mask": context["mask"][:4]}, key=KEY)
    context["points"][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"context of data\['points'\] holds NaN"):
        jflow.fit(set_flow(), Y[:8], context=context, key=KEY)


class Convolutions(nn.Module):
    """As they are usually written: for a batch of one axis."""

    @nn.compact
    def __call__(self, context):
        h = nn.Conv(2, (3, 3), param_dtype=context.dtype)(context)
        return nn.Dense(3, param_dtype=context.dtype)(h.reshape((h.shape[0], -1)))


def test_a_recipe_with_an_encoder(tmp_path):
    flow = flows.maf(2, 1, (4,)).clone(context_shape=(4, 4, 1), encoder=Convolutions())
    y, context = Y[:40], RANDOM.normal(size=(40, 4, 4, 1)).astype(np.float32)
    options = {"key": KEY, "steps": 2, "batch_size": 8, "evaluate_every": 2, "progress": False}
    density, _ = jflow.fit(flow, y, context=context, directory=tmp_path / "run", **options)
    wanted = density.log_prob(y, context)
    density.save(tmp_path / "saved")
    again = jflow.load(tmp_path / "saved", flow=flow)
    np.testing.assert_array_equal(again.log_prob(y, context), wanted)
    assert density.sample(KEY, (2, 3), context[0]).shape == (2, 3, 2)
    square = density.log_prob(y[:6].reshape(2, 3, 2), context[:6].reshape(2, 3, 4, 4, 1))
    np.testing.assert_allclose(np.ravel(square), wanted[:6], rtol=1e-5)


class Both(nn.Module):
    @nn.compact
    def __call__(self, context):
        return jnp.concatenate([context["x"], context["age"][..., None]], axis=-1)


def test_numbers_alone_and_units_of_many():
    flow = flows.maf(2, 1, (4,)).clone(context_shape={"x": 2, "age": ()}, encoder=Both())
    age = 40 + 10 * RANDOM.normal(size=600)
    context = {"x": RANDOM.normal(size=(600, 2)), "age": age}
    variables = jflow.init(flow, KEY, Y, context)
    found = variables["constants"]["context_scale"]
    np.testing.assert_allclose(found["age.mean"], [age.mean()], rtol=1e-5)
    density = moved(jflow.Density(flow, variables))
    whole = density.log_prob(Y, context)
    one = {"x": context["x"][3], "age": context["age"][3]}
    np.testing.assert_allclose(density.log_prob(Y[3], one), whole[3], rtol=1e-5)
    # However small the batches are, and whatever the order.
    order = np.argsort(age)
    sorted_context = {"x": context["x"][order], "age": age[order]}
    fitted, _ = jflow.fit(flow, Y, context=sorted_context, key=KEY, steps=1, batch_size=2,
                          validation=None, evaluate_every=1, progress=False)  # fmt: skip
    found = fitted.variables["constants"]["context_scale"]
    np.testing.assert_allclose(found["age.mean"], [age.mean()], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found["age.log_std"]), [age.std()], rtol=1e-4)


def test_lists_and_numbers_that_float32_cannot_tell_apart():
    density = initialised(flows.maf(2, 1, (4,), context_shape=1), Y[:8], C[:8])
    wanted = density.log_prob(Y[:1], C[:1])
    found = density.log_prob([[float(v) for v in Y[0]]], [[float(C[0, 0])]])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    flow = flows.maf(2, 1, (4,), context_shape=2)
    seconds = np.stack([np.arange(600.0), 1.7e9 + np.arange(600) % 60], axis=1)
    with pytest.raises(TypeError, match="context of data must hold numbers; got dtype"):
        jflow.fit(flow, Y, context=seconds.astype(str), key=KEY)
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(
            ValueError, match=r"context of data varies too little .* channels \[1\]"
        ):
            jflow.fit(flow, Y, context=seconds, key=KEY)
        seconds[:, 1] = 0.1  # constant, and not a number of float32 either
        jflow.fit(flow, Y, context=seconds, key=KEY, steps=1, progress=False)
    finally:
        jax.config.update("jax_enable_x64", True)
