"""Saved densities: of every version, checked when they are loaded, and never half there.

Densities of this version are written by: python -m tests.test_files DIRECTORY
"""

import hashlib
import json
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jflow
from jflow import bijectors as jb
from jflow import flows
from jflow.distributions import witness

SAVED = Path(__file__).parent / "saved"
FOLDERS = sorted(folder for folder in SAVED.glob("*/*") if folder.is_dir())
SMALL = {"layers": 2, "hidden": (4,)}
# One of each recipe, small.
WITHIN = {
    "within": 2, "heads": 2, "components": 2, "values": 4, "context_shape": 2, "guidance": 2.0
}  # fmt: skip
ON_A_LINE = {"within": 2, "heads": 2, "components": 2, "values": None, "alpha": None}
FLOWS = {
    "nice": lambda: flows.nice(3, **SMALL),
    "real_nvp": lambda: flows.real_nvp(3, mixing="lu", **SMALL),
    "real_nvp_image": lambda: flows.real_nvp(
        image_shape=(4, 4, 1), levels=1, hidden=2, blocks=1, values=4
    ),
    "glow": lambda: flows.glow((4, 4, 1), levels=1, steps=2, hidden=2, values=4, context_shape=2),
    "hint": lambda: flows.hint(4, depth=2, **SMALL),
    "maf": lambda: flows.maf(3, context_shape=2, **SMALL),
    "iaf": lambda: flows.iaf(3, **SMALL),
    "nsf": lambda: flows.nsf(3, bins=4, **SMALL),
    "nsf_autoregressive": lambda: flows.nsf(3, bins=4, autoregressive=True, **SMALL),
    "naf": lambda: flows.naf(3, units=2, **SMALL),
    "sos": lambda: flows.sos(3, terms=2, **SMALL),
    "umnn": lambda: flows.umnn(3, units=2, **SMALL),
    "bnaf": lambda: flows.bnaf(3, layers=2, units=2),
    "planar": lambda: flows.planar(3, layers=2, direction="inverse"),
    "radial": lambda: flows.radial(3, layers=2),
    "sylvester": lambda: flows.sylvester(3, layers=2, direction="inverse"),
    "i_resnet": lambda: flows.i_resnet(3, **SMALL),
    "residual_flow": lambda: flows.residual_flow(3, **SMALL),
    "ffjord": lambda: flows.ffjord(3, hidden=(8,), context_shape=2),
    "anode": lambda: flows.anode(3, hidden=(8,), extra=1),
    "ot_flow": lambda: flows.ot_flow(3, 4, rank=2, context_shape=2),
    "sde": lambda: flows.sde(3, hidden=(8,), steps=3, context_shape=2),
    "flow_matching": lambda: flows.flow_matching(3, hidden=(8,), context_shape=2),
    "rnode": lambda: flows.rnode(3, layers=2, hidden=(8,), field="concat_squash"),
    "i_densenet": lambda: flows.i_densenet(3, layers=2, depth=1, growth=2),
    "tarflow": lambda: flows.tarflow(
        (4, 4, 1), 2, 1, 4, within=None, heads=2, components=2, values=4, context_shape=2
    ),
    "tarflow-within": lambda: flows.tarflow((4, 4, 1), 2, 1, 4, reach=0, far=None, **WITHIN),
    "tarflow-reach": lambda: flows.tarflow((4, 4, 1), 2, 1, 4, far=None, **ON_A_LINE),
    "tarflow-far": lambda: flows.tarflow((4, 4, 1), 2, 1, 4, **ON_A_LINE),
    "flow_pp": lambda: flows.flow_pp(
        (4, 4, 1),
        4,
        1,
        couplings=(1, 1, 1),
        heads=2,
        components=2,
        values=4,
        dequantization="variational",
        context_shape=2,
    ),
    "dense_flow": lambda: flows.dense_flow(
        (4, 4, 1), (2, 1), (1, 1), 2, hidden=4, layers=1, width=2, values=4, context_shape=2
    ),
    "vflow": lambda: flows.vflow((4, 4, 1), 1, 4, 1, couplings=(1, 1, 0), heads=2, values=4),
    "jet": lambda: flows.jet(
        (4, 4, 1), 2, 1, 4, patch=2, heads=2, channel_couplings=1, values=4, context_shape=2
    ),
    "transformer_af": lambda: flows.transformer_af(
        3, 2, 1, 4, heads=2, components=4, context_shape=2
    ),
}


