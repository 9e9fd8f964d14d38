"""Densities of raw columns: kinds, units, mass, types, missing cells, p-values, files, errors."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jflow
from jflow import data, flows
from jflow.data import TableDensity, table_density
from jflow.data.told import gather, spread

RNG = np.random.default_rng(0)
N = 600
OPTIONS = {"layers": 2, "hidden": (24, 24)}


def mixed(count=N, seed=0):
    """Columns of all kinds; `length` and `ratio` depend on `kind`, all else on nothing."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["a", "b", "c"], size=count, p=[0.5, 0.3, 0.2])
    place = np.searchsorted(["a", "b", "c"], kind)
    days = np.datetime64("2020-01-01") + rng.integers(0, 365, count)
    return {
        "length": rng.normal(3.0 * place, 0.5),
        "income": np.exp(rng.normal(10, 1, count)),
        "share": rng.beta(2, 3, count) * 100,
        "hour": (rng.normal(0, 2, count)) % 24,
        "children": rng.poisson(2, count),
        "member": rng.random(count) < 0.3,
        "kind": kind,
        "day": days,
        "rating": np.round(rng.normal(3, 1, count), 1),
        "always": np.full(count, "x"),
    }


DECLARED = {"share": "bounded(0, 100)", "hour": "circular(24)"}


def untrained(table, **options):
    flow = flows.tabular(table, **(OPTIONS | options))
    context = None if table.context_shape is None else jnp.zeros((64, table.context_shape))
    y = jax.random.normal(jax.random.key(0), (64, table.features))
    return TableDensity(
        table.schema, jflow.Density(flow, jflow.init(flow, jax.random.key(1), y, context))
    )


@pytest.fixture(scope="module")
def table():
    return data.table(mixed(), columns=DECLARED)


def test_kinds_are_found(table):
    found = {c.name: (c.kind, c.curve, c.step) for c in table.schema.columns}
    assert found == {
        "length": ("real", "none", 0), "income": ("positive", "log", 0),
        "share": ("bounded", "logit", 0), "hour": ("circular", "logit", 0),
        "children": ("integer", "none", 1), "member": ("boolean", "logit", 1),
        "kind": ("category", "logit", 1), "day": ("date", "none", 1),
        "rating": ("real", "none", pytest.approx(0.1)),
    }  # fmt: skip
    assert table.schema.columns[6].categories == ("a", "b", "c")
    assert table.constant == ("always",)
    assert "day: date, in steps of 1 days" in str(table)
    assert "always: constant, left out" in str(table)
    # Where the circle is cut, there are few.
    hour = table.schema.columns[3]
    assert 6 < hour.offset < 18


@pytest.mark.parametrize(
    ("cells", "kind", "curve"),
    [
        (RNG.standard_t(1, 200) * [1] * 200, "real", "asinh"),
        (np.round(np.exp(RNG.normal(5, 1, 200))).astype(int), "integer", "log"),
        (["1", " 2", "?", "5"] * 50, "integer", "none"),
        (["1.5", "2", "NA", "5"] * 50, "real", "none"),
        (["true", "False", None, "true"] * 50, "boolean", "logit"),
        (["2020-01-01", "2021-05-05T12:30", "", "2020-01-03"] * 50, "date", "none"),
        (np.asarray([b"x", b"y"] * 100), "category", "logit"),
        (np.ma.masked_equal(np.arange(200) % 7, 3), "integer", "none"),
    ],
)
def test_cells_as_people_write_them(cells, kind, curve):
    column = data.table({"x": cells}).schema.columns[0]
    assert (column.kind, column.curve) == (kind, curve)


@pytest.mark.parametrize(
    ("levels", "declared"),
    [
        (["true", "false", "unknown"], None),
        (["01", "1", "007"], "category"),
        (["2024-01-01", "never"], None),
        (["NA", "EU"], "category"),
        ([3, 1, 2], "category"),
        ([*"0123456789", "M"], "category"),
    ],
)
def test_a_word_means_the_same_whatever_stands_beside_it(levels, declared):
    cells = levels * 20
    table = data.table({"k": cells}, columns={"k": declared} if declared else None)
    (column,) = table.schema.columns
    assert len(column.categories) == len(levels)
    whole = column.numbers(np.asarray(cells))
    alone = [column.numbers(np.asarray([cell]))[0] for cell in cells]
    np.testing.assert_array_equal(alone, whole)
    t, outside = column.encode(whole)
    assert not outside.any()
    assert column.decode(t + 0.5 / len(levels)).tolist() == cells


