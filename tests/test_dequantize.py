"""Whole numbers as data: what is taken and given, bounds against exact probabilities, old files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import jflow
from jflow import bijectors as jb
from jflow import flows, nets, testing, train
from jflow import transformers as jt
from jflow.functional import Integers, Interval
from tests.harness import perturbed

KEY = jax.random.key(0)
K = 6
# sigmoid(x) of a normal x, cut into K cells, has these probabilities.
with np.errstate(divide="ignore"):
    EDGES = np.arange(K + 1) / K
    EXACT = np.diff(norm.cdf(np.log(EDGES) - np.log1p(-EDGES)))


def cells(layer=jb.Dequantize):
    flow = jflow.Flow(jb.Chain((layer(K), jb.Elementwise(jt.Sigmoid()))), (1,))
    return jflow.Density(flow, {})


def test_bounds_tend_to_the_probabilities():
    density, y = cells(), np.arange(K)[:, None]
    assert density.flow.integers == Integers(0, K - 1)
    assert density.flow.bijector.log_det_kinds == {"bound", "exact"}
    mean, error, _ = density.log_prob_estimate(y, 0, probes=20_000)
    np.testing.assert_allclose(np.exp(mean), EXACT, atol=4.5 * np.max(np.exp(mean) * error))
    bits = density.bits_per_dim(y, 0, samples=2_000)
    assert np.all(bits > -np.log2(EXACT) - 1e-3)
    tight = density.bits_per_dim(y, 0, samples=2_000, importance_weighted=True)
    assert np.all(tight < bits)
    one = density.log_prob(y, key=3)
    np.testing.assert_allclose(density.bits_per_dim(y, 3), -one / np.log(2), rtol=1e-12)


def spline_noise():
    spline, net = jt.RationalQuadraticSpline(4, tails=None), nets.MLP((8,))
    masks = "alternating", "alternating_swapped"
    return jb.Chain(tuple(jb.Coupling(spline, net, mask) for mask in masks))


@pytest.fixture(scope="module")
def learned():
    """Two independent cells under noise that is learned, far from uniform."""
    layers = jb.Dequantize(K, noise=spline_noise()), jb.Elementwise(jt.Sigmoid())
    flow = jflow.Flow(jb.Chain(layers), (2,))
    return jflow.Density(flow, perturbed(jflow.init(flow, KEY, np.zeros((2, 2), int)), 0.5))


def test_learned_noise_keeps_the_probabilities(learned):
    y = np.stack(np.meshgrid(range(K), range(K)), -1).reshape(-1, 2)
    exact = EXACT[y].prod(axis=1)
    mean, error, _ = learned.log_prob_estimate(y, 0, probes=20_000)
    np.testing.assert_allclose(np.exp(mean), exact, atol=4.5 * np.max(np.exp(mean) * error))
    bits = learned.bits_per_dim(y, 0, samples=1_000)
    assert np.all(bits > -np.log2(exact) / 2 - 1e-3)
    # Samples carry the density of their own noise: E exp(-log joint) is the volume, 1 for each y.
    drawn, joint = learned.flow.apply(learned.variables, KEY, (50_000,), method="sample_jointly")
    inverse = np.exp(-np.asarray(joint)) / K**2
    assert abs(inverse.mean() - 1) < 4.5 * inverse.std() / 50_000**0.5
    shares = np.bincount(np.asarray(drawn) @ [K, 1], minlength=K**2) / 50_000
    np.testing.assert_allclose(shares, np.outer(EXACT, EXACT).ravel(), atol=0.012)


def test_learned_noise_stays_in_its_cell():
    """In float32, at the ends of the most levels that there are."""
    layer = jb.Dequantize(2**16, noise=spline_noise())
    y = jnp.asarray(np.stack([np.arange(2**16 - 512, 2**16)] * 2, 1), jnp.float32)
    variables = perturbed(jflow.init(layer, KEY, y), 3.0)
    x, log_det = layer.apply(variables, y, method="inverse_and_log_det", rngs={"noise": KEY})
    np.testing.assert_array_equal(layer.apply(variables, x, method="forward"), y)
    assert np.isfinite(log_det).all()


LOST = 2 * 2**16 * float(np.finfo(np.float32).eps)  # of a cell of 65,536, at both ends


class Stretched(jb.Bijector):
    """Brings the noise that is drawn onto all of its cell."""

    event_ndim = 1

    def forward_and_log_det(self, x, context=None):
        log_det = jnp.full(x.shape[:-1], -np.log1p(-LOST), x.dtype)
        return (x - 0.5) / (1 - LOST) + 0.5, log_det

    def inverse_and_log_det(self, y, context=None):
        log_det = jnp.full(y.shape[:-1], np.log1p(-LOST), y.dtype)
        return (y - 0.5) * (1 - LOST) + 0.5, log_det

    def _support(self, direction, support, event_shape):
        return support


@pytest.mark.parametrize(("noise", "wanted"), [(None, np.log1p(-LOST)), (Stretched(), 0.0)])
def test_noise_cannot_gain_what_rounding_takes(noise, wanted):
    """Of levels that are uniform, whose probabilities are known: 0.016 nats were to be had."""
    with jax.enable_x64(False):
        flow = jflow.Flow(jb.Dequantize(2**16, noise=noise), (1,), jflow.StandardUniform())
        y = np.arange(0, 2**16, 64, dtype=np.int32)[:, None]
        excess = np.asarray(jflow.Density(flow, {}).log_prob(y, key=1)) + np.log(2**16)
        np.testing.assert_allclose(excess, wanted, atol=1e-5)


def test_learning_the_noise_tightens_the_bound(learned):
    flow = learned.flow
    y = np.asarray(learned.sample(1, 2_000))
    found, _ = jflow.fit(flow, y, key=0, steps=300, batch_size=256, progress=False)
    uniform = flow.clone(bijector=jb.Chain((jb.Dequantize(K), *flow.bijector.bijectors[1:])))
    test = np.asarray(learned.sample(2, 2_000))
    bounds = [
        float(np.mean(density.bits_per_dim(test, 0, samples=50)))
        for density in (found, jflow.Density(uniform, {}))
    ]
    exact = -np.sum(EXACT * np.log2(np.maximum(EXACT, 1e-300)))
    assert exact - 0.02 < bounds[0] < bounds[1] - 0.02


def test_noise_that_is_refused():
    line = jb.Coupling(jt.Affine(), nets.MLP((4,)))
    with pytest.raises(ValueError, match=r"Dequantize\(noise=\) takes \[0, 1\], and .* the line"):
        jflow.Flow(jb.Dequantize(4, noise=line), (2,))
    with pytest.raises(TypeError, match="noise must be a bijector of the unit cube"):
        jb.Dequantize(4, noise=nets.MLP((4,)))
    with pytest.raises(ValueError, match="noise needs an exact log_det, and both directions"):
        jb.Dequantize(4, noise=jb.Dequantize(4))
    with pytest.raises(ValueError, match="events of 1 or 3 axes; got event_ndim=2"):
        jb.Dequantize(4, 2, spline_noise())
    with pytest.raises(ValueError, match=r"noise must keep the shape of events \(4, 4, 1\)"):
        jflow.Flow(jb.Dequantize(4, 3, jb.Squeeze()), (4, 4, 1))
    with pytest.raises(ValueError, match="dequantization must be 'uniform' or 'variational'"):
        flows.glow((4, 4, 1), dequantization="learned")
    with pytest.raises(ValueError, match="dequantization='variational' is of whole numbers"):
        flows.glow((4, 4, 1), values=None, dequantization="variational")


def test_integers_come_and_go():
    density = cells()
    assert density.sample(0, 5).dtype == jnp.int32
    y, log_prob = density.sample_and_log_prob(0, 5)
    assert (y.dtype, log_prob.shape) == (jnp.int32, (5,))
    small = np.asarray([[0], [5]], np.uint8)
    z = density.latents(small, key=0)
    assert jnp.issubdtype(z.dtype, jnp.floating)
    np.testing.assert_array_equal(density.from_latents(z), small)
    mapped = jax.vmap(lambda y: density.log_prob(y, key=1))(small)
    assert np.all(np.isfinite(mapped))
    # Outside the support, and what is not a number, which integers do not have.
    assert np.isneginf(density.log_prob(np.asarray([[-1], [6]]), key=0)).all()
    lost = density.from_latents(np.asarray([[np.nan], [0.0]]))[:, 0]
    assert lost.tolist() == [np.iinfo(np.int32).min, K // 2]


def test_what_is_refused():
    density = cells()
    for method in ("log_prob", "latents", "bits_per_dim"):
        with pytest.raises(ValueError, match=f"{method}: give a key: .* its values are drawn"):
            getattr(density, method)(np.zeros((2, 1), int))
    with pytest.raises(TypeError, match=r"y must be integers, the whole numbers from 0 to 5; got"):
        density.log_prob(np.zeros((2, 1)), key=0)
    with pytest.raises(ValueError, match="y holds -2147483648, which flows give for what is not"):
        density.bits_per_dim(np.asarray([[0], [np.iinfo(np.int32).min]]), 0)
    with pytest.raises(ValueError, match="samples must be a whole number, 1 or more; got 0"):
        density.bits_per_dim(np.zeros((2, 1), int), 0, samples=0)
    with pytest.raises(ValueError, match=r"got numbers from 0 to 9\. Set `values`"):
        density.bits_per_dim(np.asarray([[0], [9]]), 0)
    flow = flows.real_nvp(2, layers=2, hidden=(4,), values=K)
    with pytest.raises(ValueError, match="a target is a density of continuous values"):
        jflow.fit_to_target(flow, lambda y: jnp.sum(y, axis=-1), key=0)
    with pytest.raises(ValueError, match=r"ActNorm gives the line|takes \[0, 1\]"):
        jflow.Flow(jb.Chain((jb.Invert(jb.Dequantize(K)), jb.ActNorm())), (1,))
    with pytest.raises(ValueError, match="Dequantize has log_det_kind 'bound'"):
        jb.Chain((jb.Dequantize(K), jb.Reverse()), memory="reversible")
    with pytest.raises(ValueError, match="Dequantize: inverse draws noise; give apply rngs"):
        density.flow.apply({}, np.zeros((2, 1), int), method="log_prob")
    with pytest.raises(ValueError, match="the event shape must be"):
        jflow.Flow(jb.Dequantize(K), (2, 2, 1))
    assert jb.Dequantize(K).latent_support(Integers(0, 3), (1,)) == Interval(0, 1)


def test_log_prob_of_samples_is_that_of_log_prob():
    """Their noise is not uniform: with it, it would be 2.5, of a probability of 1/2."""
    narrow = jb.Elementwise(jt.FixedAffine(shift=0.5, scale=0.01))
    density = jflow.Density(jflow.Flow(jb.Chain((jb.Dequantize(2), narrow)), (1,)), {})
    y, log_prob = density.sample_and_log_prob(0, 500)
    assert np.mean(log_prob) < np.log(0.5)
    _, joint = density.flow.apply({}, KEY, (500,), method="sample_jointly")
    assert np.mean(joint) > 2
    share = np.mean(y)
    assert 0.4 < share < 0.6


def test_histograms_are_its_inverse():
    class Uniform(jflow.BoxUniform):
        def support(self, event_shape):
            return Integers(0, 3)

    flow = jflow.Flow(jb.Invert(jb.Dequantize(4)), (1,), Uniform(-0.5, 3.5))
    assert flow.support == Interval(0, 1)
    found = jflow.Density(flow, {}).log_prob(np.asarray([[0.1], [0.9], [1.5], [-3.0]]))
    np.testing.assert_allclose(found, [0, 0, -np.inf, -np.inf], atol=1e-6)


def test_sizes_of_numpy(tmp_path):
    layer = jb.Dequantize(np.uint8(5) + np.uint8(1), np.int64(1))
    assert layer == jb.Dequantize(6)
    flow = jflow.Flow(jb.Chain((layer, jb.ActNorm())), (1,))
    y = np.arange(6)[:, None]
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    density.save(tmp_path / "d")
    again = jflow.load(tmp_path / "d", flow=flow)
    np.testing.assert_array_equal(again.bits_per_dim(y, 0), density.bits_per_dim(y, 0))


def test_integers_that_would_wrap():
    """2^32 + 3 is 3 in int32."""
    y = np.full((8, 1), 2**32 + 3)
    density = cells()
    for call in (
        lambda: density.log_prob(y, key=0),
        lambda: density.bits_per_dim(y, 0),
        lambda: jflow.init(density.flow, KEY, y),
        lambda: jflow.evaluate(density, y, key=0),
    ):
        with jax.enable_x64(False), pytest.raises(ValueError, match="must fit int32; got 4294967"):
            call()


def test_sixteen_bits():
    flow = jflow.Flow(jb.Dequantize(2**16), (3,), jflow.StandardUniform())
    density = jflow.Density(flow, {})
    y = np.asarray([[0, 2**15, 2**16 - 1]], np.uint16)
    z = density.latents(y, key=0)
    assert np.all((z > 0) & (z < 1))
    np.testing.assert_array_equal(density.from_latents(z), y)
    np.testing.assert_allclose(density.bits_per_dim(y, 0), 16, rtol=1e-6)


def test_iterations_that_fail_are_found_beneath_noise():
    layer = jb.MaskedAutoregressive(jt.Affine(), (8,), solver=jb.Jacobi(max_sweeps=1))
    for bijector, method in ((layer, "sample"), (jb.Invert(layer), "log_prob")):
        flow = jflow.Flow(jb.Chain((jb.Dequantize(K), bijector)), (6,))
        y = np.random.default_rng(0).integers(0, K, (4, 6))
        density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 1.0))
        with pytest.raises(FloatingPointError, match=r"did not converge for . of 4 points"):
            density.sample(0, 4) if method == "sample" else density.log_prob(y, key=0)


class Shifted(jb.Dequantize):
    def inverse_and_log_det(self, y, context=None):
        x, log_det = super().inverse_and_log_det(y, context)
        return x, log_det + 0.1


class Turned(jb.Dequantize):
    def forward_and_log_det(self, x, context=None):
        return super().forward_and_log_det(1 - jnp.square(x), context)


def test_the_check_of_flows_of_integers():
    report = testing.check_flow(cells().flow)
    assert "samples are drawn as often as log_prob says" in str(report)
    with pytest.raises(TypeError, match="y must be integers"):
        testing.check_flow(cells().flow, data=np.zeros((8, 1)))
    many = jflow.Flow(jb.Dequantize(2**16), (2,), jflow.StandardUniform())
    assert "many" in str(testing.check_flow(many, samples=10))
    with pytest.raises(testing.ContractError, match="samples lie within the bounds"):
        testing.check_flow(cells().flow, bounds=((0, 3),))
    with pytest.raises(testing.ContractError, match="probabilities add up to one"):
        testing.check_flow(cells(Shifted).flow)
    with pytest.raises(testing.ContractError, match="drawn as often"):
        testing.check_flow(cells(Turned).flow)


@pytest.mark.parametrize("values", [None, 17])
def test_files_of_flows_whose_levels_were_no_layer(values, tmp_path, monkeypatch):
    """Their arrays have other paths, and None was 256 for images."""
    monkeypatch.setattr(jflow.distributions.saving, "witness", lambda *_: {})  # they had none
    flow = flows.real_nvp(image_shape=(4, 4, 1), levels=1, hidden=2, blocks=1, values=values or 256)
    y = np.random.default_rng(0).integers(0, 17, (8, 4, 4, 1))
    variables = jflow.init(flow, KEY, y)
    under = {k: {"bijector": tree["bijector"]["bijectors_1"]} for k, tree in variables.items()}
    old = flow.clone(bijector=flow.bijector.bijectors[1], recipe=None)
    jflow.Density(old, under).save(tmp_path / "d")
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    arguments = json.loads(flow.recipe.arguments) | {"values": values}
    config["recipe"] = {"name": flow.recipe.name, "arguments": arguments}
    del config["description"]  # which files had not
    config["flow"] = {
        "event_shape": [4, 4, 1], "context_shape": None, "standardize_context": True,
        "values": values or 256,
    }  # fmt: skip
    (tmp_path / "d" / "config.json").write_text(json.dumps(config))
    for loaded in (jflow.load(tmp_path / "d"), jflow.load(tmp_path / "d", flow=flow)):
        assert loaded.flow.bijector == flow.bijector
        jax.tree.map(np.testing.assert_array_equal, dict(loaded.variables), variables)
    other = flow.clone(bijector=jb.Chain((jb.Dequantize(9, 3), old.bijector)), recipe=None)
    with pytest.raises(ValueError, match=r"\[0, \d+\]\}; the flow has .*'integers': \[0, 8\]"):
        jflow.load(tmp_path / "d", flow=other)


def test_files_of_recipes_without_levels(tmp_path):
    """Files said `values: null` of them, too."""
    flow = flows.planar(2, layers=1, direction="inverse")
    density = jflow.Density(flow, jflow.init(flow, KEY, np.zeros((4, 2))))
    density.save(tmp_path / "d")
    config = json.loads((tmp_path / "d" / "config.json").read_text())
    config["flow"]["values"] = config["flow"].pop("integers")
    (tmp_path / "d" / "config.json").write_text(json.dumps(config))
    assert jflow.load(tmp_path / "d").flow == flow


def test_training_and_health():
    y = np.random.default_rng(0).binomial(K - 1, [[0.2, 0.7]], (300, 2))
    flow = flows.real_nvp(2, layers=2, hidden=(8,), values=K)
    density, history = jflow.fit(flow, y, key=0, steps=20, evaluate_every=10, progress=False)
    assert history.unit == "bits_per_dim"
    found = jflow.evaluate(density, y, key=0, samples=8)
    tight = jflow.evaluate(density, y, key=0, samples=8, importance_weighted=True)
    assert tight.mean < found.mean < np.log2(K) + 1
    looked = train.health(density, y)
    assert looked.round_trip == 0
    mean = -found.mean * 2 * np.log(2)
    np.testing.assert_allclose(looked.log_prob.mean(), mean, atol=0.3)