def made(name):
    """A density whose parameters are off their first values."""
    flow, rng = FLOWS[name](), np.random.default_rng(0)
    shape = (16, *flow.event_shape)
    y = rng.integers(0, 4, shape) if flow.integers else rng.normal(size=shape).astype(np.float32)
    context = jax.tree.map(
        lambda part: jnp.concatenate([part + i for i in range(4)]), witness._context(flow)
    )
    variables = jflow.init(flow, 0, y, context)
    if "lipschitz" not in variables:  # where parameters are bounded
        variables["params"] = jax.tree.map(
            lambda leaf: leaf + (0.1 * rng.normal(size=leaf.shape)).astype(leaf.dtype),
            variables["params"],
        )
    return jflow.Density(flow, variables)


@pytest.fixture(scope="module")
def density():
    return made("real_nvp")


@pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}"
)
def test_densities_of_earlier_versions(folder):
    """They are read, and log p is what it was, by the four points that are in their files."""
    again = jflow.load(folder)
    flow, variables, found = jflow.distributions.saving.load(folder, None)
    assert np.isfinite(found["log_prob"]).all()
    assert (flow, set(found)) == (again.flow, {"y", "log_prob", "noise"})
    if flow.bijector.needs_key("inverse") and jax.config.jax_enable_x64:
        return  # noise of float64 is another; `test_noise_is_drawn_as_it_was` is of these
    now = witness._log_prob(flow, variables, found["y"])
    np.testing.assert_allclose(now, found["log_prob"], rtol=2e-4, atol=2e-4)


def test_every_recipe_is_among_the_saved():
    names = {json.loads((f / "config.json").read_text())["recipe"]["name"] for f in FOLDERS}
    assert names == set(flows.__all__) - {"tabular"} | {"imported"}


