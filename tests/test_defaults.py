"""Recipes as they are: no feature is left out, and data of any scale give the same fit."""

import hashlib
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

import jflow
from jflow import bijectors as jb
from jflow import flows, nets, train
from jflow import transformers as jt
from jflow.nets.activations import silu
from tests.harness import perturbed

KEY = jax.random.key(0)


@pytest.mark.parametrize("features", [5, 8])
@pytest.mark.parametrize("mixing", ["permute", "reverse"])
def test_couplings_leave_no_feature_out(features, mixing):
    """Each latent depends nonlinearly on its own feature, whatever the seed: x_i'' != 0.

    A flow starts as a permutation of standardised features, which says which latent is whose.
    """
    flow = flows.nsf(features, 2, bins=3, hidden=(6,), mixing=mixing)
    y = np.random.default_rng(0).standard_normal((30, features))

    def latents(variables, y):
        return flow.apply(variables, y, method="latents")

    @jax.jit
    def look(start, moved):
        place = jnp.argmax(jnp.abs(jax.jacfwd(lambda y: latents(start, y))(y[0])), axis=0)
        own = lambda y: latents(moved, y)[place]  # noqa: E731
        second = jax.vmap(jax.jacfwd(lambda y: jnp.diagonal(jax.jacfwd(own)(y))))(y)
        return jnp.max(jnp.abs(jnp.diagonal(second, axis1=1, axis2=2)), axis=0)

    for seed in range(12):
        start = jflow.init(flow, seed, y)
        bends = np.asarray(look(start, perturbed(start, 0.3, seed)))
        assert (bends > 1e-3).all(), (seed, bends)


def test_orders_that_exchange_the_halves():
    for size in (1, 2, 5, 8):
        layer = jb.Permute(halves=True)
        order = jflow.init(layer, 0, np.zeros((1, size)))["constants"]["order"]
        assert sorted(np.asarray(order)) == list(range(size))
        assert (np.asarray(order)[: size // 2] >= size // 2).all()
    with pytest.raises(ValueError, match="halves=True draws a random order; got an order as well"):
        jb.Permute((1, 0), halves=True)


def test_image_recipes_suit_the_size():
    """Images of fewer pixels than 32x32 get small networks; Glow's know places, too."""
    known = {"checkerboards": 2, "positions": True}
    plain = {"checkerboards": 0, "positions": False}
    for shape, levels in (((8, 8, 1), 3), ((28, 20, 1), 2)):
        assert flows.glow(shape).bijector == flows.glow(shape, levels, 8, 64, **known).bijector
        small = flows.real_nvp(image_shape=shape, hidden=32, blocks=2)
        assert flows.real_nvp(image_shape=shape).bijector == small.bijector
    shape = (32, 32, 3)
    assert flows.glow(shape).bijector == flows.glow(shape, 3, 32, 512, **plain).bijector
    large = flows.real_nvp(image_shape=shape, hidden=64, blocks=4)
    assert flows.real_nvp(image_shape=shape).bijector == large.bijector


RECIPES = {
    "maf": lambda: flows.maf(2, 2, (8,)),
    "nsf": lambda: flows.nsf(2, 2, 4, (8,)),
    "real_nvp": lambda: flows.real_nvp(2, 2, (8,)),
    "nice": lambda: flows.nice(2, 2, (8,)),
    "hint": lambda: flows.hint(2, 2, (8,)),
    "naf": lambda: flows.naf(2, 2, (8,), units=3),
    "sos": lambda: flows.sos(2, 2, (8,)),
    "umnn": lambda: flows.umnn(2, 2, (8,), units=4),
    "bnaf": lambda: flows.bnaf(2, 2, 4),
    "sylvester": lambda: flows.sylvester(2, 4, direction="inverse"),
    "planar": lambda: flows.planar(2, 4, direction="inverse"),
    "radial": lambda: flows.radial(2, 4, direction="inverse"),
    "i_resnet": lambda: flows.i_resnet(2, 2, (8,)),
}
QUICK = ("maf", "nsf", "real_nvp")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES]
)
def test_the_unit_of_the_data_does_not_matter(name):
    """From 1e-20 to 1e20, and a million standard deviations off: the same fit, to 0.02 nats."""
    random = np.random.default_rng(0)
    z = random.standard_normal((400, 2))
    z[:, 1] = np.sin(2 * z[:, 0]) + 0.3 * z[:, 1]
    options = {"steps": 60, "evaluate_every": 30, "warmup_steps": 5, "progress": False}

    def loss(y, scale=1.0):
        _, log = jflow.fit(RECIPES[name](), y.astype(np.float32), key=0, **options)
        return log.column("validation_nll")[1][-1] - 2 * np.log(scale)

    wanted = loss(z)
    for scale in (1e-20, 1e-5, 1e20):
        assert loss(scale * z, scale) == pytest.approx(wanted, abs=0.02), scale
    # A million off, float32 has steps of 1/16.
    off = (z + 1e6).astype(np.float32)
    assert loss(off) == pytest.approx(loss(off - 1e6), abs=0.02)


@pytest.mark.parametrize("make", [jb.Coupling, jb.MaskedAutoregressive], ids=["MLP", "MADE"])
def test_networks_begin_smooth(make):
    """Hidden layers small, whatever part of them a mask lets through; the last at zero."""
    net = nets.MLP((400, 400)) if make is jb.Coupling else nets.MADE((400, 400))
    flow = jflow.Flow(make(jt.Affine(), net=net), (32,))
    kernels = flatten_dict(jflow.init(flow, 0, np.ones((2, 32)))["params"], sep="/")
    first, second, last = (v for k, v in sorted(kernels.items()) if "kernel" in k)
    inputs = 16 if make is jb.Coupling else 32
    assert float(np.var(first)) == pytest.approx(1 / (3 * inputs), rel=0.1)
    assert float(np.var(second)) == pytest.approx(1 / (3 * 400), rel=0.05)
    assert not np.any(last)


