"""Reversible layers: gradients as of stored activations, in memory that depth does not change."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import functional as jf
from jflow import transformers as jt
from tests.harness import perturbed

KEY = jax.random.key(0)
FEATURES, CONTEXT = 6, 3


def step(dropout=0.0):
    net = nets.MLP((8,), dropout=dropout)
    spline = jt.RationalQuadraticSpline(bins=4, bound=3.0)
    return jb.Chain((
        jb.ActNorm(),
        jb.Linear("plu"),
        jb.Coupling(jt.Affine(), net),
        jb.Chain((jb.Reverse(), jb.Coupling(spline, net, "half_swapped"))),
    ))  # fmt: skip


def unequal(memory):
    return jb.Chain((jb.Coupling(jt.Affine(), nets.MLP((8,))), step(), jb.ActNorm()), memory)


VECTORS = {
    "repeat": lambda memory: jb.Repeat(step(), 4, memory),
    "chain": unequal,
    "nested": lambda memory: jb.Repeat(unequal(memory), 2, memory),
    "inverted": lambda memory: jb.Invert(jb.Repeat(step(), 3, memory)),
}


def given():
    random = np.random.default_rng(0)
    return random.standard_normal((5, FEATURES)), random.standard_normal((5, CONTEXT)), KEY


def size(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


# Each direction once, and both kinds.
QUICK = (("repeat", "inverse_and_log_det"), ("chain", "forward_and_log_det"))


def assert_same(a, b, tolerance=1e-9):
    """In global L2, as gradients matter."""
    a, b = jax.device_get((a, b))
    assert size(b) > 1e-3
    assert size(jax.tree.map(np.subtract, a, b)) <= tolerance * size(b)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=[] if (name, method) in QUICK else pytest.mark.slow)
        for name in VECTORS
        for method in ("inverse_and_log_det", "forward_and_log_det")
    ],
)
def test_gradients_are_those_of_stored_activations(name, method):
    """For parameters, input, context and log_det; each example by itself, too."""
    y, context, _ = given()
    variables = perturbed(jflow.init(VECTORS[name]("store"), KEY, y, context), 0.1)

    def loss(memory, params, y, context):
        bijector = VECTORS[name](memory)
        x, log_det = bijector.apply({**variables, "params": params}, y, context, method=method)
        # Uneven cotangents.
        return jnp.sum(jnp.sin(x) @ jnp.arange(1.0, FEATURES + 1)) + jnp.sum(jnp.exp(0.3 * log_det))

    params = variables["params"]
    grads = {
        memory: jax.jit(jax.value_and_grad(lambda *a, m=memory: loss(m, *a), (0, 1, 2)))(
            params, y, context
        )
        for memory in ("store", "remat", "reversible")
    }
    assert_same(grads["remat"], grads["store"])
    assert_same(grads["reversible"], grads["store"])
    if name == "repeat":
        each = {
            memory: jax.jit(jax.vmap(jax.grad(lambda *a, m=memory: loss(m, *a)), (None, 0, 0)))(
                params, y, context
            )
            for memory in ("store", "reversible")
        }
        assert_same(each["reversible"], each["store"])


def test_policies_of_remat():
    """The same gradients; the products are computed once."""
    y, context, _ = given()
    build = lambda memory: jb.Repeat(step(), 3, memory)  # noqa: E731
    variables = perturbed(jflow.init(build("store"), KEY, y, context), 0.1)

    def grad(memory):
        def loss(params):
            given = {**variables, "params": params}
            x, log_det = build(memory).apply(given, y, context, method="inverse_and_log_det")
            return jnp.sum(jnp.sin(x)) + jnp.sum(log_det)

        return jax.grad(loss)

    def products(memory):
        program = str(jax.make_jaxpr(grad(memory))(variables["params"]))
        return program.count("dot_general")

    want = jax.jit(grad("store"))(variables["params"])
    for policy in ("dots_saveable", "dots_with_no_batch_dims_saveable"):
        assert_same(jax.jit(grad(f"remat:{policy}"))(variables["params"]), want, 1e-12)
        assert products(f"remat:{policy}") < products("remat")


def test_inside_an_outer_gradient():
    y, context, _ = given()

    def flow(memory):
        step = jb.Chain((jb.ActNorm(), jb.Linear("plu"), jb.Coupling(jt.Affine(), nets.MLP((8,)))))
        return jflow.Flow(jb.Repeat(step, 2, memory), (FEATURES,), context_shape=CONTEXT)

    variables = perturbed(jflow.init(flow("store"), KEY, y, context), 0.1)

    def fisher(memory, params):
        score = jax.grad(
            lambda y: jnp.sum(
                flow(memory).apply({**variables, "params": params}, y, context, method="log_prob")
            )
        )
        return jnp.mean(jnp.square(score(y)))

    grads = [
        jax.jit(jax.grad(lambda p, m=memory: fisher(m, p)))(variables["params"])
        for memory in ("store", "reversible")
    ]
    assert_same(grads[1], grads[0])


def test_dropout_is_the_same_in_both_passes():
    y, context, key = given()
    bijector = jb.Repeat(step(dropout=0.5), 3, "reversible")
    variables = perturbed(jflow.init(bijector, KEY, y, context), 0.1)

    def loss(params, key):
        x, log_det = bijector.apply(
            {**variables, "params": params}, y, context, method="inverse_and_log_det",
            rngs={"dropout": key},
        )  # fmt: skip
        return jnp.sum(jnp.sin(x)) + jnp.sum(log_det)

    run = jax.jit(jax.value_and_grad(loss))
    params = variables["params"]
    value, grad = jax.device_get(run(params, key))
    assert value != run(params, jax.random.key(9))[0]
    direction = perturbed({"params": jax.tree.map(np.zeros_like, params)}, 1.0)["params"]
    along = lambda t: float(  # noqa: E731
        run(jax.tree.map(lambda a, d: a + t * d, params, direction), key)[0]
    )
    found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), grad, direction)))
    np.testing.assert_allclose(found, (along(1e-6) - along(-1e-6)) / 2e-6, rtol=1e-5)


def glow(memory, steps, hidden=4):
    return flows.glow((8, 8, 1), levels=2, steps=steps, hidden=hidden, values=None, memory=memory)


def temporary(loss, params):
    return jax.jit(jax.grad(loss)).lower(params).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_glow_in_all_levels_and_both_directions():
    y = np.random.default_rng(0).uniform(size=(4, 8, 8, 1))
    variables = perturbed(jflow.init(glow("store", 3), KEY, y), 0.1)

    def loss(memory, params):
        flow, own = glow(memory, 3), {**variables, "params": params}
        samples, entropy = flow.apply(own, KEY, (4,), method="sample_and_log_prob")
        return jnp.mean(flow.apply(own, y, method="log_prob")) + jnp.mean(
            entropy + jnp.sum(samples**2, axis=(1, 2, 3))
        )

    grads = [
        jax.jit(jax.grad(lambda p, m=memory: loss(m, p)))(variables["params"])
        for memory in ("store", "reversible")
    ]
    assert_same(grads[1], grads[0])


@pytest.mark.parametrize("kind", [pytest.param("glow", marks=pytest.mark.slow), "revnet"])
def test_memory_does_not_grow_with_depth(kind):
    shape = (16, 8, 8, 1) if kind == "glow" else (256, 16)
    y = np.random.default_rng(0).uniform(size=shape).astype(np.float32)

    def used(memory, steps):
        model = (
            glow(memory, steps, 8)
            if kind == "glow"
            else jflow.Flow(jb.Repeat(jb.RevNet(nets.MLP((32,))), steps, memory), (16,))
        )
        shapes = jax.eval_shape(lambda: jflow.init(model, KEY, y))
        variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        loss = lambda params: jnp.mean(  # noqa: E731
            model.apply({**variables, "params": params}, y, method="log_prob")
        )
        return temporary(loss, variables["params"])

    assert used("reversible", 64) <= 1.1 * used("reversible", 8)
    assert used("store", 64) > 2 * used("store", 8)  # as it would otherwise


@dataclass(frozen=True)
class Messages:
    """A network on the nodes of a graph, (nodes, F): its adjacency matrix is the context."""

    def __call__(self, features):
        return _Messages(features)


class _Messages(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, context):
        nodes = x.shape[-2]
        sent = nn.tanh(nn.Dense(8, param_dtype=x.dtype)(x))
        return nn.Dense(self.features, param_dtype=x.dtype)(context.reshape(nodes, nodes) @ sent)


def test_blocks_of_any_network():
    """RevNet as a network: messages on a graph, in memory of one block."""
    random = np.random.default_rng(0)
    nodes, edges = random.standard_normal((7, 6)), (random.uniform(size=49) < 0.4).astype(float)
    block = lambda memory: jb.Repeat(jb.RevNet(Messages()), 5, memory)  # noqa: E731
    variables = perturbed(jflow.init(block("store"), KEY, nodes, edges), 0.1)

    def loss(memory, params, nodes, edges):
        own = {**variables, "params": params}
        return jnp.sum(jnp.sin(block(memory).apply(own, nodes, edges, method="inverse")))

    grads = [
        jax.jit(jax.grad(lambda *a, m=memory: loss(m, *a), (0, 1, 2)))(
            variables["params"], nodes, edges
        )
        for memory in ("store", "reversible")
    ]
    assert_same(grads[1], grads[0])


def test_drift_is_reported():
    y, context, _ = given()
    bijector = jb.Repeat(step(), 4, "reversible")
    variables = perturbed(jflow.init(bijector, KEY, y, context), 0.1)
    y, near = y.astype(np.float32), context.astype(np.float32)

    @jax.jit
    def drift(params):
        own = {**variables, "params": params}
        return bijector.apply(own, y, near, method="inverse", mutable=["solver"])[1]["solver"]

    of_scale = lambda scale: np.asarray(  # noqa: E731
        drift(jax.tree.map(lambda a: (scale * a).astype(np.float32), variables["params"]))["drift"]
    )
    drifts = of_scale(1.0)
    assert drifts.shape == (4,)
    assert 0 < drifts.max() < 1e-4
    assert of_scale(4.0).max() > 10 * drifts.max()  # ill-conditioned
    flow = jflow.Flow(bijector, (FEATURES,), context_shape=CONTEXT)
    options = {"context": np.tile(context, (8, 1)), "steps": 4, "batch_size": 64, "key": KEY}
    data = np.tile(y, (8, 1))
    _, history = jflow.fit(
        flow, data, check_drift=True, evaluate_every=2, progress=False, **options
    )
    assert all(0 < row["drift"] < 1e-2 for row in history.rows)
    with pytest.raises(ValueError, match="memory='reversible'"):
        jflow.fit(
            jflow.Flow(jb.Repeat(step(), 4), (FEATURES,), context_shape=CONTEXT), data,
            check_drift=True, **options,
        )  # fmt: skip


def test_saved_as_what_it_is(tmp_path):
    flow = flows.nsf(4, layers=2, hidden=(8,), memory="reversible")
    y = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    density, _ = jflow.fit(flow, y, key=KEY, steps=4, batch_size=16, progress=False)
    density.save(tmp_path / "d")
    loaded = jflow.load(tmp_path / "d")
    assert loaded.flow == density.flow
    np.testing.assert_array_equal(loaded.log_prob(y), density.log_prob(y))


@pytest.mark.parametrize(
    "build",
    [
        lambda: jb.Repeat(jb.Residual(nets.LipschitzMLP((8,)), jf.ExactLogDet()), 2, "reversible"),
        lambda: jb.Repeat(jb.Residual(nets.LipschitzMLP((8,))), 2, "reversible"),
        lambda: jb.Chain((jb.ActNorm(), jb.BlockAutoregressive()), "reversible"),
        lambda: jb.Repeat(jb.Chain((jb.ActNorm(), jb.RAD(nets.MLP((4,))))), 2, "reversible"),
    ],
)
def test_what_has_no_closed_inverse_is_refused(build):
    with pytest.raises(ValueError, match=r"memory='reversible' .* Use memory='remat'"):
        build()


@pytest.mark.parametrize("transformer", [jt.Tanh(), jt.Logit(), jt.Exp(), jt.Softplus()])
def test_what_saturates_is_refused(transformer):
    """Inputs that round to one output cannot be computed from it."""
    layer = jb.Chain((jb.ActNorm(), jb.Elementwise(transformer)))
    with pytest.raises(ValueError, match=r"many inputs round to one output\. Put it outside"):
        jb.Chain((jb.ActNorm(), layer), memory="reversible")
    jb.Chain((jb.Elementwise(transformer), jb.Repeat(step(), 2, "reversible")))


def test_layers_with_a_state_are_refused():
    y = np.random.default_rng(0).standard_normal((16, 3))
    bijector = jb.Repeat(jb.Chain((jb.BatchNorm(), jb.Reverse())), 2, "reversible")
    variables = jflow.init(bijector, KEY, y)
    with pytest.raises(ValueError, match=r"without a state; these have batch_stats"):
        bijector.apply(variables, y, method="inverse")
    with pytest.raises(ValueError, match=r"Chain: memory must be one of .*'all'"):
        jb.Chain((jb.ActNorm(),), memory="all")