@pytest.mark.parametrize(
    ("cells", "declared"),
    [
        (0.05 + np.arange(10) / 10, "bounded(0, 1)"),
        (0.5 + np.arange(24), "circular(24)"),
        (0.5 + np.arange(24) - 12, "circular(24)"),
        (0.05 + np.arange(9) / 10, "positive"),
        (0.05 + np.arange(9) / 10, "real"),
        ((0.1 * np.arange(9)).astype(np.float32) + np.float32(900), "real"),
        (np.arange(50) - 7, "integer"),
        (np.datetime64("2020-01-01T13:00") + np.arange(30) * np.timedelta64(1, "h"), "date"),
    ],
)
def test_grids_wherever_they_are(cells, declared):
    (column,) = data.table({"x": np.tile(cells, 8)}, columns={"x": declared}).schema.columns
    t, outside = column.encode(column.numbers(cells))
    assert column.step > 0
    assert not outside.any()
    for share in (0.01, 0.5, 0.99):
        back = column.decode(np.asarray(t + share * column.step / column.unit, np.float32))
        if cells.dtype.kind == "M":
            np.testing.assert_array_equal(back, cells)
        else:
            np.testing.assert_allclose(back, cells, rtol=1e-6)


def test_what_is_not_on_the_grid_has_no_probability(fitted):
    density, _ = fitted
    rows = mixed(3)
    assert np.isinf(density.log_prob(rows | {"children": [1.5, 2.0, 3.0]})).tolist() == [1, 0, 0]
    assert np.isinf(density.log_prob(rows | {"member": [0.5, 1.0, 0.0]})).tolist() == [1, 0, 0]


def test_the_density_of_a_row_is_its_own(fitted):
    density, _ = fitted
    rows = mixed(37, seed=20)
    found = density.log_prob(rows)
    for other in (density.log_prob(rows, batch_size=64), [
        density.log_prob({n: c[i : i + 1] for n, c in rows.items()})[0] for i in range(37)
    ]):  # fmt: skip
        np.testing.assert_allclose(other, found, rtol=1e-4, atol=1e-4)


def test_few_programs_serve_any_number_of_rows(fitted):
    density, _ = fitted
    density.log_prob(mixed(33))
    before = table_density._seen._cache_size()
    for count in (34, 50, 64):
        density.log_prob(mixed(count))
    assert table_density._seen._cache_size() == before


def test_constant_columns_come_back_in_their_types():
    source = mixed(100) | {"ok": np.full(100, True), "n": np.full(100, 5), "none": [None] * 100,
                           "on": np.full(100, np.datetime64("2024-01-31"))}  # fmt: skip
    table = data.table({n: source[n] for n in ("length", "ok", "n", "none", "on", "always")})
    rows = untrained(table).sample(3)
    assert rows["ok"].tolist() == [True] * 3
    assert rows["n"].tolist() == [5] * 3
    assert rows["none"].tolist() == [None] * 3
    assert rows["on"].tolist() == np.full(3, np.datetime64("2024-01-31", "us")).tolist()
    assert rows["always"].tolist() == ["x"] * 3
    seen = np.where(np.arange(100) == 3, 7, 5)
    table = data.table({"length": source["length"], "n": seen}, test=seen == 7)
    assert table.schema.constants == (("n", "integer", 5),)


def test_repeated_rows_leave_a_density_that_is_not_calibrated():
    rows = mixed(60)["length"]
    source = {"x": np.concatenate([rows, rows])}
    table = data.table(source, discrete="keep", test=0.3)
    with pytest.warns(UserWarning, match="the density is not calibrated: held_out must be rows"):
        density, _ = jflow.fit(
            flows.tabular(table, **OPTIONS), table, key=0, steps=5, progress=False
        )
    assert density.calibration is None


