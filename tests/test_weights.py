"""Trained flows of other libraries, read from their states: the same densities, or a clear no."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import jflow
from jflow.interop import weights
from tests import torch_flows


def stored(name):
    """A state, and what the other library made of points."""
    with np.load(torch_flows.STATES / f"{name}.npz") as file:
        arrays = dict(file)
    state = {n.removeprefix("state/"): a for n, a in arrays.items() if n.startswith("state/")}
    told = json.loads(str(arrays["told"]))
    reader = getattr(weights, told["reader"])
    given = [arrays[name] for name in ("y", "context", "log_prob") if name in arrays]
    options = told["options"] | {"check": tuple(given)}
    return reader, state, options, arrays["y"], arrays.get("context"), arrays["log_prob"]


@pytest.mark.parametrize("name", torch_flows.names())
def test_densities_are_those_of_the_other_library(name):
    reader, state, options, y, context, log_prob = stored(name)
    density = reader(state, **options)
    np.testing.assert_allclose(density.log_prob(y, context), log_prob, rtol=1e-9, atol=1e-9)
    single = lambda a: None if a is None else np.float32(a)  # noqa: E731
    variables = jax.tree.map(
        lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, density.variables
    )
    narrow = jflow.Density(density.flow, variables)
    found = narrow.log_prob(single(y), single(context))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, log_prob, rtol=1e-5, atol=1e-5)
    drawn, log_p = density.sample_and_log_prob(0, (50,), context)
    np.testing.assert_allclose(density.log_prob(drawn, context), log_p, atol=1e-6)


def test_states_of_all_libraries_are_kept():
    readers = {name.split("_")[0] for name in torch_flows.names()}
    assert readers == {"zuko", "nflows", "normflows"}
    assert len(torch_flows.names()) >= 12


def test_what_was_read_is_saved_and_loaded_elsewhere(tmp_path):
    reader, state, options, y, context, log_prob = stored("zuko_maf")
    reader(state, **options).save(tmp_path / "flow")
    np.savez(tmp_path / "points.npz", y=y, context=context)
    code = (
        "import jax, jflow, numpy as np; jax.config.update('jax_enable_x64', True);"
        "a = np.load('points.npz'); d = jflow.load('flow');"
        "np.save('found.npy', d.log_prob(a['y'], a['context']))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), log_prob, rtol=1e-9)


def test_it_trains_on():
    reader, state, options, y, _, _ = stored("nflows_real_nvp")
    density = reader(state, **options)
    given = {"key": 0, "steps": 20, "progress": False, "validation": y, "batch_size": 50}
    after, _ = jflow.fit(density.flow, y, variables=density.variables, **given)
    assert after.log_prob(y).mean() > density.log_prob(y).mean()


def test_masks_stay_when_it_trains():
    reader, state, options, y, _, _ = stored("nflows_maf")
    density = reader(state, **options)
    given = {"key": 0, "steps": 5, "progress": False, "validation": y, "batch_size": 50}
    after, _ = jflow.fit(density.flow, y, variables=density.variables, **given)
    drawn, log_p = after.sample_and_log_prob(0, (20,))
    np.testing.assert_allclose(after.log_prob(drawn), log_p, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("zuko_maf", {"base.loc": np.full(3, np.nan)}, r"base\.loc holds NaN"),
        ("zuko_maf", {"extra.weight": np.zeros(3)}, r"holds 'extra\.weight', of no layer"),
        ("nflows_maf", {"_embedding_net.weight": np.zeros(3)}, "embeddings and such"),
        (
            "nflows_maf",
            {"_transform._transforms.9._permutation": np.arange(3)},
            r"transforms \[0, 1, 2, 3, 9\] alone",
        ),
        (
            "normflows_maf",
            {f"flows.2.{n}": np.eye(3) for n in ("P", "L", "U")},
            "is not known; see from_normflows",
        ),
    ],
)
def test_what_is_not_known_is_refused(name, change, message):
    reader, state, options, *_ = stored(name)
    with pytest.raises(ValueError, match=message):
        reader(state | change, **options)


def test_states_come_in_many_wrappings():
    reader, state, options, y, context, log_prob = stored("zuko_maf")
    wrapped = {f"_orig_mod.module.{name}": array for name, array in state.items()}
    close = lambda d: np.testing.assert_allclose(d.log_prob(y, context), log_prob)  # noqa: E731
    close(reader(wrapped, **options))
    with pytest.raises(TypeError, match="'model' is no array; give the part"):
        reader({"model": state, "epoch": np.zeros(())}, **options)
    with pytest.raises(TypeError, match="names to arrays"):
        reader({1: np.zeros(3)})


def test_a_state_alone_is_read_with_a_warning():
    reader, state, options, y, _, log_prob = stored("zuko_maf_residual")
    with pytest.warns(UserWarning, match=r"nothing was compared: give check="):
        reader(state, activation="elu")
    with pytest.raises(ValueError, match="other densities than the flow it was read from"):
        reader(state, activation="tanh", check=options["check"])
    with pytest.raises(ValueError, match=r"check must be .* got 3 parts"):
        reader(state, activation="elu", check=(y, y, log_prob))


def test_layers_that_leave_no_trace_are_asked_for():
    reader, state, options, *_ = stored("normflows_real_nvp")
    with pytest.raises(ValueError, match="say how many there are by layers="):
        reader(state, scale_map=options["scale_map"])


@pytest.mark.parametrize("reader", weights.__all__)
def test_what_is_no_state_is_refused(reader):
    with pytest.raises(TypeError, match="state must be a state dict"):
        getattr(weights, reader)([1, 2])
    with pytest.raises(ValueError, match=r"is not known|has no|without a network"):
        getattr(weights, reader)({"some.weight": np.zeros(3)})


def test_options_are_checked():
    reader, state, _, *_ = stored("normflows_real_nvp")
    with pytest.raises(ValueError, match="activation must be one of"):
        reader(state, activation="sin")
    with pytest.raises(ValueError, match="scale_map must be one of"):
        reader(state, scale_map="linear")
    with pytest.raises(ValueError, match="layers is 1; the state has 3 or more"):
        reader(state, layers=1)


@pytest.mark.slow
def test_modules_themselves_are_read_and_compared():
    for library in ("torch", "zuko", "nflows", "normflows"):
        pytest.importorskip(library)
    rng = np.random.default_rng(0)
    for name, case in torch_flows.cases().items():
        options = {k: v for k, v in case.options.items() if k != "layers"}  # the module tells
        density = getattr(weights, case.reader)(case.module, **options)
        y = rng.normal(size=(20, 3))
        context = rng.normal(size=(20, case.context)) if case.context else None
        theirs = torch_flows.log_prob(case, y, context)
        np.testing.assert_allclose(density.log_prob(y, context), theirs, rtol=1e-9, err_msg=name)
        if case.wrong:
            with pytest.raises(ValueError, match="other densities than the flow"):
                getattr(weights, case.reader)(case.module, **options | case.wrong)
