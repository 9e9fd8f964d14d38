"""Dtypes: float64 throughout, and networks in bfloat16 within flows in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import flows

KEY = jax.random.key(0)
SMALL = {"layers": 2, "hidden": (8,)}
# Every recipe whose networks are apart from what they give parameters to.
NETWORKS = {
    "nice": lambda dtype: flows.nice(4, **SMALL, dtype=dtype),
    "real_nvp": lambda dtype: flows.real_nvp(4, **SMALL, dtype=dtype),
    "real_nvp images": lambda dtype: flows.real_nvp(
        image_shape=(4, 4, 1), levels=1, hidden=4, blocks=1, values=None, dtype=dtype
    ),
    "glow": lambda dtype: flows.glow((4, 4, 1), 1, 2, 4, values=None, dtype=dtype),
    "nsf": lambda dtype: flows.nsf(4, **SMALL, dtype=dtype),
    "hint": lambda dtype: flows.hint(4, **SMALL, dtype=dtype),
    "maf": lambda dtype: flows.maf(4, **SMALL, dtype=dtype),
    "iaf": lambda dtype: flows.iaf(4, **SMALL, dtype=dtype),
    "naf": lambda dtype: flows.naf(4, **SMALL, dtype=dtype),
    "sos": lambda dtype: flows.sos(4, **SMALL, dtype=dtype),
    "umnn": lambda dtype: flows.umnn(4, **SMALL, dtype=dtype),
    "flow_pp": lambda dtype: flows.flow_pp((4, 4, 1), 8, 1, heads=2, values=None, dtype=dtype),
    "dense_flow": lambda dtype: flows.dense_flow(
        (4, 4, 1), (2,), (1,), 2, hidden=8, layers=1, width=8, values=None, dtype=dtype
    ),
    "vflow": lambda dtype: flows.vflow((4, 4, 1), 1, 8, 1, values=None, dtype=dtype),
    "jet": lambda dtype: flows.jet((4, 4, 1), 5, 1, 8, patch=2, values=None, dtype=dtype),
    "transformer_af": lambda dtype: flows.transformer_af(4, 2, 1, 8, dtype=dtype),
    "tarflow": lambda dtype: flows.tarflow((4, 4, 1), 2, 2, 8, values=None, dtype=dtype),
}
# In the others, the networks are the transform itself.
WHOLE = {
    "bnaf": lambda: flows.bnaf(4, layers=1, units=2),
    "planar": lambda: flows.planar(4, layers=2),
    "radial": lambda: flows.radial(4, layers=2),
    "sylvester": lambda: flows.sylvester(4, layers=2),
    "i_resnet": lambda: flows.i_resnet(4, layers=1, hidden=(8,)),
    "i_densenet": lambda: flows.i_densenet(4, layers=1, growth=4),
    "residual_flow": lambda: flows.residual_flow(4, layers=1, hidden=(8,)),
    "ffjord": lambda: flows.ffjord(4, hidden=(8,)),
    "flow_matching": lambda: flows.flow_matching(4, hidden=(8,)),
    "anode": lambda: flows.anode(4, hidden=(8,), extra=1),
    "ot_flow": lambda: flows.ot_flow(4, 8),
    "sde": lambda: flows.sde(4, hidden=(8,), steps=2),
    "rnode": lambda: flows.rnode(4, hidden=(8,), exact_up_to=1),
}


def test_every_recipe_is_here():
    names = {name.split()[0] for name in {**NETWORKS, **WHOLE}}
    assert names == set(flows.__all__) - {"tabular"}


def floats(jaxpr):
    """The floating dtypes of all values of a program, and those that products read."""
    every, read = set(), []
    for equation in jaxpr.eqns:
        for var in (*equation.invars, *equation.outvars):
            dtype = getattr(var.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                every.add(str(dtype))
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            read.append(str(equation.invars[0].aval.dtype))
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                more, inner_read = floats(inner)
                every |= more
                read += inner_read
    return every, read


def program(flow, dtype, method):
    """The jaxpr of log_prob or sample, of values and parameters in that dtype: traced alone."""
    y = np.random.default_rng(0).uniform(size=(6, *flow.event_shape)).astype(dtype)
    variables = jax.eval_shape(lambda: jflow.init(flow, KEY, y))
    if method == "log_prob":
        key = None if flow.bijector.log_det_kind == "exact" else KEY
        run = lambda v: jflow.Density(flow, v).log_prob(y, key=key)  # noqa: E731
    else:
        run = lambda v: jflow.Density(flow, v).sample(KEY, (6,))  # noqa: E731
    return jax.make_jaxpr(run)(variables).jaxpr


@pytest.mark.parametrize("method", ["log_prob", "sample"])
@pytest.mark.parametrize("name", [*NETWORKS, *WHOLE])
def test_float64_throughout(name, method):
    flow = NETWORKS[name](None) if name in NETWORKS else WHOLE[name]()
    assert floats(program(flow, jnp.float64, method))[0] == {"float64"}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_in_bfloat16(name):
    """Their products read bfloat16; parameters, densities and samples are float32."""
    flow = NETWORKS[name]("bfloat16")
    for method in ("log_prob", "sample"):
        # With x64, samples of the base are float64 whatever the parameters are.
        with jax.enable_x64(False):
            jaxpr = program(flow, jnp.float32, method)
        every, read = floats(jaxpr)
        assert every == {"bfloat16", "float32"}
        assert read.count("bfloat16") >= 2
        assert {str(var.aval.dtype) for var in jaxpr.outvars} == {"float32"}


def rows(count, seed):
    z = np.random.default_rng(seed).standard_normal((count, 4))
    mix = np.random.default_rng(0).standard_normal((4, 4))
    return (np.tanh(z @ mix) + 0.3 * z).astype(np.float32)


def images(count, seed):
    noise = np.random.default_rng(seed).standard_normal((count, 8, 8, 1))
    return (1 / (1 + np.exp(-np.cumsum(noise, 1)))).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "data"),
    [
        (lambda dtype: flows.real_nvp(4, layers=4, hidden=(32, 32), dtype=dtype), rows),
        pytest.param(
            lambda dtype: flows.nsf(4, layers=4, hidden=(32, 32), dtype=dtype), rows,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda dtype: flows.maf(4, layers=4, hidden=(32, 32), dtype=dtype), rows,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda dtype: flows.glow((8, 8, 1), 2, 4, 16, values=None, dtype=dtype), images,
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_densities_of_trained_flows_against_float64(build, data):
    """In nats per dimension: float32 to rounding, bfloat16 networks to a few thousandths."""
    density, _ = jflow.fit(build(None), data(2000, 1), key=KEY, steps=150, progress=False)
    y = data(256, 2)

    def log_prob(dtype, wide):
        variables = jax.tree.map(
            lambda v: v.astype(wide) if v.dtype == jnp.float32 else v, density.variables
        )
        found = jflow.Density(build(dtype), variables).log_prob(y.astype(wide))
        assert found.dtype == wide
        return np.asarray(found, np.float64) / y[0].size

    exact = log_prob(None, jnp.float64)
    assert np.max(np.abs(log_prob(None, jnp.float32) - exact)) < 1e-5
    error = log_prob("bfloat16", jnp.float32) - exact
    assert 1e-5 < np.sqrt(np.mean(np.square(error))) < 1e-2
    assert abs(np.mean(error)) < 3e-3