def test_log_det_is_a_change_of_variables(table):
    """dy/dx of the continuous columns, from their raw units to what the flow sees, in float64."""
    schema = replace(table.schema, columns=table.schema.columns[:4])
    raw = {n: c for n, c in mixed(50, seed=1).items() if n in schema.names}
    x = np.stack(list(raw.values()), -1)

    def seen(x):
        t = [(x[d] - c.offset) / c.unit for d, c in enumerate(schema.columns)]
        t[3] = t[3] % 1.0
        return spread(schema.numbers, jnp.stack(t), jax.random.key(0))

    slopes = jax.vmap(jax.jacobian(lambda x: seen(x)[0]))(jnp.asarray(x))
    wanted = np.log(np.abs(np.diagonal(slopes, axis1=1, axis2=2)))
    np.testing.assert_allclose(jax.vmap(seen)(jnp.asarray(x))[1], wanted, rtol=1e-9)
    y, _ = spread(schema.numbers, jnp.asarray(schema.encode(raw).values), jax.random.key(0))
    v = np.asarray(gather(schema.numbers, y), np.float64)
    for d, column in enumerate(schema.columns):
        np.testing.assert_allclose(column.decode(v[:, d]), x[:, d], rtol=2e-4, atol=2e-5)


def test_probabilities_of_all_cells_sum_to_one():
    source = {"k": ["a", "b", "c", "a"] * 20, "m": [True, False] * 40, "n": [0, 1, 2, 1, 1] * 16}
    found = untrained(data.table(source))
    n = np.arange(-9, 13)
    grid = np.meshgrid(["a", "b", "c"], [False, True], n, indexing="ij")
    cells = dict(zip("kmn", (g.ravel() for g in grid), strict=True))
    assert found.schema.is_bound
    sums = [np.exp(found.log_prob(cells, draws=k)).sum() for k in (1, 64, 1024)]
    assert sums[0] < sums[1] < sums[2] <= 1.01
    assert sums[2] == pytest.approx(1, abs=0.02)


def test_mass_of_continuous_columns_is_one():
    source = {n: mixed()[n] for n in ("share", "hour")}
    found = untrained(data.table(source, columns=DECLARED))
    assert not found.schema.is_bound
    share, hour = np.meshgrid((np.arange(400) + 0.5) / 4, (np.arange(240) + 0.5) / 10)
    p = np.exp(found.log_prob({"share": share.ravel(), "hour": hour.ravel()}))
    assert p.sum() * 0.25 * 0.1 == pytest.approx(1, abs=0.01)
    assert found.log_prob({"share": [-1.0, 101.0], "hour": [3.0, 3.0]}).tolist() == [-np.inf] * 2
    turned = found.log_prob({"share": [50.0] * 3, "hour": [23.0, -1.0, 47.0]})
    np.testing.assert_allclose(turned, turned[0], rtol=1e-4)


@pytest.fixture(scope="module")
def fitted(table):
    return jflow.fit(flows.tabular(table, **OPTIONS), table, key=0, steps=600, progress=False)


def test_the_density_is_that_of_the_raw_columns(fitted, table):
    density, history = fitted
    fresh = mixed(2000, seed=9)
    p = {"a": 0.5, "b": 0.3, "c": 0.2}
    place = np.searchsorted(["a", "b", "c"], fresh["kind"])
    hours = stats.norm(0, 2)
    truth = (
        stats.norm(3.0 * place, 0.5).logpdf(fresh["length"])
        + stats.lognorm(1, scale=np.exp(10)).logpdf(fresh["income"])
        + stats.beta(2, 3, scale=100).logpdf(fresh["share"])
        + np.log(sum(hours.pdf(fresh["hour"] + 24 * k) for k in (-1, 0, 1)))
        + stats.poisson(2).logpmf(fresh["children"])
        + np.log(np.where(fresh["member"], 0.3, 0.7))
        + np.log([p[k] for k in fresh["kind"]])
        + np.log(1 / 365)
        + stats.norm(3, 1).logpdf(fresh["rating"])
    )
    found = density.log_prob(fresh)
    assert found.dtype == np.float64
    # Of 480 rows: what is lost is what they do not tell.
    assert -0.1 < np.mean(truth - found) < 1.2
    assert history.rows[-1]["train_nll"] == pytest.approx(-found.mean(), abs=2)
    again = {n: fresh[n] for n in reversed(fresh)}
    np.testing.assert_array_equal(density.log_prob(again), found)
    np.testing.assert_allclose(density.log_prob(fresh, batch_size=100), found, atol=1.5)
    # Rows are the better known by more draws of the noise.
    assert density.log_prob(fresh, draws=1).mean() < found.mean()


