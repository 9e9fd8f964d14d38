"""Exported programs, run where neither jflow nor Flax can be imported."""

import json
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from jax import export

import jflow
from jflow import flows

KEY = jax.random.key(0)
FLOWS = {
    "maf": lambda: flows.maf(3, layers=2, hidden=(8,), context_shape=2),
    "glow": lambda: flows.glow((8, 8, 1), levels=2, steps=2, hidden=4, values=4),
    "residual_flow": lambda: flows.residual_flow(4, layers=2, hidden=(8,)),
    "nsf": lambda: flows.nsf(4, layers=2, hidden=(8,), memory="reversible"),
}
# What JAX needs, and the format of its files.
READER = """
    import sys
    from importlib.metadata import packages_distributions

    allowed = {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers"}
    for name in packages_distributions():
        if name not in allowed:
            sys.modules[name] = None  # its import fails

    import numpy as np
    from jax import export, random

    folder = sys.argv[1]
    given = dict(np.load(f"{folder}/given.npz"))

    def run(name, *arrays):
        program = export.deserialize(bytearray(open(f"{folder}/{name}.jaxexport", "rb").read()))
        return np.asarray(program.call(*arrays))

    more = [given[name] for name in ("context", "seed") if name in given]
    log_prob = run("log_prob", given["y"], *more)
    seeds = random.key_data(random.split(random.key(0), 5))
    samples = run("sample", seeds, *([given["context"]] if "context" in given else []))
    np.savez(f"{folder}/found.npz", log_prob=log_prob, samples=samples)
"""


def exported(name, folder):
    flow = FLOWS[name]()
    y = np.random.default_rng(0).uniform(0, 3, size=(5, *flow.event_shape)).astype(np.float32)
    y = y if flow.integers is None else y.astype(np.int32)
    context = None if flow.context_shape is None else np.ones((5, 2), np.float32)
    density = jflow.Density(flow, jflow.init(flow, KEY, y, context))
    density.export(folder)
    return density, y, context


@pytest.mark.parametrize(
    "name", [*(pytest.param(n, marks=pytest.mark.slow) for n in list(FLOWS)[1:]), "maf"]
)
def test_programs_run_with_jax_alone(name, tmp_path):
    density, y, context = exported(name, tmp_path)
    key = None
    given = {"y": y} if context is None else {"y": y, "context": context}
    if density.flow.bijector.log_det_kind != "exact":
        key = jax.random.key(3)
        given["seed"] = jax.random.key_data(key)
    np.savez(tmp_path / "given.npz", **given)
    code = [sys.executable, "-c", textwrap.dedent(READER), str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as arrays:
        found = dict(arrays)
    wanted = density.log_prob(y, context, key=key)
    np.testing.assert_allclose(found["log_prob"], wanted, rtol=1e-5, atol=1e-5)
    keys = jax.random.split(jax.random.key(0), 5)
    row = lambda i: None if context is None else context[i]  # noqa: E731
    samples = [density.sample(k, (), row(i)) for i, k in enumerate(keys)]
    np.testing.assert_allclose(found["samples"], np.stack(samples), rtol=1e-4, atol=1e-4)


def test_any_batch_size_and_what_is_recorded(tmp_path):
    density, y, context = exported("maf", tmp_path / "e")
    read = jax.export.deserialize(bytearray((tmp_path / "e" / "log_prob.jaxexport").read_bytes()))
    assert context is not None
    for size in (1, 4):
        np.testing.assert_allclose(
            read.call(y[:size], context[:size]), density.log_prob(y, context)[:size], rtol=1e-5
        )
    config = json.loads((tmp_path / "e" / "export.json").read_text())
    assert config["versions"]["jax"] == jax.__version__
    assert config["programs"]["log_prob"] == {
        "file": "log_prob.jaxexport",
        "arguments": {"y": "float32[batch, 3]", "context": "float32[batch, 2]"},
        "result": "float32[batch]",
        "platforms": ["cpu"],
        "calling_convention": read.calling_convention_version,
    }
    density.export(tmp_path / "e", platforms=["cpu", "cuda"])  # replaces it
    config = json.loads((tmp_path / "e" / "export.json").read_text())
    assert config["programs"]["sample"]["platforms"] == ["cpu", "cuda"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(FileExistsError, match="something other than an export"):
        density.export(tmp_path / "mine")


def test_programs_have_the_convolution_of_the_platform_that_they_are_for(tmp_path):
    flow = flows.glow((4, 4, 1), levels=1, steps=1, hidden=4, values=None)
    y = np.random.default_rng(0).uniform(size=(4, 4, 4, 1))
    density = jflow.Density(flow, jflow.init(flow, KEY, y))
    density.log_prob(y)  # compiled for this machine
    for platform, native in (("cpu", False), ("cuda", True)):
        density.export(tmp_path / platform, platforms=(platform,))
        for name in ("log_prob", "sample"):
            content = (tmp_path / platform / f"{name}.jaxexport").read_bytes()
            program = export.deserialize(bytearray(content)).mlir_module()
            assert ("stablehlo.convolution" in program) == native
