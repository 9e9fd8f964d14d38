"""Transformers: attention with and without a memory, what tokens may see, patches of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.bijectors import walk
from jflow.functional import FixedGrid
from jflow.nets.attention import attention, recall, turned
from tests.harness import perturbed

KEY = jax.random.key(0)
NET = nets.CausalTransformer(8, 3, 2)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_that_of_jax(causal):
    queries, keys, values = (normal(2, 3, 5, 2, 4, seed=i).astype(np.float32) for i in range(3))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        wanted = jax.nn.dot_product_attention(
            *(a.reshape(6, 5, 2, 4) for a in (queries, keys, values)), is_causal=causal
        )
    found = attention(*map(jnp.asarray, (queries, keys, values)), causal=causal)
    np.testing.assert_allclose(found, wanted.reshape(found.shape), atol=1e-5)


def test_a_memory_gives_what_all_tokens_give():
    queries, keys, values = (jnp.asarray(normal(3, 5, 2, 4, seed=i)) for i in range(3))
    wanted = attention(queries, keys, values, causal=True)
    memory = tuple(jnp.swapaxes(a, -3, -2) for a in (keys, values))
    for i, j in ((0, 1), (1, 2), (4, 5), (0, 5), (1, 4)):
        old = tuple(a.at[..., i:, :].set(1e9) for a in memory)  # what is not looked at
        found = recall(*(a[:, i:j] for a in (queries, keys, values)), old, jnp.int32(i))
        np.testing.assert_allclose(found, wanted[:, i:j], atol=1e-12)


def test_rotary_products_depend_on_distances():
    query, key = (jnp.asarray(normal(1, 1, 6, seed=i)) for i in range(2))
    at = lambda a, place: turned(a, jnp.asarray([place]))  # noqa: E731
    product = lambda i, j: float(jnp.sum(at(query, i) * at(key, j)))  # noqa: E731
    assert abs(product(3, 1) - product(13, 11)) < 1e-5
    assert abs(product(3, 1) - product(3, 2)) > 1e-3
    np.testing.assert_allclose(jnp.sum(at(query, 7) ** 2), jnp.sum(query**2), rtol=1e-5)


@pytest.mark.parametrize("net", [NET, nets.CausalTransformer(8, 2, 2, event_ndim=1)])
def test_parameters_depend_on_the_tokens_before_alone(net):
    shape = (5, 3) if net.event_ndim == 2 else (5,)
    bijector = jb.MaskedAutoregressive(jt.Affine(), net=net)
    y = jnp.asarray(normal(*shape))
    variables = perturbed(jflow.init(bijector, KEY, y[None]), 0.5)
    x = lambda y: bijector.apply(variables, y, method="inverse")  # noqa: E731
    slopes = np.asarray(jax.jit(jax.jacobian(x))(y)).reshape(5, y.size // 5, 5, -1)
    moves = np.abs(slopes).sum((1, 3))
    assert (np.triu(moves, 1) == 0).all()
    assert (np.tril(moves) > 1e-8).sum() == 15
    for i in range(5):  # numbers of one token do not see each other
        assert np.count_nonzero(slopes[i, :, i]) == y.size // 5


@pytest.mark.parametrize(("row", "far"), [(None, None), (2, 1.5)])
@pytest.mark.parametrize("solver", [None, jb.Jacobi(1e-9), jb.Jacobi(1e-9, block=6)])
def test_two_levels_see_all_numbers_before(solver, row, far):
    """Also those of other tokens; the way back agrees, and has the derivatives of the way there."""
    net = nets.TwoLevel(NET, nets.MADE((9, 9), direct=True), size=3, row=row, far=far)
    layer = jb.MaskedAutoregressive(jt.Affine(), net=net, solver=solver)
    y, context = jnp.asarray(normal(2, 12)), jnp.asarray(normal(2, seed=1))
    variables = perturbed(jflow.init(layer, KEY, y, context), 0.5)
    run = lambda method, y: layer.apply(variables, y, context, method=method)  # noqa: E731
    there = lambda y: run("inverse", y[None])[0]  # noqa: E731
    slopes = np.asarray(jax.jit(jax.jacobian(there))(y[0]))
    assert (np.triu(slopes, 1) == 0).all()
    assert (np.abs(np.tril(slopes)) > 1e-9).sum() == 78
    back = jax.jit(lambda x: run("forward", x))
    x = run("inverse", y)
    np.testing.assert_allclose(back(x), y, atol=1e-7)
    pulled = jax.jit(jax.grad(lambda x: (run("forward", x)[0] * jnp.arange(12.0)).sum()))(x)
    np.testing.assert_allclose(pulled[0], np.arange(12.0) @ np.linalg.inv(slopes), atol=1e-6)


@pytest.mark.parametrize(
    ("row", "reach", "count"), [(4, 1, 4), (3, 2, 12), (1, 2, 2), (12, 1, 1), (4, 50, 17)]
)
def test_tokens_near_another_are_seen_directly(row, reach, count):
    """Without the transformer, whose weights are zero here, numbers depend on those alone."""
    made = nets.MADE((30,), direct=True)
    net = nets.TwoLevel(NET, made, size=2, row=row, reach=reach)
    layer = jb.MaskedAutoregressive(jt.Affine(), net=net)
    y = jnp.asarray(normal(24))
    variables = perturbed(jflow.init(layer, KEY, y[None]), 0.5)
    conditioner = variables["params"]["conditioner"]
    # Of the transformer 8 numbers, and of places in the image alone 2 each.
    assert conditioner["inner"]["kernel_context"].shape[-2] == 8 + 2 * count
    conditioner["outer"] = jax.tree.map(jnp.zeros_like, conditioner["outer"])
    there = lambda y: layer.apply(variables, y[None], method="inverse")[0]  # noqa: E731
    slopes = np.asarray(jax.jit(jax.jacobian(there))(y)).reshape(12, 2, 12, 2)
    seen = (np.abs(slopes) > 1e-9).any((1, 3))
    places = [divmod(token, row) for token in range(12)]
    wanted = [
        [j <= i and all(abs(a - b) <= reach for a, b in zip(places[i], places[j], strict=True))
         for j in range(12)]
        for i in range(12)
    ]  # fmt: skip
    np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("solver", [None, jb.Jacobi(1e-7), jb.Jacobi(1e-7, block=4)])
def test_samples_with_a_memory_are_those_without(solver):
    layer = jb.MaskedAutoregressive(jt.Affine(), net=NET, order="reversed", solver=solver)
    x = jnp.asarray(normal(3, 9, 4))
    variables = perturbed(jflow.init(layer, KEY, x), 0.5)
    inverse = lambda y: layer.apply(variables, y, method="inverse")  # noqa: E731

    def token(i, y):
        """y with its token there by a whole pass, in which affine transforms are lines."""
        place = 8 - i
        now, slope = jax.jvp(inverse, (y,), (jnp.zeros_like(y).at[:, place].set(1),))
        return y.at[:, place].add((x[:, place] - now[:, place]) / slope[:, place])

    wanted = jax.jit(lambda: jax.lax.fori_loop(0, 9, token, jnp.zeros_like(x)))()
    found = jax.jit(lambda: layer.apply(variables, x, method="forward"))()
    np.testing.assert_allclose(found, wanted, atol=1e-10 if solver is None else 1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_two_levels_learn_from_the_start(size):
    """Of the last layers of both networks one alone may be zero: a step later, all weights move."""
    net = nets.TwoLevel(NET, nets.MADE((6,), direct=True), size=size)
    layer = jb.MaskedAutoregressive(jt.Affine(), net=net)
    y = jnp.asarray(normal(8, 6))
    variables = jflow.init(layer, KEY, y)
    loss = lambda p: jnp.square(layer.apply({"params": p}, y, method="inverse")).sum()  # noqa: E731
    slope = jax.jit(jax.grad(loss))
    params = variables["params"]
    params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, slope(params))
    slopes = slope(params)
    still = {
        jax.tree_util.keystr(path)
        for path, g in jax.tree.leaves_with_path(slopes)
        if not np.abs(g).max() > 0
    }
    # Of one number a token, no number sees another by the inner network.
    within = {f"['conditioner']['inner']['{name}']" for name in ("kernel_0", "kernel_direct")}
    assert still == (within if size == 1 else set())


def test_depth_does_not_lengthen_programs():
    def length(layers):
        net = nets.CausalTransformer(8, layers, 2)
        bijector = jb.MaskedAutoregressive(jt.Affine(), net=net)
        x = jnp.zeros((2, 4, 3), jnp.float32)
        variables = jax.eval_shape(lambda: jflow.init(bijector, KEY, x))
        both = lambda v, x: bijector.apply(v, x, method="forward_and_log_det")  # noqa: E731
        return len(str(jax.make_jaxpr(both)(variables, x)))

    assert length(64) < 1.05 * length(8)


def test_what_dropout_does():
    """It acts where all tokens are seen at once, and never in the slow direction."""
    net = nets.CausalTransformer(8, 2, 2, dropout=0.5)
    layer = jb.MaskedAutoregressive(jt.Affine(), net=net)
    x = normal(4, 5, 2)
    variables = perturbed(jflow.init(layer, KEY, x), 0.5)
    run = jax.jit(
        lambda method, seed: layer.apply(
            variables, x, method=method, rngs={"dropout": jax.random.key(seed)}
        ),
        static_argnums=0,
    )
    still = {m: layer.apply(variables, x, method=m) for m in ("forward", "inverse")}
    assert np.abs(run("inverse", 0) - run("inverse", 1)).max() > 1e-3
    np.testing.assert_allclose(run("forward", 0), still["forward"], atol=1e-10)


def test_layers_computed_again_have_the_same_gradients():
    def gradient(remat):
        layer = jb.MaskedAutoregressive(
            jt.Affine(), net=nets.CausalTransformer(8, 3, 2, remat=remat)
        )
        x = normal(4, 5, 2)
        variables = perturbed(jflow.init(layer, KEY, x), 0.5)
        loss = lambda v: layer.apply(v, x, method="inverse_and_log_det")[1].sum()  # noqa: E731
        return jax.jit(jax.grad(loss))(variables)

    same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10)  # noqa: E731
    jax.tree.map(same, gradient(False), gradient(True))


def test_tokens_of_sets_and_their_context():
    net = nets.Transformer(8, 2, 2, positions="rotary", dtype="bfloat16")(3)
    x, context = normal(2, 5, 4).astype(np.float32), normal(2, 6).astype(np.float32)
    variables = perturbed(net.init(KEY, x, context), 0.5)
    run = lambda x, context: net.apply(variables, x, context)  # noqa: E731
    found = run(x, context)
    assert found.shape == (2, 5, 3)
    assert found.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert np.abs(found - run(x, context + 1)).max() > 1e-3
    np.testing.assert_allclose(run(x, context[0])[0], found[0], atol=0.05)
    later = x.copy()
    later[:, -1] += 1
    assert np.abs(found - run(later, context))[:, 0].max() > 1e-3  # it is not causal


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nets.Transformer(10, heads=4), "heads must divide width=10; got 4"),
        (lambda: nets.Transformer(layers=0), "Transformer: layers must be a whole number"),
        (lambda: nets.Transformer(positions="sine"), "'learned' or 'rotary'; got 'sine'"),
        (lambda: nets.Transformer(6, heads=2, positions="rotary"), "heads of an even width"),
        (lambda: nets.CausalTransformer(event_ndim=3), "event_ndim must be 2, .*; got 3"),
        (lambda: nets.CausalTransformer(event_ndim=True), "event_ndim must be 2, .*; got True"),
        (lambda: nets.TwoLevel(size=0), "size must be a whole number, 1 or more; got 0"),
        (lambda: nets.TwoLevel(row=0), "row must be a whole number, 1 or more; got 0"),
        (lambda: nets.TwoLevel(far=0), "TwoLevel: far must be a number above 0; got 0"),
        (lambda: flows.tarflow((4, 4, 1), within=None, far="x"), "tarflow: far must be a number"),
        (lambda: nets.TwoLevel(row=2, reach=0), "reach must be a whole number, 1 or more; got 0"),
        (
            lambda: jflow.init(
                jb.MaskedAutoregressive(jt.Affine(), net=nets.TwoLevel(size=2, row=2)),
                0,
                np.zeros((1, 6)),
            ),
            "row must divide the 3 tokens of an event; got 2",
        ),
        (lambda: flows.tarflow((4, 4, 1), reach=-1), "reach must be a whole number, 0 or more"),
        (lambda: nets.TwoLevel(nets.CausalTransformer(event_ndim=1)), "outer must be .* of tokens"),
        (
            lambda: nets.Transformer(context="prefix"),
            "context must be 'add', 'film' or 'cross'; got 'pref",
        ),
        (lambda: nets.Transformer(gated="no"), "gated must be True or False; got 'no'"),
        (
            lambda: jb.Coupling(jt.Affine(), nets.Transformer(8)),
            "networks of events of 2 axes, and those of this layer have 1",
        ),
        (
            lambda: jb.Coupling(jt.Affine(), nets.ConvNet(8), "half"),
            "networks of events of 3 axes, and those of this layer have 1",
        ),
        (lambda: jb.HINT(jt.Affine(), nets.UNet(4)), "HINT: net makes networks of events of 3"),
        (lambda: jb.RAD(nets.ConvNet(4)), "RAD: net makes networks of events of 3 axes"),
        (lambda: jb.Augment(1, nets.UNet(4)), "Augment: net makes networks of events of 3 axes"),
        (lambda: jb.SDE(nets.UNet(4)), "SDE: net makes networks of events of 3 axes"),
        (lambda: jb.SDE(nets.MLP((4,)), nets.UNet(4)), "SDE: score makes networks of events of 3"),
        (
            lambda: jb.Continuous(nets.Denoiser(nets.UNet(4))),
            "Continuous: net makes networks of events of 3 axes",
        ),
        (
            lambda: jb.Continuous(nets.Transformer(8)),
            "Continuous: net makes networks of events of 2 axes, and those of this layer have 1",
        ),
        (lambda: flows.tarflow((4, 6, 1), patch=4), "tarflow: patch must divide .*; got 4"),
        (lambda: flows.tarflow(4), r"image_shape must be \(height, width, channels\)"),
        (lambda: flows.tarflow((4, 4, 1), within=0), "tarflow: within must be a whole number"),
        (lambda: flows.tarflow((4, 4, 1), blocks=3), "blocks must be an even number"),
        (lambda: flows.tarflow((4, 4, 1), context_shape=(4, 4, 1)), "contexts are vectors"),
        (lambda: flows.tarflow((4, 4, 1), transformer="spline"), "transformer must be one of"),
        (lambda: flows.tarflow((4, 4, 1), memory="reversible"), "'auto', 'store' or 'remat'; got"),
        (lambda: jb.Patchify(4), r"must be \(height, width, channels\); got 4"),
        (lambda: jb.Patchify((4, 6, 1), 4), "size must divide the height and the width"),
        (lambda: jb.Patchify((4, 4)), r"must be \(height, width, channels\); got \(4, 4\)"),
        (lambda: jb.Patchify((4, 0, 1)), "width must be a whole number"),
        (lambda: jb.Reshape((4, 4), (8,)), "must be of as many numbers; got .4, 4. and .8,"),
        (lambda: jb.Reshape(4, (4,)), r"event_shape must be a shape, as \(8, 8, 1\); got 4"),
        (lambda: jb.Reshape((4, 0), (4,)), r"event_shape\[1\] must be a whole number"),
        (lambda: jb.Reshape((4, 2), (8,)).latent_shape((8,)), r"must be \(4, 2\); got \(8,\)"),
        (lambda: jb.Reshape((4, 2), (8,)).data_shape((4, 2)), r"must be \(8,\); got \(4, 2\)"),
        (lambda: jb.Patchify((4, 4, 1)).latent_shape((4, 2, 1)), "the event shape must be"),
        (lambda: jb.Patchify((4, 4, 1)).data_shape((3, 4)), r"must be \(4, 4\); got \(3, 4\)"),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_samples_by_sweeps_are_those_by_steps():
    flow = flows.tarflow((4, 4, 1), 2, 1, 8, heads=2, components=2, within=4, values=None)
    y = np.random.default_rng(0).uniform(0.1, 0.9, (4, 4, 4, 1))
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.2))
    swept = density.with_solver(jb.Jacobi(1e-12))
    np.testing.assert_allclose(swept.sample(0, 2), density.sample(0, 2), atol=1e-9)
    assert swept.flow.bijector.may_fail is False
    assert swept.with_solver(jb.Jacobi(max_sweeps=2)).flow.bijector.may_fail
    with pytest.raises(ValueError, match="block must be a multiple of the 4 numbers of a token"):
        density.with_solver(jb.Jacobi(block=6)).sample(0, 2)
    with pytest.raises(TypeError, match="no layer of this flow is Continuous"):
        density.with_solver(FixedGrid(4))
    other = flows.real_nvp(3)
    with pytest.raises(TypeError, match=r"no layer of this flow is autoregressive; got Jacobi"):
        jflow.Density(other, {}).with_solver(jb.Jacobi())


def test_blocks_that_end_too_early_lose_their_points_alone():
    """Points whose sweeps have found nothing by then are NaN, with all else as it is; each block is
    exact after as many sweeps as it has positions."""
    layer = jb.MaskedAutoregressive(jt.Affine(), net=NET, solver=jb.Jacobi(0.0, block=4))
    x = jnp.asarray(normal(3, 9, 4)).at[0].mul(1e-6)
    variables = perturbed(jflow.init(layer, KEY, x), 0.5)
    run = lambda solver, x: jax.jit(  # noqa: E731
        lambda x: layer.clone(solver=solver).apply(
            variables, x, method="forward", mutable=["solver"]
        )
    )(x)
    exact, told = run(layer.solver, x)
    assert int(told["solver"]["iterations"]) <= 12
    assert float(told["solver"]["residual"]) < 1e-12
    few, told = run(jb.Jacobi(1e-3, 2, 4), x)
    lost = np.isnan(few).any((1, 2))
    assert lost.any()
    assert int(told["solver"]["iterations"]) <= 6
    np.testing.assert_allclose(few[~lost], exact[~lost], atol=0.1)
    broken, _ = run(jb.Jacobi(1e-9, block=4), x.at[1, 5, 0].set(jnp.nan))
    np.testing.assert_allclose(broken[::2], exact[::2], atol=1e-6)
    np.testing.assert_allclose(broken[1, :5], exact[1, :5], atol=1e-6)
    assert np.isnan(broken[1, 6:]).all()


@pytest.mark.parametrize("block", [None, 4])
def test_values_below_the_tolerance_are_not_left_at_zero(block):
    layer = jb.MaskedAutoregressive(jt.Affine(), net=NET, solver=jb.Jacobi(block=block))
    x = jnp.asarray(1e-7 * normal(3, 9, 4))
    variables = jflow.init(layer, KEY, x)  # the identity
    found = jax.jit(lambda: layer.apply(variables, x, method="forward"))()
    np.testing.assert_allclose(found, x, atol=1e-15)


@pytest.mark.parametrize("block", [None, 4])
def test_the_residual_is_of_the_program_of_log_p(block):
    """With a network of half precision, which rounds otherwise in blocks."""
    half = nets.CausalTransformer(8, 1, 2, dtype="bfloat16")
    layer = jb.MaskedAutoregressive(jt.Affine(), net=half, solver=jb.Jacobi(1e-5, block=block))
    x = jnp.asarray(normal(5, 9, 4), jnp.float32)
    variables = perturbed(jflow.init(layer, KEY, x), 0.3)
    variables = jax.tree.map(lambda a: a.astype(jnp.float32), variables)

    @jax.jit
    def both(x):
        y, told = layer.apply(variables, x, method="forward", mutable=["solver"])
        return told["solver"]["residual"], layer.apply(variables, y, method="inverse")

    residual, back = both(x)
    off = np.abs(back - x).max()
    if block is None:
        assert max(residual, off) < 1e-4
    else:
        assert 1e-3 < off < 0.3
        assert residual > 1e-3


def test_patches_are_in_the_order_of_reading():
    y = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    tokens = jb.Patchify((4, 6, 1), 2).apply({}, y, method="inverse")
    assert tokens.shape == (2, 6, 4)
    assert tokens.dtype == y.dtype
    np.testing.assert_array_equal(tokens[0, 1], y[0, :2, 2:4, 0].ravel())
    np.testing.assert_array_equal(tokens[1, 3], y[1, 2:, :2, 0].ravel())


@pytest.mark.parametrize(
    ("size", "far", "kernel", "bounded"),
    [
        (1, None, "direct_context", True),
        (4, 3.0, "direct", True),
        (4, 3.0, "both", True),
        (4, None, "both", False),
    ],
)
def test_samples_do_not_run_away(size, far, kernel, bounded):
    """Where means are several times what was before: without a bound, up to 1e20 and more."""
    net = nets.TwoLevel(NET, nets.MADE((4,), direct=True), size=size, row=8, far=far)
    layer = jb.MaskedAutoregressive(jt.Affine(), net=net)
    x = jnp.asarray(normal(2, 64))
    variables = jflow.init(layer, KEY, x)
    inner = variables["params"]["conditioner"]["inner"]
    for name in ("direct", "direct_context") if kernel == "both" else (kernel,):
        old = inner[f"kernel_{name}"]
        first = 8 if name == "direct_context" else 0  # after the summary
        inner[f"kernel_{name}"] = old.at[first:, 0].set(20)
    y = jax.jit(lambda x: layer.apply(variables, x, method="forward"))(x)
    assert 50 < np.abs(y).max()
    assert (np.abs(y).max() < 1e3) == bounded


def test_patches_next_to_another_are_seen_directly():
    """Of an image that is not square, in both orders, without what the transformer says."""
    flow = flows.tarflow((6, 8, 2), 2, 1, 4, heads=2, transformer="affine", within=2, values=None)
    y = jnp.asarray(normal(6, 8, 2))
    layers = [
        layer.bijector
        for layer in walk.layers(flow.bijector, together=True)
        if isinstance(layer.bijector, jb.MaskedAutoregressive)
    ]
    assert [layer.order for layer in layers] == ["natural", "reversed"]
    rows, columns = np.divmod(np.arange(12), 4)
    near = np.maximum(*(np.abs(a[:, None] - a) for a in (rows, columns))) <= 1
    for layer, wanted in zip(layers, (np.tril(near), np.triu(near)), strict=True):
        whole = jb.Chain((jb.Patchify((6, 8, 2)), jb.Reshape((12, 8), (96,)), layer))
        variables = perturbed(jflow.init(whole, KEY, y[None]), 0.5)
        conditioner = variables["params"]["bijectors_2"]["conditioner"]
        conditioner["outer"] = jax.tree.map(jnp.zeros_like, conditioner["outer"])
        there = lambda y, v=variables, whole=whole: whole.apply(v, y[None], method="inverse")  # noqa: E731
        slopes = np.asarray(jax.jit(jax.jacobian(there))(y)).reshape(12, 8, 3, 2, 4, 2, 2)
        seen = (np.abs(slopes) > 1e-9).any((1, 3, 5, 6)).reshape(12, 12)
        np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize(
    ("transformer", "within"),
    [("affine", None), ("logistic_mixture", 6), ("rational_quadratic", None)],
)
def test_tarflow_of_any_transform(transformer, within):
    """Log p, latents and samples, of images that are not square, with a context."""
    flow = flows.tarflow(
        (4, 2, 3), 2, 1, 8, heads=2, transformer=transformer, components=3, values=None,
        context_shape=2, positions="rotary", memory="store", within=within,
    )  # fmt: skip
    y = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4, 2, 3))
    context = normal(3, 2)
    far = 0.3 if within is None else 0.1  # latents of wide networks are soon too far away
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y, context), far))
    z = density.latents(y, context)
    assert z.shape == y.shape
    np.testing.assert_allclose(density.from_latents(z, context), y, atol=1e-9)
    log_p = density.log_prob(y, context)
    np.testing.assert_allclose(density.log_prob(y[1], context[1]), log_p[1], atol=1e-9)
    y_new = density.sample(0, 3, context)
    assert np.abs(y_new - 0.5).max() < 0.5001
    assert np.ptp(y_new) > 0.2