def test_samples_have_the_types_of_the_table(fitted):
    density, _ = fitted
    rows = density.sample(3000, key=1)
    source = mixed()
    assert list(rows) == list(source)
    for name, cells in rows.items():
        kinds = {"i": "i", "b": "b", "f": "f", "M": "M", "U": "OU"}[source[name].dtype.kind]
        assert cells.dtype.kind in kinds, name
    assert rows["income"].min() > 0
    assert (rows["share"].min() > 0) & (rows["share"].max() < 100)
    assert (rows["hour"].min() >= 0) & (rows["hour"].max() < 24)
    assert set(rows["always"]) == {"x"}
    np.testing.assert_allclose(rows["rating"] * 10, np.round(rows["rating"] * 10), atol=1e-9)
    shares = [np.mean(rows["kind"] == k) for k in "abc"]
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.08)
    assert np.mean(rows["member"]) == pytest.approx(0.3, abs=0.08)
    middle = [np.median(rows["length"][rows["kind"] == k]) for k in "abc"]
    np.testing.assert_allclose(middle, [0, 3, 6], atol=0.5)
    assert (rows["day"] >= np.datetime64("2019-10-01")).mean() > 0.98


def test_p_values_are_uniform_on_fresh_rows(fitted):
    density, _ = fitted
    calibrated = density.calibrate(mixed(2000, seed=5))
    for seed in (6, 7, 8):
        p = calibrated.p_value(mixed(500, seed=seed), key=seed)
        assert stats.kstest(p, "uniform").pvalue > 0.01
    usual = calibrated.outlier(mixed(2000, seed=10), 0.05)
    assert np.mean(usual) == pytest.approx(0.05, abs=0.02)
    assert len(density.calibration) == 60  # by the rows that the table held out


def test_the_rows_that_were_fitted_on_calibrate_nothing(fitted):
    density, _ = fitted
    with pytest.raises(ValueError, match=r"fitted on 80% of them, so that too many"):
        density.calibrate(mixed())
    with pytest.raises(ValueError, match="must have 20 rows or more; got 5"):
        density.calibrate(mixed(5, seed=3))
    with pytest.raises(ValueError, match="p_value needs held-out data"):
        replace(density, calibration=None).p_value(mixed(5))
    with pytest.raises(ValueError, match=r"alpha must be 0.033 or more, since 60 calibration rows"):
        density.outlier(mixed(5), 0.01)


def test_anomalies_are_found_and_explained(fitted):
    density, _ = fitted
    rows = mixed(40, seed=11)
    planted = np.arange(0, 40, 8)
    rows["kind"][planted], rows["length"][planted] = "a", 6.0  # usual alone, not together
    calibrated = density.calibrate(mixed(2000, seed=5))
    found = calibrated.outlier(rows, 0.02, tails=1)
    assert found[planted].all()
    assert found.sum() <= len(planted) + 3
    surprise = calibrated.contributions({n: c[planted] for n, c in rows.items()})
    names = [
        n for n in surprise if n not in ("income", "day", "share")
    ]  # in dollars, days, percent
    first = [max(names, key=lambda n: surprise[n][i]) for i in range(len(planted))]
    assert set(first) <= {"length", "kind"}


def test_surprises_are_what_a_fine_grid_says():
    rho, rng = 0.9, np.random.default_rng(0)
    a = rng.normal(size=2000)
    source = {"a": a, "b": rho * a + np.sqrt(1 - rho**2) * rng.normal(size=2000)}
    table = data.table(source)
    flow = flows.maf(2, layers=1, hidden=(8,))
    density, _ = jflow.fit(flow, table, key=0, steps=300, learning_rate=0.02, progress=False)
    a, b, grid = np.asarray([0.0, 2, 3, 0]), np.asarray([0.0, 2, 0, 4]), np.linspace(-20, 20, 8001)
    found, own = density.contributions({"a": a, "b": b}), density.log_prob({"a": a, "b": b})
    for i in range(4):
        of_a = density.log_prob({"a": grid, "b": np.full(8001, b[i])})
        of_b = density.log_prob({"a": np.full(8001, a[i]), "b": grid})
        for name, each in (("a", of_a), ("b", of_b)):
            wanted = np.logaddexp.reduce(each) + np.log(0.005) - own[i]
            np.testing.assert_allclose(found[name][i], wanted, rtol=0.02, atol=0.02)


