"""What is reported of layers is what is true of them; bounds are in their order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets, train
from jflow import transformers as jt
from tests.harness import perturbed

KEY = jax.random.key(0)
Y = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def stacked(memory):
    layer = jb.Chain((jb.Linear("dense"), jb.Coupling(jt.Affine(bound=1.0), nets.MLP((8,)))))
    return jflow.Flow(jb.Chain((jb.ActNorm(), jb.Repeat(layer, 3, memory))), (4,))


def moved(flow, y, scale=0.5):
    return jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), scale))


@jax.jit
def one_by_one(variables, y):
    """Matrices of the linear layers, and candidates for the shares of scales that saturate."""
    params = variables["params"]
    each = [jax.tree.map(lambda a, i=i: a[i], params["bijectors_1"]["bijector"]) for i in range(3)]
    linear, eye = jb.Linear("dense"), jnp.eye(4, dtype=jnp.float32)
    matrices = [linear.apply({"params": p["bijectors_0"]}, eye, method="forward") for p in each]
    layer = stacked("store").bijector.bijectors[1].bijector
    first = {kind: values["bijectors_0"] for kind, values in variables.items()}
    x = jb.ActNorm().apply(first, y, method="inverse")
    shares = []
    for own in each:
        x = linear.apply({"params": own["bijectors_0"]}, x, method="inverse")
        raw = nets.MLP((8,))(4).apply({"params": own["bijectors_1"]["conditioner"]}, x[:, :2])
        x = layer.bijectors[1].apply({"params": own["bijectors_1"]}, x, method="inverse")
        parts = raw.reshape(64, 2, 2)
        candidates = [jnp.abs(jnp.tanh(parts[..., 1])), jnp.abs(jnp.tanh(parts[:, 1]))]
        shares.append([(c > 0.95).mean() for c in candidates])
    return matrices, shares


@pytest.mark.parametrize("memory", ["store", "remat", "reversible"])
def test_condition_and_saturation_of_each_layer(memory):
    density = moved(stacked(memory), Y, 1.0)
    found = train.health(density, Y)
    path = "bijectors_1.bijector.bijectors_0"
    matrices, shares = one_by_one({k: v["bijector"] for k, v in density.variables.items()}, Y)
    np.testing.assert_allclose(
        found.layers["condition"][path], [np.linalg.cond(m) for m in matrices], rtol=1e-3
    )
    assert found.worst("condition")[1] == pytest.approx(max(map(np.linalg.cond, matrices)), 1e-3)

    reported = found.layers["saturation"]["bijectors_1.bijector.bijectors_1"]
    assert reported.shape == (3,)
    assert np.abs(reported[:, None] - np.asarray(shares)).min(axis=1).max() < 1e-6
    assert reported.max() > 0

    error = np.abs(density.from_latents(density.latents(Y)) - Y).max()
    assert found.round_trip == pytest.approx(float(error), rel=5, abs=1e-6)
    np.testing.assert_allclose(found.log_prob, density.log_prob(Y), rtol=1e-4)
    text = str(found)
    assert "condition:" in text
    assert f"{path} " in text
    assert "(largest of 3 layers: " in text


def test_what_is_beyond_a_spline_is_saturated():
    flow = jflow.Flow(jb.Elementwise(jt.RationalQuadraticSpline(bins=4, bound=1.0)), (4,))
    density = jflow.Density(flow, jflow.init(flow, KEY, Y))
    (share,) = train.health(density, Y).layers["saturation"].values()
    assert share == pytest.approx(np.mean(np.abs(Y) >= 1), abs=1e-6)
    unbounded = jflow.Flow(jb.Elementwise(jt.Affine(bound=float("inf"))), (4,))
    density = jflow.Density(unbounded, jflow.init(unbounded, KEY, Y))
    assert train.health(density, Y).layers == {}


@pytest.mark.parametrize("name", ["glow", "maf", "hint", "residual_flow"])
def test_recipes_report(name):
    make = {
        "glow": lambda: flows.glow((4, 4, 1), levels=1, steps=2, hidden=4, values=17),
        "maf": lambda: flows.maf(4, layers=2, hidden=(8,), scale="exp"),
        "hint": lambda: flows.hint(4, layers=2, hidden=(8,)),
        "residual_flow": lambda: flows.residual_flow(4, layers=2, hidden=(8,)),
    }
    flow = make[name]()
    y = np.random.default_rng(0).integers(0, 17, (8, 4, 4, 1)) if flow.integers else Y
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    found = train.health(density, y)
    wanted = {"glow": {"condition", "saturation"}, "maf": {"saturation"}}
    assert set(found.layers) >= wanted.get(name, set())
    assert found.layers
    assert found.round_trip < 1e-4
    assert str(found)


def test_errors():
    density = moved(stacked("store"), Y)
    with pytest.raises(ValueError, match=r"y must have shape \(N, \*\(4,\)\)"):
        train.health(density, Y[:, :3])
    with pytest.raises(KeyError, match="norm"):
        train.health(density, Y).worst("norm")


def test_importance_weighted_bits_are_tighter_and_right():
    """The bound falls with more draws, to the exact bits of the cells."""
    flow = jflow.Flow(jb.Chain((jb.Dequantize(4), jb.Elementwise(jt.Affine()))), (2,))
    y = np.asarray([[0, 3], [1, 2], [2, 2]])
    params = {"bijector": {"bijectors_1": {"transformer": np.zeros((2, 2))}}}
    density = jflow.Density(flow, {"params": params})
    plain = np.asarray(density.bits_per_dim(y, KEY, samples=4000))
    one = density.bits_per_dim(y, KEY, samples=1, importance_weighted=True)
    np.testing.assert_allclose(one, density.bits_per_dim(y, KEY, samples=1), rtol=1e-6)
    many = np.asarray(density.bits_per_dim(y, KEY, samples=4000, importance_weighted=True))
    from scipy.stats import norm

    cells = norm.cdf((y + 1) / 4) - norm.cdf(y / 4)
    exact = -np.log2(cells).mean(axis=1)
    np.testing.assert_allclose(many, exact, atol=2e-3)
    assert (plain > many).all()
    estimates = [
        jflow.evaluate(density, y, key=KEY, samples=50, importance_weighted=w).mean
        for w in (True, False)
    ]
    assert estimates[0] < estimates[1]


def test_estimates_of_p_are_not_averaged():
    """The mean of exp of a noisy log p is above p: no bound on bits."""
    flow = flows.residual_flow(2, layers=1, hidden=(4,), exact_up_to=1, values=4)
    y = np.asarray([[0, 3], [1, 2]])
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    for bits in (density.bits_per_dim, partial(jflow.evaluate, density)):
        with pytest.raises(ValueError, match="log_det is unbiased"):
            bits(y, key=KEY, samples=2, importance_weighted=True)
