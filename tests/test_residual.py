"""Contractions, the flows made of them, and what certifies them."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import functional as jf
from jflow.distributions.contractions import check_norms
from jflow.functional.dequantization import averaged
from jflow.functional.operator_norms import closed_form_norm, power_iteration
from jflow.nets.contraction import affine
from jflow.nets.lipschitz_activations import ACTIVATIONS

KEY = jax.random.key(0)
NETS = {
    "mlp": (nets.LipschitzMLP((9, 8)), (5,)),
    "convolutions": (nets.LipschitzConvNet((4, 3)), (4, 3, 2)),
    "dense": (nets.LipschitzDenseNet(4, 2), (5,)),
    "dense convolutions": (nets.LipschitzDenseNet(3, 2, 3), (3, 3, 2)),
}


image = jax.jit(affine)


def drawn(*shape, seed=0, dtype=np.float64):
    """Normal numbers, of NumPy: nothing is compiled."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def layers(density, y, **options):
    """The kernels that evaluation uses, by the name of their layer, and their input shapes."""
    kernels, shapes = {}, {}

    def catch(next_call, args, kwargs, context):
        result = next_call(*args, **kwargs)
        if (type(context.module).__name__, context.method_name) == ("LipschitzLinear", "__call__"):
            path = "/".join(context.module.path)
            kernels[path], shapes[path] = result[0], args[0]
        return result

    import flax.linen as nn

    @jax.jit
    def run(variables):
        with nn.intercept_methods(catch):
            density.flow.apply(variables, y, method="log_prob", **options)
        return dict(kernels)

    found = jax.device_get(run(density.variables))
    return {path: (kernel, shapes[path]) for path, kernel in found.items()}


def operator_norm(kernel, shape):
    if kernel.ndim == 2:
        return np.linalg.norm(np.asarray(kernel, np.float64), 2)
    size = math.prod(shape)
    basis = np.eye(size, dtype=kernel.dtype).reshape(size, *shape)
    images = np.asarray(image(basis, kernel, np.zeros(kernel.shape[-1], kernel.dtype)), np.float64)
    return np.linalg.norm(images.reshape(size, -1), 2)


@pytest.mark.parametrize(
    "name",
    ["mlp", "convolutions", *(pytest.param(n, marks=pytest.mark.slow) for n in list(NETS)[2:])],
)
def test_norms_are_kept_in_training(name):
    net, shape = NETS[name]
    y = 3 * drawn(64, *shape, dtype=np.float32)
    flow = jflow.Flow(jb.Residual(net), shape)
    density, _ = jflow.fit(
        flow, y, key=KEY, steps=60, batch_size=16, learning_rate=3e-2, ema_decay=0.9,
        evaluate_every=30, progress=False,
    )  # fmt: skip
    norms = []
    kept = flatten_dict(jax.device_get(density.variables["lipschitz"]), sep="/")
    for path, (kernel, event) in layers(density, y[:2], rngs={"noise": KEY}).items():
        norms.append(operator_norm(kernel, event))
        assert norms[-1] <= 1.001 * net.coefficient
        # `fit` has let the power iterations converge, for evaluations to start from.
        v = kept[f"{path}/vector"]
        zero = np.zeros(kernel.shape[-1], kernel.dtype)
        moved = image(v.astype(kernel.dtype)[None], kernel, zero)
        np.testing.assert_allclose(np.linalg.norm(moved), norms[-1], rtol=1e-4)
    assert max(norms) > 0.97 * net.coefficient  # and the bound is not wasted


