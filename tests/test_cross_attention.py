"""Contexts that are sequences, to which the tokens of transformers attend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets, testing
from jflow import transformers as jt
from jflow.nets.attention import Cross
from jflow.testing.points import draw_context
from tests.harness import perturbed

KEY = jax.random.key(0)
CROSS = nets.CausalTransformer(8, 2, 2, context="cross")
NETS = {
    "tokens": (CROSS, (4, 3)),
    "features": (nets.CausalTransformer(8, 2, 2, event_ndim=1, context="cross"), (5,)),
    "two levels": (nets.TwoLevel(CROSS, nets.MADE((6,), direct=True), size=3), (12,)),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def flow_of(net, shape, **options):
    layer = jb.MaskedAutoregressive(jt.Affine(), net=net, **options)
    return jflow.Flow(layer, shape, context_shape=(3, 2))


def made(flow, y, context, scale=0.3):
    return jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), scale))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_formula(qk_norm):
    """Softmax of products of queries and keys, by NumPy, head by head."""
    cross = Cross(nets.Transformer(4, 1, 2, context="cross", qk_norm=qk_norm))
    h, context = normal(2, 3, 4), normal(2, 5, 4, seed=1)

    def run(module, h, context):
        return module(h, *module.remembered(context))

    variables = cross.init(KEY, h, context, method=run)
    p = {name: a["kernel"] for name, a in variables["params"].items() if "kernel" in a}
    normed = lambda a: a / np.sqrt(np.mean(a**2, axis=-1, keepdims=True) + 1e-6)  # noqa: E731
    queries, both = normed(h) @ p["asked"], normed(context) @ p["known"]
    found = np.zeros((2, 3, 4))
    for part in (slice(0, 2), slice(2, 4)):
        keys, values = both[..., :4][..., part], both[..., 4:][..., part]
        asked = queries[..., part]
        asked, keys = (normed(asked), normed(keys)) if qk_norm else (asked, keys)
        scores = np.exp(np.einsum("bqd,bkd->bqk", asked, keys) / np.sqrt(2))
        found[..., part] = scores / scores.sum(-1, keepdims=True) @ values
    np.testing.assert_allclose(
        cross.apply(variables, h, context, method=run), found @ p["mixed"], atol=1e-12
    )


@pytest.mark.parametrize("name", NETS)
def test_samples_are_those_of_log_prob(name):
    net, shape = NETS[name]
    flow = flow_of(net, shape)
    y, context = normal(4, *shape), normal(4, 3, 2, seed=1)
    density = made(flow, y, context)
    x = density.latents(y, context)
    np.testing.assert_allclose(density.from_latents(x, context), y, atol=1e-9)
    blocks = (None, 3) if name == "two levels" else (None, 2) if name == "tokens" else (None,)
    for block in blocks:
        swept = density.with_solver(jb.Jacobi(1e-12, max_sweeps=12, block=block))
        np.testing.assert_allclose(swept.from_latents(x, context), y, atol=1e-8)
    # One context for all, and another batch shape.
    alone = density.log_prob(y, context[0])
    each = density.log_prob(y, np.broadcast_to(context[0], (4, 3, 2)))
    np.testing.assert_allclose(alone, each, rtol=1e-12)
    wider = density.log_prob(y.reshape(2, 2, *shape), context.reshape(2, 2, 3, 2))
    np.testing.assert_allclose(wider.reshape(4), density.log_prob(y, context), rtol=1e-12)


def test_sweeps_that_fail_outside_of_programs():
    """A sequence with NaN is no failure of sweeps; too few sweeps are."""
    layer = jb.MaskedAutoregressive(jt.Affine(), net=CROSS, solver=jb.Jacobi(max_sweeps=1))
    y, context = normal(2, 4, 3), normal(2, 3, 2, seed=1)
    variables = perturbed(jflow.init(layer, KEY, y, context), 0.5)
    context[1, 2, 0] = np.nan
    with pytest.raises(FloatingPointError, match="did not find a point to its tolerance"):
        layer.apply(variables, y, context, method="forward")
    found = layer.apply(variables, y[1:], context[1:], method="forward")
    assert np.isnan(found).any()


def test_each_token_of_a_context_counts_and_so_does_its_place():
    flow = flow_of(*NETS["tokens"])
    y, context = jnp.asarray(normal(2, 4, 3)), jnp.asarray(normal(2, 3, 2, seed=1))
    density = made(flow, y, context, 0.5)
    slope = jax.grad(lambda c: jnp.sum(density.log_prob(y, c)))(context)
    assert (jnp.abs(slope) > 1e-6).all()
    turned = density.log_prob(y, context[:, ::-1])
    assert (jnp.abs(turned - density.log_prob(y, context)) > 1e-3).all()


def test_gradients_of_samples_by_contexts():
    """Steps with keys and values kept, against differences."""
    flow = flow_of(*NETS["two levels"])
    x, context = jnp.asarray(normal(1, 12)), jnp.asarray(normal(1, 3, 2, seed=1))
    density = made(flow, x, context)
    run = jax.jit(lambda c: jnp.sum(density.from_latents(x, c) ** 2))
    way = jnp.asarray(normal(1, 3, 2, seed=2))
    slope = jnp.sum(jax.grad(run)(context) * way)
    difference = (run(context + 1e-5 * way) - run(context - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_guidance_towards_sequences():
    flow = flow_of(*NETS["tokens"], guidance=1.0)
    y, context = normal(4, 4, 3), normal(4, 3, 2, seed=1)
    density = made(flow, y, context, 0.5)
    unknown = density.log_prob(y, np.full((3, 2), np.nan))
    np.testing.assert_allclose(density.with_guidance(0.0).log_prob(y, context), unknown)
    known = density.log_prob(y, context)
    assert (np.abs(known - unknown) > 1e-4).all()
    # What is not known of a sequence does not make all of it unknown.
    part = density.log_prob(y, np.where(np.arange(3)[:, None] < 2, context, np.nan))
    assert np.isfinite(part).all()
    assert (np.abs(part - unknown) > 1e-4).all()
    assert (np.abs(part - known) > 1e-4).all()
    twice = density.with_guidance(2.0)
    x = twice.latents(y, context)
    np.testing.assert_allclose(twice.from_latents(x, context), y, atol=1e-9)


RECIPES = {
    "tarflow": lambda **o: flows.tarflow((4, 4, 1), 2, 1, 8, heads=2, components=2, values=4, **o),
    "jet": lambda **o: flows.jet(
        (4, 4, 1), 2, 1, 8, patch=2, heads=2, channel_couplings=1, values=4, **o
    ),
    "transformer_af": lambda **o: flows.transformer_af(3, 2, 1, 8, heads=2, components=4, **o),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, tmp_path):
    flow = RECIPES[name](context_shape=(3, 2))
    count = np.random.default_rng(0)
    y = normal(6, 3) if name == "transformer_af" else count.integers(0, 4, (6, 4, 4, 1))
    context = normal(6, 3, 2, seed=1)
    density = made(flow, y, context)
    log_p = density.log_prob(y, context, key=0)
    assert np.isfinite(log_p).all()
    assert density.sample(0, (2, 6), context).shape == (2, *y.shape)
    density.save(tmp_path / "kept")
    np.testing.assert_array_equal(jflow.load(tmp_path / "kept").log_prob(y, context, key=0), log_p)


def test_the_token_that_is_asked_for_is_found():
    """Context (S, 2): values and marks; y is the value whose mark is the largest."""
    random = np.random.default_rng(0)
    context = random.standard_normal((4096, 4, 2)).astype(np.float32)
    wanted = np.take_along_axis(context[..., 0], context[..., 1].argmax(-1)[:, None], axis=1)
    y = np.concatenate([wanted, wanted], -1) + 0.3 * random.standard_normal((4096, 2))
    flow = flows.transformer_af(2, 1, 2, 16, heads=2, components=4, context_shape=(4, 2))
    density, _ = jflow.fit(
        flow, y[:3584].astype(np.float32), context=context[:3584], key=0, steps=400,
        learning_rate=3e-3, validation=None, progress=False,
    )  # fmt: skip
    found = float(density.log_prob(y[3584:].astype(np.float32), context[3584:]).mean())
    # Of two numbers with the spread .3 around a known one; if it were not, of one that has 1, too.
    known = -2 * (np.log(0.3) + 0.5 * np.log(2 * np.pi) + 0.5)
    assert found > known - 0.6


def test_what_does_not_fit():
    with pytest.raises(
        ValueError, match=r"sequences \(S, C\), to which tokens attend: make images"
    ):
        RECIPES["tarflow"](context_shape=(4, 4, 1))
    with pytest.raises(ValueError, match="learned noise takes vectors as contexts, not sequences"):
        RECIPES["jet"](context_shape=(3, 2), dequantization="variational")
    with pytest.raises(ValueError, match="context must be 'add', 'film' or 'cross'; got 'prefix'"):
        nets.Transformer(context="prefix")
    with pytest.raises(ValueError, match=r"makes a sequence \(\*batch, S, C\) of it"):
        jflow.Flow(jb.MaskedAutoregressive(jt.Affine(), net=CROSS), (4, 3), context_shape=2)
    with pytest.raises(ValueError, match=r"makes a vector \(\*batch, C\) of it"):
        flows.nsf(3, context_shape=(3, 2))
    layer = jb.MaskedAutoregressive(jt.Affine(), net=CROSS)
    with pytest.raises(ValueError, match=r"context must be \(S, C\) or \(\*batch, S, C\)"):
        layer.init(KEY, normal(2, 4, 3), normal(2), method="inverse_and_log_det")
    for owner, make in (
        ("Continuous", lambda net: jb.Continuous(net, event_ndim=2)),
        ("SDE", lambda net: jb.SDE(net, event_ndim=2)),
        ("Augment", lambda net: jb.Augment(2, net, 2)),
        ("Denoiser", nets.Denoiser),
    ):
        with pytest.raises(ValueError, match=f"{owner}: net makes networks that attend"):
            make(nets.Transformer(8, 1, 2, context="cross"))
    with pytest.raises(ValueError, match="context holds NaN; init takes the units"):
        jflow.init(flow_of(*NETS["tokens"]), KEY, normal(2, 4, 3), np.full((2, 3, 2), np.nan))


def test_layers_that_take_vectors_do_not_take_sequences_for_a_batch():
    """A sequence of as many tokens as there are points."""
    other = jb.MaskedAutoregressive(jt.Affine(), (4,))
    attends = jb.MaskedAutoregressive(jt.Affine(), net=NETS["features"][0])
    flow = jflow.Flow(jb.Chain((attends, other)), (5,), context_shape=(4, 2))
    with pytest.raises(ValueError, match=r"context must be \(C,\) or \(\*batch, C\)"):
        jflow.init(flow, KEY, normal(4, 5), normal(4, 2))


class Own(jb.Bijector):
    """A user's, which says nothing of sequences."""

    net: object

    def inverse_and_log_det(self, y, context=None):
        return y, jnp.zeros(y.shape[:-2])


def test_layers_of_users_are_found_to_attend():
    assert Own(nets.Transformer(8, 1, 2, context="cross")).takes_sequences
    assert not Own(nets.Transformer(8, 1, 2)).takes_sequences
    assert jb.Repeat(jb.Chain((Own(CROSS), jb.Reverse(2))), 2).takes_sequences


def test_the_public_check_takes_one_sequence_or_many():
    layer = jb.MaskedAutoregressive(jt.Affine(), net=NETS["features"][0])
    for context in (normal(3, 2), normal(9, 3, 2)):
        drawn = draw_context(context, np.random.default_rng(0), 2)
        assert drawn.shape[1:] == (3, 2)
    assert draw_context(normal(2), np.random.default_rng(0), 1).shape[1:] == (2,)
    testing.check_bijector(layer, (5,), context=normal(3, 2), scale=0.3)
