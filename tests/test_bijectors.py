"""Every bijector of cases.py keeps the contract of jflow.testing, and declares what it is."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import transformers as jt
from tests.cases import CASES, SLOW, one_case_for_each_class, parts
from tests.harness import check, perturbed

KEY = jax.random.key(0)
# These run with the oldest versions, too.
ONE_FOR_EACH_CLASS = one_case_for_each_class()
# These outside of jit.
EAGER = one_case_for_each_class(jb.Bijector)


def marks(name):
    core = [pytest.mark.oldest] if name in ONE_FOR_EACH_CLASS else []
    return core + ([pytest.mark.slow] if name in SLOW else [])


@pytest.fixture(autouse=True)
def no_compiled_programs_of_other_cases():
    """Drops the programs of a case, which no other test runs; see conftest.py."""
    yield
    jax.clear_caches()


every_case = pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in CASES])


@every_case
def test_keeps_the_contract(name):
    """In float64 to rounding, in float32 on batches, near and far; see `check_bijector`."""
    check(name, eager=name in EAGER)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_keeps_the_contract_in_float64_throughout(name):
    """Batches against single points, and eager against compiled, to rounding."""
    check(name, dtype="float64", eager=True)


def test_transformers_are_the_same_outside_of_jit():
    """One of each class, in one test: operations of one shape are compiled once for all."""
    random, seen = np.random.default_rng(0), set()
    for case in (CASES[name] for name in CASES if name.startswith("Elementwise-")):
        transformer = case.make().transformer
        if type(transformer) in seen:
            continue
        seen.add(type(transformer))
        y = jnp.asarray(case.data(random, (6,)))
        params = jnp.asarray(0.3 * random.standard_normal((6, transformer.num_params)))
        run = transformer.inverse_and_log_det
        for eager, compiled in zip(run(y, params), jax.jit(run)(y, params), strict=True):
            np.testing.assert_allclose(eager, compiled, rtol=1e-9, atol=1e-10)
    assert len(seen) == len(jt.__all__) - 2  # all but the base class and Logit, a function


@every_case
def test_declares_what_it_is(name):
    case = CASES[name]
    bijector = case.make()
    assert bijector.log_det_kind == ("bound" if "inverse" in case.drawn else "exact")
    for direction in ("forward", "inverse"):
        wanted = "iterative" if direction in case.iterative else "closed form"
        if direction in case.drawn:
            wanted = "random"
        assert getattr(bijector, f"{direction}_kind") == wanted
    assert (bijector.tolerance > 0) == bool(case.iterative)


def test_every_public_bijector_and_transformer_has_a_case():
    used = {type(part).__name__ for case in CASES.values() for part in parts(case.make())}
    # RevNet and WoodburyConv are functions that make Chains, Logit is one that makes an Invert.
    assert set(jb.__all__) - {"Bijector", "Jacobi", "RevNet", "WoodburyConv"} <= used
    assert set(jt.__all__) - {"Transformer", "Logit"} <= used


@pytest.mark.parametrize("module", [jb, jt])
def test_every_public_name_has_a_docstring_of_its_own(module):
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        assert inspect.getdoc(getattr(module, name)) != inspect.getdoc(nn.Module), name


@pytest.mark.parametrize("name", ["Repeat", "Repeat-remat", "Repeat-context", "Repeat-image"])
def test_repeat_is_the_chain_of_its_layers(name):
    case, random = CASES[name], np.random.default_rng(0)
    repeat, width = case.make(), case.context_shape
    y = random.standard_normal((6, *case.event_shape))
    context = None if width is None else random.standard_normal((6, width))
    variables = perturbed(jflow.init(repeat, KEY, y, context), case.scale)

    @jax.jit
    def by_layers(variables):
        x, total = jnp.asarray(y), 0.0
        for i in range(repeat.length):
            layer = jax.tree.map(lambda v, i=i: v[i], variables)
            layer = {kind: v["bijector"] for kind, v in layer.items()}
            x, log_det = repeat.bijector.apply(layer, x, context, method="inverse_and_log_det")
            total = total + log_det
        return x, total

    run = jax.jit(lambda v: repeat.apply(v, y, context, method="inverse_and_log_det"))
    for found, wanted in zip(by_layers(variables), run(variables), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_layers_of_a_repeat_differ():
    fresh = jflow.init(CASES["Repeat"].make(), KEY, jax.random.normal(KEY, (6, 5)))
    orders = fresh["constants"]["bijector"]["bijectors_1"]["order"]
    assert len({tuple(order) for order in np.asarray(orders).tolist()}) > 1
    kernel = fresh["params"]["bijector"]["bijectors_2"]["conditioner"]["hidden_0"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0


def test_events_of_other_axes_are_refused():
    for name, case in CASES.items():
        bijector = case.make()
        for shape in ((), (*case.event_shape, 2), case.event_shape[1:]):
            with pytest.raises(ValueError, match=r"event|features|axes|shape|images"):
                pytest.fail(f"{name} takes {bijector.latent_shape(shape)}")