def test_silu_and_its_derivatives():
    """Those of `jax.nn.silu`, at zero and far out, too."""
    x = np.concatenate([np.arange(-40, 40, 0.125), [-1e30, -800, 800, 1e30]]).astype(np.float32)

    @jax.jit
    def both(x):
        found = []
        for f in (silu, jax.nn.silu):
            slope = jax.grad(f)
            found.append([jax.vmap(g)(x) for g in (f, slope, jax.grad(slope))])
        return found

    ours, theirs = both(jnp.float64(x))
    for got, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-14, atol=1e-15)
    for got, wanted in zip(both(jnp.float32(x))[0], theirs, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=1e-6)


def test_whole_numbers_are_keys():
    flow = flows.real_nvp(2, 2, (4,))
    y = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    options = {"steps": 2, "evaluate_every": 2, "batch_size": 8, "progress": False}
    of_number, _ = jflow.fit(flow, y, key=3, **options)
    of_key, _ = jflow.fit(flow, y, key=jax.random.key(3), **options)
    of_data, _ = jflow.fit(flow, y, key=jax.random.PRNGKey(3), **options)
    for other in (of_key, of_data):
        jax.tree.map(np.testing.assert_array_equal, of_number.variables, other.variables)
    np.testing.assert_array_equal(of_key.sample(1, 3), of_key.sample(jax.random.key(1), 3))
    for wrong in (1.5, None, "0", True, jax.random.split(KEY, 2)):
        with pytest.raises(TypeError, match="sample: key must be"):
            of_key.sample(wrong, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=2)),
        optax.polyak_sgd(0.1),
        optax.lbfgs(),
        optax.MultiSteps(optax.adam(1e-2), 2),
    ],
    ids=["reduce_on_plateau", "polyak_sgd", "lbfgs", "MultiSteps"],
)
def test_optimisers_that_ask_for_more_than_gradients(optimizer):
    y = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    y[:, 1] = 0.1 * y[:, 1] + y[:, 0] ** 2  # so that there is something to learn
    options = {"steps": 40, "evaluate_every": 20, "warmup_steps": 0, "progress": False}
    _, log = jflow.fit(flows.real_nvp(2, 2, (4,)), y, key=0, optimizer=optimizer, **options)
    _, losses = log.column("train_nll")
    assert losses[-1] < losses[0] - 0.01


def test_errors_pass_between_processes():
    flow = flows.real_nvp(2, 2, (4,))
    y = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    options = {"steps": 4, "evaluate_every": 2, "batch_size": 8, "progress": False}
    with pytest.raises(train.NonFiniteLossError) as caught:
        jflow.fit(flow, y, key=0, learning_rate=float("nan"), **options)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.step == caught.value.step
    np.testing.assert_array_equal(again.density.log_prob(y), caught.value.density.log_prob(y))
    for error in (train.Preempted(), train.CheckpointError("damaged")):
        assert pickle.loads(pickle.dumps(error)).args == error.args


def test_densities_saved_before_actnorm_had_centers(tmp_path):
    """Format 1: networks with ReLU, and shifts in the units of the data."""
    from safetensors.numpy import load_file, save_file

    y = 5 + 3 * np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    then = {"activation": "relu", "actnorm": "first", "direct": False}
    flow = flows.nsf(3, 2, bins=3, hidden=(4,), **then)
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.1))
    norm = density.variables["params"]["bijector"]["bijectors_0"]
    norm["shift"] = np.zeros_like(norm["shift"])
    density.save(tmp_path / "d")
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    file = tmp_path / "d" / config["variables"]["file"]
    arrays = load_file(file)
    place = "bijector/bijectors_0"
    arrays[f"params/{place}/shift"] = arrays.pop(f"constants/{place}/center")
    save_file(arrays, file)
    config["variables"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    config["format"] = 1
    for name in then:
        del config["recipe"]["arguments"][name]
    (tmp_path / "d" / "config.json").write_text(json.dumps(config))
    for given in (None, flow):
        again = jflow.load(tmp_path / "d", flow=given)
        assert again.flow == flow
        np.testing.assert_allclose(again.log_prob(y), density.log_prob(y), rtol=1e-6)
    # The same arrays would fit it, and mean something else.
    with pytest.raises(ValueError, match=r"build the flow with .*'relu', 'actnorm': 'first'"):
        jflow.load(tmp_path / "d", flow=flows.nsf(3, 2, bins=3, hidden=(4,)))


def test_arguments_that_a_file_lacks_are_what_was_built_then(tmp_path):
    """Of any format: `direct` is younger than format 2."""
    y = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    flow = flows.nsf(3, 2, bins=3, hidden=(4,), autoregressive=True, direct=False)
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.1))
    density.save(tmp_path / "d")
    file = tmp_path / "d" / "config.json"
    config = json.loads(file.read_text())
    del config["recipe"]["arguments"]["direct"]
    file.write_text(json.dumps(config))
    again = jflow.load(tmp_path / "d")
    assert again.flow == flow
    np.testing.assert_allclose(again.log_prob(y), density.log_prob(y), rtol=1e-6)