def test_files(fitted, tmp_path):
    density, _ = fitted
    path = tmp_path / "saved"
    density.save(path)
    density.save(path)
    again = TableDensity.load(path)
    assert again.schema == density.schema
    rows = mixed(30, seed=12)
    np.testing.assert_array_equal(again.log_prob(rows), density.log_prob(rows))
    np.testing.assert_array_equal(again.p_value(rows), density.p_value(rows))
    with pytest.raises(ValueError, match="fitted on 80% of them"):
        again.calibrate(mixed())
    said = json.loads((path / "table.json").read_text())
    (path / "table.json").write_text(json.dumps(said | {"numbers": "0"}))
    with pytest.raises(ValueError, match=r"damaged: numbers.npz is not the one"):
        TableDensity.load(path)
    (path / "table.json").write_text("{")
    with pytest.raises(ValueError, match=r"table.json is damaged, or of another version"):
        TableDensity.load(path)
    with pytest.raises(FileNotFoundError, match=r"there is no table.json"):
        TableDensity.load(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="holds something other"):
        density.save(tmp_path / "other")


def holed(count=2000, seed=0):
    rng = np.random.default_rng(seed + 100)
    rows = {n: mixed(count, seed)[n] for n in ("length", "kind", "member")}
    rows["length"] = np.where(rng.random(count) < 0.2, np.nan, rows["length"])
    rows["kind"] = np.where(rng.random(count) < 0.2, None, rows["kind"].astype(object))
    return rows


@pytest.fixture(scope="module")
def with_holes():
    table = data.table(holed())
    assert table.schema.conditionals
    flow = flows.tabular(table, **OPTIONS)
    return jflow.fit(flow, table, key=0, steps=1500, progress=False)[0]


def test_earlier_files_are_read():
    folder = Path(__file__).parent / "saved_raw" / "0.1" / "table"
    said = json.loads((folder / "expected.json").read_text())
    density = TableDensity.load(folder)
    rows = {"kind": ["a", "b", "a"], "x": [0.5, 2.5, np.nan], "count": [3, 1, 4]}
    # Noise of float64 is another than that of the float32 which was saved.
    np.testing.assert_allclose(density.log_prob(rows), said["log_prob"], atol=0.5)
    np.testing.assert_allclose(density.p_value(rows), said["p_value"], atol=0.15)


def test_missing_cells_are_left_out_of_log_prob(with_holes):
    rows = mixed(1000, seed=3)
    length, kind = rows["length"], rows["kind"]
    p = np.asarray([0.5, 0.3, 0.2])
    alone = {"length": length, "kind": [None] * 1000, "member": [None] * 1000}
    truth = np.log(sum(w * stats.norm(3.0 * k, 0.5).pdf(length) for k, w in enumerate(p)))
    assert -0.05 < np.mean(truth - with_holes.log_prob(alone)) < 0.25
    words = alone | {"length": np.full(1000, np.nan), "kind": kind}
    truth = np.log(p[np.searchsorted(["a", "b", "c"], kind)])
    assert -0.05 < np.mean(truth - with_holes.log_prob(words)) < 0.15
    both = {n: rows[n] for n in ("length", "kind", "member")}
    place = np.searchsorted(["a", "b", "c"], kind)
    truth = stats.norm(3.0 * place, 0.5).logpdf(length) + np.log(np.where(rows["member"], 0.3, 0.7))
    found = with_holes.log_prob(both, given=["kind"])
    assert -0.05 < np.mean(truth - found) < 0.3


