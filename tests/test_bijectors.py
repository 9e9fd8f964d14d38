"""Properties that every bijector of cases.py has."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import transformers as jt
from tests.cases import CASES, SLOW, SLOWEST, Case
from tests.harness import BATCH, built

DTYPES = ("float32", "float64")
LOG_DET = {"float32": 1e-4, "float64": 1e-10}
ROUND_TRIP = {"float32": 1e-4, "float64": 1e-9}


def cases(*, all_quick: bool):
    """All names; those of transformers in couplings and autoregressive use are slow otherwise.

    Each transformer runs every check at once in Elementwise; of its two other uses, the exact
    checks in float64 and gradients are quick, and the rest waits for `make slow`.
    """
    return [
        pytest.param(
            name,
            marks=[pytest.mark.slow] if name in SLOWEST | (set() if all_quick else SLOW) else [],
        )
        for name in CASES
    ]


every_case = pytest.mark.parametrize("name", cases(all_quick=False))
every_case_quick = pytest.mark.parametrize("name", cases(all_quick=True))
every_case_and_dtype = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(*case.values, dtype, marks=case.marks)
        for dtype in DTYPES
        for case in cases(all_quick=dtype == "float64")
    ],
)


def test_every_public_bijector_and_transformer_has_a_case():
    used = {type(part).__name__ for case in CASES.values() for part in _parts(case.make())}
    # RevNet and WoodburyConv are functions that make Chains.
    assert set(jb.__all__) - {"Bijector", "Jacobi", "RevNet", "WoodburyConv"} <= used
    assert set(jt.__all__) - {"Transformer"} <= used


def _parts(module):
    yield module
    if isinstance(module, jb.Bijector):
        if hasattr(module, "transformer"):
            yield module.transformer
        for part in module.parts:
            yield from _parts(part)


@pytest.mark.parametrize("module", [jb, jt])
def test_every_public_name_has_a_docstring_of_its_own(module):
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        assert inspect.getdoc(getattr(module, name)) != inspect.getdoc(nn.Module), name


@every_case_and_dtype
def test_log_det_is_that_of_the_autodiff_jacobian(name, dtype):
    b = built(name, dtype)
    if b.case.random:
        pytest.skip("its log_det also holds the share of the branch: see test_rad.py")
    _, log_det = b.forward(b.variables, b.x, b.context)
    wanted = b.jacobian_log_det("forward_and_log_det", b.x)
    np.testing.assert_allclose(log_det, wanted, rtol=0, atol=LOG_DET[dtype])
    _, log_det = b.inverse(b.variables, b.y, b.context)
    wanted = b.jacobian_log_det("inverse_and_log_det", b.y)
    np.testing.assert_allclose(log_det, wanted, rtol=0, atol=LOG_DET[dtype])


@every_case_and_dtype
def test_directions_undo_each_other(name, dtype):
    b = built(name, dtype)
    y, log_det = b.forward(b.variables, b.x, b.context)
    x, opposite = b.inverse(b.variables, y, b.context)
    np.testing.assert_allclose(x, b.x, rtol=0, atol=ROUND_TRIP[dtype])
    np.testing.assert_allclose(opposite, -log_det, rtol=1e-5, atol=ROUND_TRIP[dtype])
    x, log_det = b.inverse(b.variables, b.y, b.context)
    y, opposite = b.forward(b.variables, x, b.context)
    if b.case.random:
        return  # y may be another point with the same image
    np.testing.assert_allclose(y, b.y, rtol=0, atol=ROUND_TRIP[dtype])
    np.testing.assert_allclose(opposite, -log_det, rtol=1e-5, atol=ROUND_TRIP[dtype])
    assert x.shape == (*BATCH, *b.latent_shape)
    assert y.dtype == x.dtype == log_det.dtype == opposite.dtype == jnp.dtype(dtype)
    assert log_det.shape == BATCH


@every_case
def test_is_compiled_once(name):
    b = built(name, "float32")
    for direction, points in (("forward", b.x), ("inverse", b.y)):
        run = getattr(b, direction)
        run(b.variables, points, b.context)
        before = dict(b.traces)
        run(jax.tree.map(jnp.array, b.variables), points + 0, b.context)
        assert b.traces == before


@every_case
def test_eager_jit_and_vmap_agree_on_any_batch_shape(name):
    b = built(name, "float64")
    wanted = b.inverse(b.variables, b.y, b.context)
    eager = b.apply("inverse_and_log_det", b.variables, b.y, b.context)
    one = b.inverse(b.variables, b.y[1, 2], None if b.context is None else b.context[1, 2])
    axes = (None, 0, None if b.context is None else 0)
    mapped = jax.vmap(jax.vmap(b.inverse, axes), axes)(b.variables, b.y, b.context)
    for part, value in enumerate(wanted):
        np.testing.assert_allclose(eager[part], value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one[part], value[1, 2], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mapped[part], value, rtol=1e-9, atol=1e-12)


@every_case
def test_bfloat16_input_gives_float32_log_det(name):
    b = built(name, "float32")
    y = b.y.astype(jnp.bfloat16)
    x, log_det = jax.eval_shape(b.inverse, b.variables, y, b.context)
    assert x.dtype == log_det.dtype == jnp.float32


@every_case_quick
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(name):
    b = built(name, "float64")

    def loss(params):
        x, log_det = b.bijector.apply(
            {**b.constants, "params": params}, b.y, b.context, method="inverse_and_log_det"
        )
        weights = jnp.linspace(0.5, 1.5, x.size).reshape(x.shape)
        return jnp.sum(weights * jnp.square(x)) + jnp.sum(log_det)

    if "params" not in b.variables:
        return
    for path, grad in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(b.variables["params"])):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path


@every_case
def test_far_points_give_finite_values_and_gradients(name):
    b = built(name, "float32")
    far = jnp.asarray([0.0, 50.0, -50.0, 1e6, -1e6, 1.0], jnp.float32)
    y = jnp.resize(far, (6, *b.case.event_shape)) + far.reshape(-1, *(1,) * len(b.case.event_shape))
    context = None if b.context is None else b.context[0, 0]

    def value(y):
        x, log_det = b.bijector.apply(b.variables, y, context, method="inverse_and_log_det")
        return jnp.sum(x * 1e-8) + jnp.sum(jnp.where(jnp.isneginf(log_det), 0, log_det)), x

    grad, x = jax.jit(jax.grad(value, has_aux=True))(y)
    assert np.isfinite(x).all()
    assert np.isfinite(grad).all()


@every_case
def test_nan_stays_nan(name):
    b = built(name, "float32")
    y = jnp.full_like(b.y, jnp.nan)
    x, _ = b.inverse(b.variables, y, b.context)
    assert np.isnan(x).all()


@every_case
def test_batch_size_may_be_a_symbol(name):
    b = built(name, "float32")
    (n,) = jax.export.symbolic_shape("n")
    struct = lambda *shape: jax.ShapeDtypeStruct((n, *shape), jnp.float32)  # noqa: E731
    context = None if b.context is None else struct(b.context.shape[-1])
    for method, shape in (
        ("inverse_and_log_det", b.case.event_shape),
        ("forward_and_log_det", b.latent_shape),
    ):
        run = lambda v, x, c, m=method: b.apply(m, v, x, c)  # noqa: E731
        _, log_det = jax.eval_shape(run, b.variables, struct(*shape), context)
        assert log_det.shape == (n,)


@every_case_quick
def test_declares_what_it_is(name):
    case = CASES[name]
    bijector = case.make()
    assert bijector.log_det_kind == "exact"
    for direction in ("forward", "inverse"):
        wanted = "iterative" if direction in case.iterative else "closed form"
        if case.random and direction == "forward":
            wanted = "random"
        assert getattr(bijector, f"{direction}_kind") == wanted
    assert (bijector.tolerance > 0) == bool(case.iterative)


@pytest.mark.parametrize("name", ["Repeat", "Repeat-remat", "Repeat-context", "Repeat-image"])
def test_repeat_is_the_chain_of_its_layers(name):
    b = built(name, "float64")
    x, total = b.y, 0
    for i in range(b.bijector.length):
        layer = jax.tree.map(lambda v, i=i: v[i], b.variables)
        layer = {kind: v["bijector"] for kind, v in layer.items()}
        x, log_det = b.bijector.bijector.apply(layer, x, b.context, method="inverse_and_log_det")
        total = total + log_det
    wanted_x, wanted = b.inverse(b.variables, b.y, b.context)
    np.testing.assert_allclose(x, wanted_x, atol=1e-12)
    np.testing.assert_allclose(total, wanted, atol=1e-12)


def test_layers_of_a_repeat_differ():
    b = built("Repeat", "float64")
    orders = b.variables["constants"]["bijector"]["bijectors_1"]["order"]
    assert len({tuple(order) for order in np.asarray(orders).tolist()}) > 1
    fresh = jflow.init(CASES["Repeat"].make(), jax.random.key(0), b.y)
    kernel = fresh["params"]["bijector"]["bijectors_2"]["conditioner"]["hidden_0"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0


class Mutant(jb.Bijector):
    """A bijector with a mistake that the checks above must find."""

    original: jb.Bijector
    factor: float = 1.0
    offset: float = 0.0

    def forward_and_log_det(self, x, context=None):
        y, log_det = self.original.forward_and_log_det(x, context)
        return y, self.factor * log_det

    def inverse_and_log_det(self, y, context=None):
        x, log_det = self.original.inverse_and_log_det(y, context)
        return x + self.offset, self.factor * log_det


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"factor": 1.01}, test_log_det_is_that_of_the_autodiff_jacobian),
        ({"factor": -1.0}, test_log_det_is_that_of_the_autodiff_jacobian),
        ({"offset": 1e-3}, test_directions_undo_each_other),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_checks_find_mistakes(monkeypatch, change, check, dtype):
    name = f"Mutant-{change}"
    case = Case(lambda: Mutant(jb.Elementwise(jt.Affine()), **change), (3,))
    monkeypatch.setitem(CASES, name, case)
    with pytest.raises(AssertionError):
        check(name, dtype)