@pytest.mark.parametrize("name", NETS)
def test_nets_contract_as_they_say(name):
    net, shape = NETS[name]
    y = drawn(40, *shape)
    bijector = jb.Residual(net, jf.ExactLogDet())
    variables = jax.device_get(jflow.init(bijector, KEY, y))
    params = jax.tree.map(lambda a: 3 * a + 0.3, variables["params"])
    run = jax.jit(
        lambda params: bijector.apply({**variables, "params": params}, y, method="inverse")
    )
    x = np.asarray(run(params))
    moved = (x - y).reshape(40, -1)
    far = np.linalg.norm(moved[:, None] - moved[None], axis=-1)
    near = np.linalg.norm((y.reshape(40, -1)[:, None] - y.reshape(40, -1)[None]), axis=-1)
    assert np.all(far <= net.lipschitz * near + 1e-9)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_not_stretch(name, p):
    x = np.asarray([*np.linspace(-6, 6, 4001), 2.3994, -2.3994])
    act = ACTIVATIONS[name]
    pairs = drawn(2, 500, 5)

    @jax.jit
    def slopes_and_images(x, pairs, slope):
        jacobian = jax.vmap(jax.jacfwd(lambda x: act(x[None], slope, p)))(x).reshape(len(x), -1)
        return jacobian, act(pairs, slope, p)

    jacobian, images = jax.device_get(slopes_and_images(x, pairs, 1.7))
    size = np.max(np.linalg.norm(jacobian, ord=p, axis=-1))
    assert size <= 1 + 1e-9
    assert size > 0.99
    moved = np.linalg.norm(images[0] - images[1], ord=p, axis=-1)
    before = np.linalg.norm(pairs[0] - pairs[1], ord=p, axis=-1)
    assert np.all(moved <= before * (1 + 1e-9))


@pytest.mark.parametrize(
    ("p", "q"),
    [(1, 1), (1, 2), (1, math.inf), (2, math.inf), (math.inf, math.inf), (1.5, math.inf)],
)
def test_closed_form_norms(p, q):
    kernel, x = drawn(3, 4), drawn(20_000, 3, seed=1)
    # Extreme points of the ball, and points near the maximum, besides random ones.
    signs = [[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    dual = np.sign(kernel.T) * np.abs(kernel.T) ** (1 / (p - 1) if 1 < p < math.inf else 0)
    x = np.concatenate([x, signs, np.eye(3), dual])
    ratio = np.linalg.norm(x @ kernel, ord=q, axis=-1) / np.linalg.norm(x, ord=p, axis=-1)
    norm = jax.jit(lambda kernel: closed_form_norm(kernel, p, q))(kernel)
    np.testing.assert_allclose(norm, ratio.max(), rtol=1e-6)


def test_power_iteration_finds_other_norms():
    # With other kernels it may stop at a local maximum, where p and q differ.
    kernel, x = np.asarray(jax.random.normal(KEY, (6, 5))), drawn(50_000, 6, seed=1)

    @jax.jit
    def found(kernel):
        return [
            power_iteration(
                lambda v: v @ kernel, lambda u: u @ kernel.T, jnp.ones(6), p, q,
                tolerance=1e-12, max_iterations=2000,
            )
            for p, q in norms
        ]  # fmt: skip

    norms = ((2.0, 2.0), (3.0, 1.5), (1.5, 3.0))
    for (p, q), (v, u, count) in zip(norms, jax.device_get(found(kernel)), strict=True):
        ratio = np.linalg.norm(x @ kernel, ord=q, axis=-1) / np.linalg.norm(x, ord=p, axis=-1)
        assert ratio.max() <= np.sum(u * (v @ kernel)) * (1 + 1e-9)
        assert 1 < count < 2000
    assert nets.LipschitzMLP((4,), norms=(2, 2, 2)).certified
    assert nets.LipschitzMLP((4,), norms=(1, 1, 1)).certified
    assert not nets.LipschitzMLP((4,), norms=(3, 1.5, 3)).certified


@pytest.mark.parametrize("norms", [(1, 1, 1), (math.inf,) * 3, (3, 1.5, 3)])
def test_other_norms_invert(norms):
    net = nets.LipschitzMLP((7,), norms=norms, activation="clip_swish", coefficient=0.9)
    bijector = jb.Residual(net, jf.ExactLogDet())
    y = drawn(6, 4)
    variables = jflow.init(bijector, KEY, y)

    @jax.jit
    def round_trip(variables):
        x = bijector.apply(variables, y, method="inverse")
        return bijector.apply(variables, x, method="forward")

    np.testing.assert_allclose(round_trip(variables), y, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "kappa", "wanted"),
    [
        ("float32", 0.9, 1e-5),
        ("float32", 0.98, 1e-4),
        ("float64", 0.9, 1e-10),
        ("float64", 0.98, 1e-10),
    ],
)
@pytest.mark.parametrize("memory", [0, 4])
def test_inverse_reaches_its_bound(dtype, kappa, wanted, memory):
    w, y = kappa * np.linalg.qr(drawn(64, 64))[0], drawn(32, 64, seed=1)
    found = invert_tanh(w.astype(dtype), y.astype(dtype), kappa, memory)
    x, y64, w64 = (np.asarray(v, np.float64) for v in (found.x, y.astype(dtype), w.astype(dtype)))
    exact = invert_tanh(w64, y64, kappa, 0)
    distance = np.linalg.norm(x - exact.x, axis=-1)
    assert distance.max() < wanted
    # The bound is one, and it is not much above what rounding may do.
    assert np.all(distance <= np.asarray(found.bound))
    rounding = np.finfo(dtype).eps * (np.linalg.norm(x, axis=-1) + np.linalg.norm(y, axis=-1))
    assert np.all(np.asarray(found.bound) < wanted + 10 * rounding / (1 - kappa))
    assert 5 < found.iterations < 200


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e4])
def test_the_bound_holds_where_rounding_is_large(size):
    """Numbers of 1e4 have an ulp of 1e-3, and the inverse of 1 - 0.99 makes 0.1 of it."""
    w, y = 0.99 * np.linalg.qr(drawn(64, 64))[0], size * drawn(32, 64, seed=1)
    given = w.astype(np.float32), y.astype(np.float32)
    for function in (lambda w, x: x @ w, lambda w, x: jnp.tanh(x) @ w, lambda _, x: -0.99 * x):
        solve = jax.jit(lambda w, y, f=function: jf.invert_residual(f, w, y, lipschitz=0.99))
        found = solve(*given)
        exact = solve(*(array.astype(np.float64) for array in given))
        distance = np.linalg.norm(np.asarray(found.x, np.float64) - exact.x, axis=-1)
        assert np.all(distance <= np.asarray(found.bound))
        assert np.all(found.converged)
        assert distance.max() > 0