def test_missing_cells_are_imputed(with_holes):
    kind = np.asarray(["a", "b", "c"] * 30, object)
    rows = {"length": np.full(90, np.nan), "kind": kind, "member": [True] * 90}
    rows["length"][:3] = [0.1, 3.1, 5.9]
    rows["kind"] = np.where(np.arange(90) < 3, None, kind)
    filled = with_holes.impute(rows)
    assert list(filled["kind"][:3]) == ["a", "b", "c"]
    np.testing.assert_array_equal(filled["length"][:3], rows["length"][:3])
    np.testing.assert_allclose(filled["length"][3:], np.tile([0, 3, 6], 29), atol=0.6)
    assert list(filled["kind"][3:]) == list(kind[3:])
    draws = np.stack([f["length"][3:] for f in with_holes.impute(rows, samples=20)])
    middle = np.median(np.subtract(*np.quantile(draws, (0.75, 0.25), axis=0)))
    assert middle == pytest.approx(0.5 * 1.35, abs=0.15)
    surprise = with_holes.contributions({"length": [6.0], "kind": ["a"], "member": [None]})
    assert surprise["length"][0] > 5
    assert surprise["member"][0] == 0


def test_given_columns():
    rows = {n: mixed()[n] for n in ("length", "kind", "hour")}
    table = data.table(rows, given=["kind", "hour"], columns={"hour": "circular(24)"})
    assert (table.columns, table.context_shape) == (("length",), 5)
    flow = flows.tabular(table, **OPTIONS)
    density, _ = jflow.fit(flow, table, key=0, steps=600, progress=False)
    fresh = mixed(1000, seed=4)
    place = np.searchsorted(["a", "b", "c"], fresh["kind"])
    truth = stats.norm(3.0 * place, 0.5).logpdf(fresh["length"])
    assert -0.02 < np.mean(truth - density.log_prob(fresh)) < 0.3
    drawn = density.sample(400, {"kind": "b", "hour": 3.0}, key=2)
    assert list(drawn) == ["length", "kind", "hour"]
    assert np.mean(drawn["length"]) == pytest.approx(3, abs=0.3)
    assert set(drawn["kind"]) == {"b"}
    with pytest.raises(ValueError, match=r"given column 'kind', row 0: .*z.* is not among"):
        density.sample(3, {"kind": "z", "hour": 3.0})
    with pytest.raises(ValueError, match=r"needs the given columns \['kind', 'hour'\]"):
        density.sample(3)
    with pytest.raises(ValueError, match=r"given must have 1 row or 3; it has 2"):
        density.sample(3, {"kind": ["a", "b"], "hour": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"raw lacks the columns \['hour'\]"):
        density.log_prob({"length": [1.0], "kind": ["a"]})


def test_words_that_were_never_seen_have_no_probability(fitted):
    density, _ = fitted
    rows = mixed(5)
    assert np.isinf(density.log_prob(rows | {"kind": ["a", "z", "b", "z", "c"]})).tolist() == [
        False, True, False, True, False,
    ]  # fmt: skip


def test_errors(fitted, table):
    density, _ = fitted
    with pytest.raises(
        TypeError, match=r"column 'income', row 2: 'much' cannot be read as 'positive'"
    ):
        density.log_prob(mixed(4) | {"income": ["1", "2", "much", "4"]})
    with pytest.raises(ValueError, match=r"column 'length', row 1: the cell is missing; build the"):
        density.log_prob(mixed(3) | {"length": [1.0, np.nan, 2.0]})
    with pytest.raises(ValueError, match="impute needs a density that knows any columns"):
        density.impute(mixed(3))
    with pytest.raises(ValueError, match="given= needs a density that knows any columns"):
        density.log_prob(mixed(3), given=["kind"])
    with pytest.raises(ValueError, match=r"given: no columns of this table are given"):
        density.sample(3, {"kind": "a"})
    with pytest.raises(ValueError, match=r"the flow must have 9 features and context_shape=None"):
        jflow.fit(flows.nsf(3), table, key=0)
    with pytest.raises(ValueError, match="leave out loss, augment, dimensions and check_drift"):
        jflow.fit(flows.tabular(table), table, key=0, loss=lambda *_: 0)
    with pytest.raises(ValueError, match="leave out context, weights and validation"):
        jflow.fit(flows.tabular(table), table, key=0, weights=np.ones(N))
    with pytest.raises(ValueError, match=r"'hour' must be one of \['real', .*got 'circular'"):
        data.table(mixed(), columns={"hour": "circular"})
    with pytest.raises(ValueError, match="'hour' must have a period above 0"):
        data.table(mixed(), columns={"hour": "circular(0)"})
    with pytest.raises(
        ValueError, match=r"columns must name columns of the table; \['x'\] are not"
    ):
        data.table(mixed(), columns={"x": "real"})
    with pytest.raises(ValueError, match=r"column 'length', row \d+: .* is not above 0; declare"):
        data.table(mixed(), columns={"length": "positive"})
    with pytest.raises(ValueError, match=r"column 'share', row \d+: .* is not in \[0, 50\]"):
        data.table(mixed(), columns={"share": "bounded(0, 50)"})
    with pytest.raises(ValueError, match=r"'name' has 600 different words .* leave it out by"):
        data.table(mixed() | {"name": [f"n{i}" for i in range(N)]})
    with pytest.raises(ValueError, match=r"cells are missing or columns given: use jflow.fit"):
        data.table(holed()).train  # noqa: B018


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.filterwarnings("ignore")
def test_frames(library, with_holes):
    frames = pytest.importorskip(library)
    make = frames.table if library == "pyarrow" else frames.DataFrame
    source = {n: c.tolist() for n, c in holed(60).items()}
    if library == "polars":
        source["length"] = [None if x != x else x for x in source["length"]]
    frame = make(source)
    table = data.table(frame)
    assert table.schema.frame == library
    density = replace(with_holes, schema=replace(with_holes.schema, frame=library))
    np.testing.assert_array_equal(density.log_prob(frame), density.log_prob(holed(60)))
    drawn, filled = density.sample(5), density.impute(frame)
    for found in (drawn, filled):
        assert type(found).__module__.startswith(library)
        assert list(getattr(found, "column_names", found.columns)) == list(source)


def test_tables_with_columns_of_the_same_kinds_share_programs():
    from jflow.train import evaluation
    from jflow.train.steps import advance

    programs = advance, evaluation._losses, table_density._seen
    flow = flows.real_nvp(2, layers=2, hidden=(4,))

    def fitted(seed, rows):
        x = np.random.default_rng(seed).normal(3 * seed, 1 + seed, size=(rows, 2))
        table = data.table(x, seed=seed)
        return jflow.fit(flow, table, key=0, steps=4, batch_size=16, progress=False)[0], x

    first, x = fitted(0, 60)
    first.log_prob(x)
    counts = [program._cache_size() for program in programs]
    second, x = fitted(1, 66)
    assert np.isfinite(second.log_prob(x[:60])).all()
    assert [program._cache_size() for program in programs] == counts


def test_weights_count_as_copies_do():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 200), rng.normal(8, 1, 200)])[:, None]
    weights = np.where(x[:, 0] > 4, 3.0, 1.0)
    table = data.table(x, weights=weights)
    assert [len(w) for w in table.weights or ()] == [len(r.values) for r in table.rows]
    flow = flows.nsf(1, layers=1, hidden=(16,), autoregressive=True)
    density, _ = jflow.fit(flow, table, key=0, steps=300, progress=False)
    assert density.calibration is None
    share = (density.sample(4000, key=1)["x0"] > 4).mean()
    assert abs(share - 0.75) < 0.05
    with pytest.raises(ValueError, match="weights must have shape"):
        data.table(x, weights=weights[:3])
    with pytest.raises(ValueError, match=r"give them to data\.table"):
        jflow.fit(flow, table, key=0, weights=weights)


def test_another_value_in_a_constant_column_is_outside():
    columns = {"x": RNG.normal(size=60), "a": np.full(60, 0.3), "b": ["de"] * 60}
    table = data.table(columns)
    assert table.constant == ("a", "b")
    new = {"x": np.zeros(4), "a": [0.1 + 0.2, 0.3, 0.4, np.nan], "b": ["de", "at", "de", None]}
    rows = table.schema.encode(new)
    np.testing.assert_array_equal(np.isneginf(rows.log_det), [False, True, True, False])
    assert np.isfinite(table.schema.encode({"x": np.zeros(4)}).log_det).all()


def test_a_fit_that_starts_from_variables():
    x = np.random.default_rng(0).normal(2, 3, size=(80, 2))
    table, flow = data.table(x), flows.real_nvp(2, layers=2, hidden=(4,))
    first, _ = jflow.fit(flow, table, key=0, steps=3, progress=False)
    start, _ = jflow.fit(
        flow, table, key=1, steps=1, progress=False, learning_rate=0.0,
        variables=first.density.variables,
    )  # fmt: skip
    np.testing.assert_allclose(start.log_prob(x), first.log_prob(x), rtol=1e-6)