def altered(folder, change):
    """The config of a saved density with a change to it."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_flow_with_later_defaults_is_told_what_was_built_then():
    folder, flow = SAVED / "0.1" / "tarflow-within", FLOWS["tarflow-within"]()
    with pytest.raises(ValueError, match=r"what was built then: \{.reach.: 0, .far.: None\}"):
        jflow.load(folder, flow=flows.tarflow((4, 4, 1), 2, 1, 4, **WITHIN))
    assert jflow.load(folder, flow=flow).flow == flow


def test_a_flow_without_a_recipe_with_later_defaults_is_told_too(tmp_path):
    """Its description then had no `far`, and no array tells it."""
    flow = FLOWS["tarflow-reach"]().clone(recipe=None)
    jflow.Density(flow, made("tarflow-reach").variables).save(tmp_path)

    def earlier(described):
        items = described.values() if isinstance(described, dict) else described
        if isinstance(described, dict) and described.get("is") == "TwoLevel":
            del described["far"]
        for item in items if isinstance(described, dict | list) else ():
            earlier(item)

    altered(tmp_path, earlier)
    with pytest.raises(ValueError, match=r"far was None, and is 3\.0"):
        jflow.load(tmp_path, flow=FLOWS["tarflow-far"]().clone(recipe=None))
    assert jflow.load(tmp_path, flow=flow).flow == flow


def test_what_computes_something_else_is_refused(density, tmp_path):
    """As a default that has changed since, which the arrays do not tell."""
    density.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["jflow"] == jflow.__version__
    assert len(config["fingerprint"]) == 16
    altered(tmp_path, lambda c: c["recipe"]["arguments"].update(activation="relu"))
    with pytest.raises(ValueError, match=r"log_prob at four points is .* and was .* version of jf"):
        jflow.load(tmp_path)
    assert jflow.load(tmp_path, check=False).flow == flows.real_nvp(
        3, mixing="lu", activation="relu", **SMALL
    )


def test_noise_is_drawn_as_it_was(tmp_path, monkeypatch):
    """Where it is not, log p of levels cannot be compared, and is not."""
    glow = made("glow")
    glow.save(tmp_path)
    found = jflow.distributions.saving.load(tmp_path, None)[2]
    wrong = found | {"log_prob": 2 * found["log_prob"] + 100}
    with pytest.raises(ValueError, match="log_prob at four points"):
        witness.check_witness("x", glow.flow, glow.variables, wrong)
    witness.check_witness("x", glow.flow, glow.variables, wrong | {"noise": found["noise"] + 1})


def test_a_density_is_saved_even_if_it_cannot_be_looked_at(density, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("too large")

    monkeypatch.setattr(witness, "_points", fail)
    with pytest.warns(UserWarning, match="saved without log_prob at four points, .* too large"):
        density.save(tmp_path)
    assert jflow.load(tmp_path).flow == density.flow


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["recipe"]["arguments"].update(features=10**9), "asks for 1,000,000,000 num"),
        (lambda c: c["recipe"]["arguments"].update(hidden=[10**5, 10**5]), "asks for 10,000,000,0"),
        (lambda c: c["flow"].update(event_shape=[2**20, 2**20]), "config.json asks for"),
    ],
)
def test_sizes_far_beyond_the_file_are_refused_before_anything_is_made(
    density, tmp_path, change, message
):
    density.save(tmp_path)
    altered(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        jflow.load(tmp_path)


def test_orders_that_are_none(tmp_path):
    from safetensors.numpy import load_file, save

    made("nsf").save(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    arrays = load_file(file)
    (name,) = [name for name, value in arrays.items() if value.dtype.kind == "i"]
    for value, message in (
        (np.zeros_like(arrays[name]), "is no order of 0, 1"),
        (arrays[name].astype(np.float32), "has dtype float32; the flow has int"),
    ):
        content = save(arrays | {name: value})
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        altered(tmp_path, lambda c, digest=digest: c["variables"].update(sha256=digest))
        with pytest.raises(ValueError, match=message):
            jflow.load(tmp_path)


def test_wide_networks_and_integers_of_ones_own_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(jflow.distributions.saving, "witness", lambda *_: {})
    wide = flows.real_nvp(2, layers=2, hidden=(64,) * 5)
    jflow.Density(wide, jflow.init(wide, 0, np.zeros((4, 2), np.float32))).save(tmp_path / "a")
    assert jflow.load(tmp_path / "a").flow == wide
    own = jflow.Flow(Counted(), (2,))
    jflow.Density(own, jflow.init(own, 0, np.zeros((4, 2), np.float32))).save(tmp_path / "b")
    again = jflow.load(tmp_path / "b", flow=own)
    np.testing.assert_array_equal(again.variables["constants"]["bijector"]["counts"], [3, 5])


class Counted(jb.Bijector):
    @nn.compact
    def forward_and_log_det(self, x, context=None):
        self.variable("constants", "counts", lambda: jnp.asarray([3, 5]))
        return x, jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y, context=None):
        return self.forward_and_log_det(y)


def test_deep_json_is_an_error(density, tmp_path):
    density.save(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not the file of a saved density, or is damaged"):
        jflow.load(tmp_path)


def test_saves_to_one_path_do_not_harm_each_other(density, tmp_path, monkeypatch):
    monkeypatch.setattr(jflow.distributions.saving, "witness", lambda *_: {})
    params = jax.tree.map(lambda a: a + 1, density.variables["params"])
    other = jflow.Density(density.flow, {**density.variables, "params": params})
    threads = [
        threading.Thread(target=lambda d=d: [d.save(tmp_path) for _ in range(20)])
        for d in (density, other, density)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = jflow.load(tmp_path)
    assert any(
        all(np.array_equal(a, b) for a, b in zip(
            jax.tree.leaves(dict(again.variables)), jax.tree.leaves(dict(d.variables)), strict=True
        )) for d in (density, other)
    )  # fmt: skip
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


if __name__ == "__main__":
    for name in FLOWS:
        made(name).save(Path(sys.argv[1]) / name)
