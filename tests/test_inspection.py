"""What densities tell of themselves: a line, their layers, and points on their way."""

import html.parser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors, flows, transformers
from jflow.data import ImageDensity, Labelled, Splits

RNG = np.random.default_rng(0)
VECTORS = {
    "nsf": lambda: flows.nsf(3, layers=2, hidden=(8,)),
    "maf": lambda: flows.maf(3, layers=2, hidden=(8,)),
    "iaf": lambda: flows.iaf(3, layers=2, hidden=(8,)),
    "real_nvp": lambda: flows.real_nvp(3, layers=4, hidden=(8,), context_shape=2),
    "hint": lambda: flows.hint(3, layers=2, hidden=(8,)),
}


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def made(flow, count=7):
    """A density whose parameters are not those of a start, and points."""
    y = RNG.normal(size=(count, *flow.event_shape)).astype(np.float32)
    y = y if flow.integers is None else (np.abs(y) * 60).astype(np.int32) % 256
    context = None
    if flow.context_shape is not None:
        context = RNG.normal(size=(count, 2)).astype(np.float32)
    variables = dict(jflow.init(flow, 0, y, context))
    variables["params"] = jax.tree.map(
        lambda a: a + 0.1 * RNG.normal(size=a.shape).astype(a.dtype), variables["params"]
    )
    return jflow.Density(flow, variables), y, context


def unrolled():
    layer = bijectors.Chain((
        bijectors.ActNorm(),
        bijectors.Coupling(transformers.Affine(), jflow.nets.MLP((8,)), "alternating"),
        bijectors.Permute(),
    ))  # fmt: skip
    return jflow.Flow(bijectors.Repeat(layer, 3, unroll=True), (3,))


@pytest.mark.parametrize("make", [*VECTORS.values(), unrolled], ids=[*VECTORS, "unrolled"])
def test_log_dets_along_the_way_add_up(make):
    density, y, context = made(make())
    steps = density.trajectory(y, context)
    np.testing.assert_array_equal(steps[0].values, y)
    assert (steps[0].name, float(jnp.abs(steps[0].log_det).max())) == ("", 0.0)
    z, log_det = density.latents(y, context, log_det=True)
    np.testing.assert_allclose(steps[-1].values, z, rtol=1e-5, atol=1e-5)
    total = np.sum([step.log_det for step in steps], axis=0)
    np.testing.assert_allclose(total, log_det, rtol=1e-4, atol=1e-4)
    base = -0.5 * np.sum(np.square(z), axis=-1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(total + base, density.log_prob(y, context), rtol=1e-4, atol=1e-4)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)


def test_each_layer_is_seen():
    density, y, _ = made(unrolled())
    steps = density.trajectory(y)
    assert [step.name for step in steps[1:4]] == ["0.0 ActNorm", "0.1 Coupling(Affine)",
                                                  "0.2 Permute"]  # fmt: skip
    assert len(steps) == 10
    order = density.variables["constants"]["bijector"]["layers"]["bijectors_0"]["bijectors_2"]
    first, coupled, permuted = (np.asarray(step.values) for step in steps[1:4])
    orders = np.asarray(order["order"]), np.argsort(order["order"])
    assert any(np.array_equal(permuted, coupled[:, o]) for o in orders)
    kept = [np.array_equal(first[:, i], coupled[:, i]) for i in range(3)]
    assert kept in ([True, False, True], [False, True, False])


def test_loops_in_loops():
    inner = bijectors.Repeat(bijectors.ActNorm(), 3)
    density, y, _ = made(jflow.Flow(bijectors.Repeat(bijectors.Chain((inner,)), 2), (2,)))
    (row,) = density.summary().rows
    assert row[:2] == ("0 ActNorm", 6)
    assert row[4] == density.num_params == 24
    steps = density.trajectory(y)
    assert [step.name for step in steps[1:]] == [
        f"{i}.0.{j} ActNorm" for i in range(2) for j in range(3)
    ]
    np.testing.assert_allclose(steps[-1].values, density.latents(y), rtol=1e-5)


def test_steps_pass_through_programs():
    density, y, _ = made(VECTORS["nsf"]())
    wanted = density.trajectory(y)
    for found in (
        jax.jit(lambda d, y: d.trajectory(y))(density, y),
        jax.vmap(density.trajectory)(y),
    ):
        assert [step.name for step in found] == [step.name for step in wanted]
        np.testing.assert_allclose(found[-1].values, wanted[-1].values, rtol=1e-5, atol=1e-6)
    inverted = made(VECTORS["iaf"]())[0].trajectory(y)
    assert any("Invert(MaskedAutoregressive" in step.name for step in inverted)