@partial(jax.jit, static_argnums=(2, 3))
def invert_tanh(w, y, kappa, anderson):
    function = lambda w, x: jnp.tanh(x) @ w  # noqa: E731
    return jf.invert_residual(function, w, y, lipschitz=kappa, anderson=anderson)


def test_gradients_of_the_inverse_are_implicit():
    w, y, step = 0.8 * np.linalg.qr(drawn(5, 5))[0], drawn(3, 5, seed=1), drawn(5, 5, seed=2)
    function = lambda w, x: jnp.sin(x) @ w  # noqa: E731
    invert = lambda w, y: jf.invert_residual(function, w, y, lipschitz=0.8).x  # noqa: E731

    @jax.jit
    def derivatives(w, y):
        x = invert(w, y)
        jacobian = jax.vmap(jax.jacfwd(lambda x: function(w, x)))(x)
        one = lambda y: invert(w, y)  # noqa: E731
        both = [jax.vmap(mode(one))(y) for mode in (jax.jacfwd, jax.jacrev)]
        return jacobian, both, jax.value_and_grad(lambda w: jnp.sum(invert(w, y) ** 2))(w)

    jacobian, both, (_, by_w) = jax.device_get(derivatives(w, y))
    wanted = np.linalg.inv(np.eye(5) + jacobian)
    for found in both:
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    value = lambda t: float(derivatives(w + t * step, y)[2][0])  # noqa: E731
    np.testing.assert_allclose(np.sum(by_w * step), (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-6)


def test_what_does_not_converge_is_nan_inside_jit_and_an_error_outside():
    def solve(y):
        function = lambda _, x: 1.5 * jnp.sin(x + 1)  # noqa: E731
        return jf.invert_residual(function, None, y, lipschitz=0.9, max_iterations=50)

    failed = jax.jit(solve)(np.full((2, 3), 0.3))
    assert np.isnan(failed.x).all()
    assert failed.converged.tolist() == [False, False]
    assert np.isnan(jax.jacfwd(lambda y: solve(y).x)(np.full(3, 0.3))).all()
    flow = jflow.Flow(
        jb.Residual(nets.LipschitzMLP((8,)), jf.ExactLogDet(), max_iterations=2), (3,)
    )
    y = drawn(16, 3)
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    with pytest.raises(FloatingPointError, match="did not converge"):
        density.sample(KEY, (4,))
    with pytest.raises(FloatingPointError, match="did not converge"):
        flow.apply(density.variables, y, method="from_latents")
    assert np.isnan(jax.jit(density.from_latents)(y)).all()
    nan = np.full((2, 3), np.nan)
    assert np.isnan(density.from_latents(nan)).all()
    with pytest.raises(FloatingPointError, match="for 1 of 2 points"):
        density.from_latents(np.asarray([[np.nan] * 3, [1.0] * 3]))
    # With the other direction, what iterates is the likelihood.
    forward = jb.Invert(jb.Residual(nets.LipschitzMLP((8,)), jf.ExactLogDet(), max_iterations=2))
    variables = {name: {"bijector": part} for name, part in density.variables.items()}
    other = jflow.Density(jflow.Flow(forward, (3,)), variables)
    for call in (
        other.log_prob,
        other.latents,
        lambda y: other.log_prob_estimate(y, KEY),
    ):
        with pytest.raises(FloatingPointError, match="for 16 of 16 points"):
            call(y)
        assert np.isnan(jax.tree.leaves(jax.jit(call)(y))[0]).all()
    assert np.isfinite(other.sample(KEY, (4,))).all()
    assert np.isnan(other.log_prob(y * jnp.nan)).all()
    half = lambda y: jf.invert_residual(lambda _, x: 0.5 * x, None, y, lipschitz=0.6).x  # noqa: E731
    assert np.isnan(jax.jit(half)(np.asarray([np.inf, 1.0]))).all()


def test_reports_iterations_bound_and_norms():
    bijector = jb.Residual(nets.LipschitzMLP((8,)), jf.ExactLogDet())
    y = drawn(16, 3)
    variables = jflow.init(bijector, KEY, y)
    run = jax.jit(lambda v: bijector.apply(v, y, method="forward", mutable=["solver"]))
    _, report = run(variables)
    assert 1 < report["solver"]["iterations"] < 200
    assert 0 < report["solver"]["bound"] < 1e-11
    assert 0 < report["solver"]["net"]["layer_0"]["norm"] < 0.981


@pytest.mark.parametrize("mask", ["half", "alternating"])
def test_revnet_keeps_volume_exactly(mask):
    bijector = jb.RevNet(nets.MLP((8,)), mask)
    y = drawn(16, 5)
    params = jax.tree.map(lambda a: a + 0.1, jax.device_get(jflow.init(bijector, KEY, y)))
    run = jax.jit(lambda params: bijector.apply(params, y, method="inverse_and_log_det"))
    x, log_det = jax.device_get(run(params))
    assert not log_det.any()
    assert np.all(np.abs(x - y).max(0) > 1e-3)  # both halves move


def small(estimator=None, **options):
    options = {"layers": 2, "hidden": (12,), "exact_up_to": 1, **options}
    return flows.residual_flow(3, **options)


def test_density_with_error_bars():
    y = drawn(32, 3)
    flow = small()
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    assert flow.bijector.log_det_kind == "unbiased"
    with pytest.raises(ValueError, match=r"log_prob: give a key: .* its log_det is estimated"):
        density.log_prob(y)
    first, second = (np.asarray(density.log_prob(y, key=jax.random.key(i))) for i in (1, 2))
    assert np.abs(first - second).max() > 1e-3
    exact = np.asarray(density.with_estimator(jf.ExactLogDet()).log_prob(y))
    found = jax.device_get(density.log_prob_estimate(y, KEY, probes=400))
    score = (found.mean - exact) / found.standard_error
    assert np.all(np.abs(score) < 4.5)
    assert np.sqrt(np.mean(np.square(score))) > 0.4  # errors are not far too large
    more = density.log_prob_estimate(y, KEY, probes=400, terms=30)
    assert np.all(np.asarray(more.standard_error) < found.standard_error * 1.2)
    sharp = density.with_estimator(jf.ExactLogDet()).log_prob_estimate(y, KEY)
    np.testing.assert_allclose(sharp.mean, exact, atol=1e-12)
    assert not np.asarray(sharp.standard_error).any()
    # Latents and samples need no key of their own.
    np.testing.assert_allclose(density.from_latents(density.latents(y)), y, atol=1e-9)
    samples, log_prob = density.sample_and_log_prob(KEY, (5,))
    assert samples.shape == (5, 3)
    assert np.isfinite(log_prob).all()


def test_each_draw_of_the_noise_has_an_estimate_of_its_own():
    draw = lambda key: (-jax.random.bernoulli(key, shape=(3,)).astype(float), None)  # noqa: E731
    mean, _ = averaged(draw, KEY, 400, importance_weighted=False)
    np.testing.assert_allclose(mean, -0.5, atol=4.5 * 0.5 / 20)


RECIPES = {
    "i_resnet": lambda **o: flows.i_resnet(3, layers=2, hidden=(8,), exact_up_to=1, **o),
    "residual_flow": lambda **o: small(**o),
    "i_densenet": lambda **o: flows.i_densenet(3, layers=2, growth=4, depth=2, **o),
    "forward": lambda **o: small(direction="forward", **o),
}
IMAGES = {
    "i_resnet": lambda: flows.i_resnet(
        image_shape=(4, 4, 1), layers=1, hidden=4, levels=2, values=4
    ),
    "residual_flow": lambda: flows.residual_flow(
        image_shape=(4, 4, 1), layers=2, hidden=4, levels=2, values=4
    ),
    "i_densenet": lambda: flows.i_densenet(
        image_shape=(4, 4, 1), layers=1, growth=3, depth=2, levels=2, values=4
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["residual_flow", *(pytest.param(n, marks=pytest.mark.slow) for n in RECIPES if n[0] != "r")],
)
def test_recipes_of_vectors(name, tmp_path):
    flow = RECIPES[name](context_shape=2)
    y, context = drawn(64, 3, dtype=np.float32) ** 3, drawn(64, 2, seed=1, dtype=np.float32)
    density, history = jflow.fit(
        flow,
        y,
        key=KEY,
        context=context,
        steps=20,
        batch_size=16,
        evaluate_every=10,
        progress=False,
    )
    assert np.isfinite(history.rows[-1]["train_nll"])
    density.save(tmp_path / "d")
    loaded = jflow.load(tmp_path / "d")
    one = density.log_prob(y[:5], context[:5], key=KEY)
    np.testing.assert_array_equal(loaded.log_prob(y[:5], context[:5], key=KEY), one)
    z = density.latents(y[:5], context[:5])
    np.testing.assert_allclose(density.from_latents(z, context[:5]), y[:5], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_recipes_of_images(name, tmp_path):
    y = np.random.default_rng(0).integers(0, 4, (32, 4, 4, 1), np.int32)
    density, _ = jflow.fit(
        IMAGES[name](), y, key=KEY, steps=6, batch_size=8, evaluate_every=3, progress=False
    )
    assert np.isfinite(density.bits_per_dim(y[:4], KEY)).all()
    samples = density.sample(KEY, (2,))
    assert samples.shape == (2, 4, 4, 1)
    again = density.from_latents(density.latents(samples, key=KEY))
    np.testing.assert_array_equal(again, samples)
    density.save(tmp_path / "d")
    jflow.load(tmp_path / "d")


@pytest.mark.slow
def test_fit_to_target_moves_the_vectors():
    flow = small(direction="forward")
    target = lambda y: -jnp.sum((y - 1) ** 2, axis=-1)  # noqa: E731
    density, _ = jflow.fit_to_target(
        flow, target, key=KEY, steps=20, samples=32, evaluate_every=10, evaluation_samples=256,
        progress=False,
    )  # fmt: skip
    check_norms(flow, density.variables, "the fit")
    fresh = jflow.init(flow, jax.random.fold_in(KEY, 0), np.zeros((8, 3)))
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), *jax.device_get((density.variables, dict(fresh)))
    )
    assert min(jax.tree.leaves(moved["lipschitz"])) > 0


def test_weights_that_do_not_contract_are_refused_on_loading(tmp_path):
    flow = small()
    variables = jax.device_get(jflow.init(flow, KEY, drawn(32, 3)))
    flat: dict[Any, Any] = flatten_dict(variables)  # type: ignore[assignment]
    params = jax.tree.map(lambda a: 5 * a, variables["params"])
    jflow.Density(flow, {**variables, "params": params}).save(tmp_path / "large")
    jflow.load(tmp_path / "large")  # large kernels are scaled
    path = next(p for p in flat if p[0] == "lipschitz" and "layer_0" in p)
    kernels = flat[("params", *path[1:-1], "kernel")]
    # The smallest singular vectors: power iterations that start there stay there for long.
    bad = np.stack([np.linalg.svd(k)[0][:, -1] for k in kernels])
    damaged = unflatten_dict({**flat, path: bad})
    params = jax.tree.map(lambda a: 5 * a, damaged["params"])
    jflow.Density(flow, {**damaged, "params": params}).save(tmp_path / "bad")
    with pytest.raises(ValueError, match=r"layer_0 has norm [1-9]\d*\.?\d*, and may have 0.98"):
        jflow.load(tmp_path / "bad")
    nan = {**variables, "params": jax.tree.map(lambda a: a * jnp.nan, variables["params"])}
    jflow.Density(flow, nan).save(tmp_path / "nan")
    with pytest.raises(ValueError, match="does not contract"):
        jflow.load(tmp_path / "nan")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nets.LipschitzMLP((8,), coefficient=1.0), "coefficient.*got 1.0"),
        (lambda: nets.LipschitzMLP((8,), activation="relu"), "activation must be one of"),
        (lambda: nets.LipschitzMLP((8,), norms=(2, 2)), "norms must be 3 numbers"),
        (lambda: nets.LipschitzMLP((8,), norms=(2, 1, 2)), "NP-hard"),
        (lambda: nets.LipschitzConvNet((8,), kernels=(2, 3)), "kernels must be odd"),
        (lambda: nets.LipschitzDenseNet(kernel_size=2), "kernel_size must be odd"),
        (lambda: small(direction="up"), "direction must be"),
        (lambda: jb.Residual(nets.LipschitzMLP((8,)), error=-1.0), "error must be positive"),
        (lambda: jb.Residual(nets.LipschitzMLP((8,)), anderson=-1), "anderson must be"),
        (lambda: jb.Residual(nets.LipschitzMLP((8,)), max_iterations=0), "max_iterations must be"),
        (lambda: nets.LipschitzMLP((8,), norms=(2, math.nan, 2)), "norms must be 3 numbers"),
        (lambda: nets.LipschitzConvNet((8,), kernels=(3, 0)), "kernels must be odd.*3, 0"),
        (lambda: nets.LipschitzDenseNet(kernel_size=3.0), "kernel_size must be odd"),
        (lambda: flows.residual_flow(4, exact_terms=-1), "exact_terms .* 0 or more; got -1"),
        (lambda: flows.i_resnet(2.5), "features must be a whole number"),
        (lambda: flows.i_resnet(2, context_shape=0), "context_shape must be"),
        (lambda: flows.i_resnet(image_shape=(4, 4, 1), levels=0), "levels must be"),
        (lambda: flows.i_resnet(image_shape=(8, 8, 1), hidden=-1), "hidden must be .*got -1"),
        (lambda: flows.i_resnet(image_shape=(6, 6, 1)), "multiples of 8 for levels=3"),
        (
            lambda: flows.residual_flow(image_shape=(4, 4, 1), values=0),
            "values must be a whole number, 2",
        ),
        (lambda: flows.residual_flow(), "features or image_shape"),
        (lambda: flows.i_densenet(2, image_shape=(4, 4, 1)), "features or image_shape"),
        (lambda: flows.i_resnet(image_shape=(8, 8, 1), hidden=(8,)), "hidden must be one number"),
    ],
)
def test_bad_arguments(call, error):
    with pytest.raises(ValueError, match=error):
        call()


def test_what_is_of_the_wrong_kind_is_refused():
    net = nets.LipschitzMLP((8,))
    with pytest.raises(TypeError, match="Contraction"):
        jb.Residual(nets.MLP((8,)))
    with pytest.raises(TypeError, match="is for Residual"):
        jb.RevNet(net)
    with pytest.raises(TypeError, match=r"estimator must be .* ExactLogDet\(\)"):
        jb.Residual(net, jf.ExactLogDet)
    with pytest.raises(TypeError, match=r"estimator must be .* ExactLogDet\(\)"):
        jflow.Density(jflow.Flow(jb.Residual(net), (3,)), {}).with_estimator("exact")
    net = nets.LipschitzMLP((8,))
    object.__setattr__(net, "coefficient", 1.2)
    with pytest.raises(ValueError, match=r"got 1\.44"):
        jb.Residual(net)