def test_what_is_outside_or_does_not_converge():
    density, y, _ = made(VECTORS["nsf"]())
    y[0, 0] = np.inf
    total = np.sum([step.log_det for step in density.trajectory(y)], axis=0)
    assert total[0] == -np.inf
    assert np.isfinite(total[1:]).all()
    net = jflow.nets.LipschitzMLP((8,))
    residual = bijectors.Residual(net, jflow.functional.ExactLogDet(), max_iterations=1)
    lost = jflow.Flow(bijectors.Invert(residual), (2,))
    y = RNG.normal(size=(7, 2)).astype(np.float32)
    density = jflow.Density(lost, jflow.init(lost, 0, np.zeros((7, 2), np.float32)))
    with pytest.raises(FloatingPointError):
        density.latents(100 * y)
    with pytest.raises(FloatingPointError):
        density.trajectory(100 * y)


def test_latents_there_and_back_with_log_dets():
    density, y, context = made(VECTORS["real_nvp"]())
    z, inverse = density.latents(y, context, log_det=True)
    again, forward = density.from_latents(z, context, log_det=True)
    np.testing.assert_allclose(again, y, atol=1e-4)
    np.testing.assert_allclose(inverse + forward, 0, atol=1e-4)
    assert density.latents(y, context).shape == z.shape


def test_images_on_their_way():
    density, y, _ = made(flows.glow((4, 4, 1), 2, 2, 8, checkerboards=0), 3)
    with pytest.raises(ValueError, match="trajectory: give a key"):
        density.trajectory(y)
    steps = density.trajectory(y, key=0)
    assert [step.name.split()[-1] for step in steps[1:]] == [
        "Dequantize", "Elementwise(FixedAffine)", "MultiScale",
    ]  # fmt: skip
    assert steps[0].values.dtype == jnp.result_type(float)
    assert steps[-1].values.shape == (3, 16)
    np.testing.assert_array_equal(np.floor(steps[1].values * 256), y)


@pytest.mark.parametrize("make", [*VECTORS.values(), unrolled], ids=[*VECTORS, "unrolled"])
def test_a_summary_has_all_parameters(make):
    density, _, _ = made(make())
    summary = density.summary()
    assert sum(row[4] for row in summary.rows) == density.num_params > 0
    assert all(row[2] == row[3] == (3,) for row in summary.rows)
    layers = sum(row[1] for row in summary.rows)
    assert layers == len(density.trajectory(*made(make())[1:])) - 1
    lines = str(summary).splitlines()
    assert lines[0] == repr(density)
    assert len(lines) == len(summary.rows) + 2
    assert lines[1].split()[:2] == ["layer", "times"]


def test_a_summary_goes_into_levels_and_beside_the_bijector():
    density, _, _ = made(flows.glow((8, 8, 1), 2, 3, 8, checkerboards=0), 3)
    rows = {row[0]: row for row in density.summary().rows}
    assert sum(row[4] for row in rows.values()) == density.num_params
    assert rows["1.1 MultiScale"][1:5] == (1, (8, 8, 1), (64,), 0)
    assert rows["1.1.0.0 Squeeze"][1:4] == (1, (8, 8, 1), (4, 4, 4))
    assert rows["1.1.1.0 Squeeze"][1:4] == (1, (4, 4, 2), (2, 2, 8))
    assert rows["1.1.1.1.0 ActNorm"][1:5] == (3, (2, 2, 8), (2, 2, 8), 3 * 2 * 8)
    own = jflow.Flow(bijectors.ActNorm(), (2,), base=jflow.ConditionalGaussian(), context_shape=3)
    found = jflow.init(own, 0, np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float32))
    density = jflow.Density(own, found)
    assert sum(row[4] for row in density.summary().rows) == density.num_params > 4
    assert density.summary().rows[-1][0] == "base"


class Cells(html.parser.HTMLParser):
    """How many cells there are."""

    def __init__(self, text):
        super().__init__()
        self.count, self.open = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.count += tag == "td"
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_line():
    density, _, _ = made(VECTORS["real_nvp"]())
    found = repr(density)
    shapes = "event_shape=(3,), context_shape=(2,)"
    assert found == f"Density(real_nvp, {shapes}, {density.num_params:,} parameters)"
    page = Cells(density._repr_html_())
    assert page.open == []
    assert page.count == 8 * len(density.summary().rows)
    own = jflow.Density(jflow.Flow(bijectors.ActNorm(), (2,)), {"params": {}})
    assert repr(own) == "Density(ActNorm, event_shape=(2,), 0 parameters)"


def test_a_line_of_raw_data():
    table = jflow.data.table({f"c{i}": RNG.normal(size=200) for i in range(9)}, test=0.2)
    flow = flows.tabular(table, layers=1, hidden=(8,))
    density, _ = jflow.fit(flow, table, key=0, steps=2, progress=False)
    assert repr(density) == (
        "TableDensity(9 columns: c0, c1, c2, c3, c4, c5, ...; nsf, "
        f"{density.density.num_params:,} parameters; calibrated by 40)"
    )
    images = Splits(
        *(Labelled(np.zeros((n, 4, 4, 1), np.uint8), np.zeros(n, int)) for n in (30, 3, 3)), 256
    )
    found = ImageDensity(made(flows.glow(images.shape, 1, 1, 8, checkerboards=0))[0])
    assert repr(found).startswith("ImageDensity(4x4x1, 256 levels; glow, ")
    assert repr(found).endswith(" parameters; not calibrated)")
