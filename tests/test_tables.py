"""Tables: fixed splits, standardisation and back, constant and discrete columns, files, errors."""

import gzip
import importlib.util
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jflow.data import Table, table
from jflow.data.told import gather

RNG = np.random.default_rng(0)
RAW = RNG.normal(size=(100, 3)) * [1.0, 50.0, 1e-3] + [0.0, 1e4, 5.0]


def named(**columns):
    """Two real columns a and b, and these."""
    return {"a": RAW[:, 0], "b": RAW[:, 1], **columns}


def test_split_and_units():
    found = table(RAW, validation=0.2, test=0.1, seed=3)
    order = np.random.default_rng(3).permutation(100)
    train, validation, test = RAW[order[:70]], RAW[order[70:90]], RAW[order[90:]]
    mean, std = train.mean(axis=0), train.std(axis=0)
    for part, rows in ((found.train, train), (found.validation, validation), (found.test, test)):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, (rows - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.train.std(axis=0), 1, atol=1e-6)
    assert isinstance(found, Table)
    assert (found.columns, found.constant, found.discrete) == (("x0", "x1", "x2"), (), ())
    assert (found.handling, found.features, found.context_shape) == ("dequantize", 3, None)


def test_seeds():
    np.testing.assert_array_equal(table(RAW).train, table(RAW).train)
    assert not np.array_equal(table(RAW).train, table(RAW, seed=1).train)


def test_a_mask_says_what_is_tested():
    mask = np.arange(100) % 4 == 0
    found = table(RAW, test=mask, validation=0.2)
    assert [len(found.train), len(found.validation), len(found.test)] == [60, 15, 25]
    np.testing.assert_array_equal(found.rows[2].values, found.schema.encode(RAW[mask]).values)
    together = np.sort(np.concatenate([part.values for part in found.rows[:2]]), axis=0)
    wanted = found.schema.encode(RAW[~mask]).values
    np.testing.assert_array_equal(together, np.sort(wanted, axis=0))


def test_constant_columns_are_dropped():
    rounded = 0.1 + np.where(np.arange(100) % 2, 2e-17, 0)
    found = table(named(same=np.full(100, 7.0), nearly=rounded, c=RAW[:, 2]))
    assert found.columns == ("a", "b", "c")
    assert found.constant == ("same", "nearly")
    # In the training rows alone, too: the only other value is in the test rows.
    mask = np.arange(100) == 5
    assert table(named(spike=np.where(mask, 1.5, 0.5)), test=mask).constant == ("spike",)


def test_discrete_columns():
    levels = np.arange(100) % 5 * 0.25
    whole = np.random.default_rng(1).permutation(100) + 1000
    inflated = np.where(np.arange(100) < 30, 0.0, RAW[:, 2])
    few_repeats = np.where(np.arange(100) < 15, 0.5, RAW[:, 2])
    source = named(
        levels=levels, whole=whole, flag=whole % 2 == 0, inflated=inflated, few=few_repeats
    )
    dropped = table(source, discrete="drop")
    assert dropped.discrete == ("levels", "whole", "flag", "inflated")
    assert dropped.columns == ("a", "b", "few")
    assert "few" in table(source, repeats=0.1).discrete
    kept = table(source, discrete="keep")
    assert kept.columns == tuple(source)
    assert (kept.discrete, kept.handling) == (dropped.discrete, "keep")
    assert [c.step for c in kept.schema.columns] == [0, 0, 0, 0, 1, 0, 0]  # a truth is no number
    assert len(np.unique(kept.train[:, 2])) == 5


def test_dequantization_by_one_step():
    levels = np.arange(100) % 5 * 0.25
    found = table(named(levels=levels))
    assert (found.columns, found.discrete) == (("a", "b", "levels"), ("levels",))
    column = found.schema.columns[2]
    assert (column.kind, column.step) == ("real", 0.25)
    order = np.random.default_rng(0).permutation(100)
    together = np.concatenate([found.train, found.validation, found.test])
    v = np.asarray(gather(found.schema.numbers, jnp.asarray(together)))[:, 2]
    noise = (column.offset + column.unit * v - levels[order]) / 0.25
    assert -1e-5 < noise.min() < 0.1
    assert 0.9 < noise.max() < 1 + 1e-5
    assert len(np.unique(v)) == 100
    np.testing.assert_array_equal(column.decode(v), levels[order])
    np.testing.assert_array_equal(table(named(levels=levels)).train, found.train)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_and_without_header(delimiter, tmp_path):
    lines = [delimiter.join(map(repr, map(float, row))) for row in RAW]
    expected = table(RAW)
    (tmp_path / "bare.csv").write_text("\n".join(lines) + "\n\n")
    np.testing.assert_array_equal(table(tmp_path / "bare.csv").train, expected.train)
    assert table(tmp_path / "bare.csv", names=["p", "q", "r"]).columns == ("p", "q", "r")
    header = delimiter.join(['"p"', " q", "r"])
    (tmp_path / "named.csv").write_text("\ufeff" + "\r\n".join([header, *lines]), "utf-8")
    found = table(str(tmp_path / "named.csv"))
    assert found.columns == ("p", "q", "r")
    np.testing.assert_array_equal(found.train, expected.train)


def test_csv_with_words(tmp_path):
    rows = [
        f"{a!r},{'cat' if i % 3 else 'dog'},{b!r}" for i, (a, b) in enumerate(RAW[:, :2].tolist())
    ]
    (tmp_path / "pets.csv").write_text("\n".join(["a,pet,b", *rows]))
    found = table(tmp_path / "pets.csv")
    assert found.columns == ("a", "pet", "b")
    assert found.schema.columns[1].categories == ("cat", "dog")
    for options in ({"ignore": ["pet"]}, {"discrete": "drop"}):
        found = table(tmp_path / "pets.csv", **options)
        assert found.columns == ("a", "b")
        np.testing.assert_array_equal(found.train, table(RAW[:, :2]).train)


def test_csv_errors(tmp_path):
    file = tmp_path / "t.csv"
    for text in ("", "a,b\n", "\n\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"t.csv is empty: it has no row of numbers"):
            table(file)
    file.write_text("a,b\n1,2\n3\n4,5\n6,7")
    with pytest.raises(ValueError, match=r"t.csv: row 2 has 1 cells, but row 1 has 2"):
        table(file)
    file.write_text("a,b\n1,2\n3,\n4,5\n6,inf")
    with pytest.raises(ValueError, match=r"column 'b', row 3: inf is infinite: leave out the row"):
        table(file)
    file.write_text("a,b,c\n1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"3 names \['a', 'b', 'c'\] for 2 columns"):
        table(file)
    file.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ValueError, match=r"names \['a'\] occur more than once; rename them"):
        table(file)


def test_npz_files(tmp_path):
    np.savez(tmp_path / "t.npz", RAW)
    np.testing.assert_array_equal(table(tmp_path / "t.npz").train, table(RAW).train)
    np.savez(tmp_path / "n.npz", a=RAW[:, 0], b=RAW[:, 1])
    assert table(tmp_path / "n.npz").columns == ("a", "b")
    np.savez(tmp_path / "o.npz", a=RAW, b=RAW[:, 1])
    with pytest.raises(ValueError, match=r"must have columns \(N,\) by name, or one \(N, D\)"):
        table(tmp_path / "o.npz")


def test_npy_files(tmp_path):
    np.save(tmp_path / "t.npy", RAW)
    np.testing.assert_array_equal(table(tmp_path / "t.npy").train, table(RAW).train)
    records = np.rec.fromarrays(list(RAW.T), names="p,q,r")
    np.save(tmp_path / "r.npy", records.view(np.ndarray))
    found = table(tmp_path / "r.npy")
    assert found.columns == ("p", "q", "r")
    np.testing.assert_array_equal(found.train, table(RAW).train)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
@pytest.mark.filterwarnings("ignore")
def test_parquet_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    words = ["cat"] * 100
    holes = [None, *RAW[1:, 0].tolist()]
    columns = pyarrow.table({"p": RAW[:, 0], "q": RAW[:, 1], "pet": words, "holes": holes})
    parquet.write_table(columns, tmp_path / "t.parquet")
    found = table(tmp_path / "t.parquet", ignore=["pet", "holes"])
    assert found.columns == ("p", "q")
    np.testing.assert_array_equal(found.train, table(RAW[:, :2]).train)
    found = table(tmp_path / "t.parquet")
    assert (found.columns, found.constant) == (("p", "q", "holes"), ("pet",))
    assert found.schema.conditionals


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").touch()
    with pytest.raises(ImportError, match=r"t.parquet, pyarrow is needed: `pip install pyarrow`"):
        table(tmp_path / "t.parquet")


def test_wrong_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none.csv; give the path of a table"):
        table(tmp_path / "none.csv")
    with pytest.raises(
        ValueError, match=r"t.xlsx must be one of \['.csv', '.tsv', '.npy', '.npz', '.parquet', "
    ):
        table(tmp_path / "t.xlsx")
    for empty in (np.zeros((0, 3)), np.zeros((5, 0)), np.zeros(5)):
        with pytest.raises(ValueError, match=r"source must be \(N, D\) and not empty; got shape"):
            table(empty)
    with pytest.raises(ValueError, match="0 rows of 0 columns"):
        table({})
    with pytest.raises(ValueError, match="2 rows of 3 columns; a table needs 4 rows or more"):
        table(RAW[:2])
    with pytest.raises(ValueError, match=r"one and the same shape \(N,\); got {'a': \(100,\), 'b'"):
        table(named(short=np.zeros(3)))
    with pytest.raises(TypeError, match=r"column 'w', row 3: 'x' \(str\) is no number"):
        table(named(w=["1", "2", "3", "x", *["4"] * 96]))
    with pytest.raises(TypeError, match=r"column 'z', row 0: .*\(complex128\) is no number"):
        table(named(z=RAW[:, 0] + 1j))
    holes = np.where(np.arange(100)[:, None] < [0, 2, 3], np.inf, RAW)
    with pytest.raises(ValueError, match=r"column 'x1', row 0: inf is infinite: leave out the row"):
        table(holes)


def test_wrong_names():
    with pytest.raises(ValueError, match=r"names \['p'\] occur more than once"):
        table(RAW, names=["p", "p", "q"])
    with pytest.raises(ValueError, match=r"2 names \['p', 'q'\] for 3 columns"):
        table(RAW, names=["p", "q"])
    with pytest.raises(ValueError, match=r"names must be None for .*; it has \['a', 'b'\]"):
        table(named(), names=["p", "q"])
    with pytest.raises(ValueError, match=r"ignore must name columns .*; \['p'\] are not in"):
        table(RAW, ignore=["p"])


def test_wrong_options():
    for share in (0, 1, -0.1, 1.5, float("nan"), "half"):
        with pytest.raises(ValueError, match=r"validation must be a share in \(0, 1\); got"):
            table(RAW, validation=share)
        with pytest.raises(ValueError, match=r"test must be a share in \(0, 1\); got"):
            table(RAW, test=share)
    with pytest.raises(ValueError, match=r"leave 2 or more of 100 rows to .* take 50 and 50"):
        table(RAW, validation=0.5, test=0.5)
    for mask in (np.zeros(100, bool), np.ones(3, bool), np.arange(100)):
        with pytest.raises(ValueError, match="test must be a share, or a mask of 100 booleans"):
            table(RAW, test=mask)
    with pytest.raises(ValueError, match=r"they take 1 and 98"):
        table(RAW, test=np.arange(100) < 98)
    with pytest.raises(ValueError, match=r"one of \['dequantize', 'drop', 'keep'\]; got 'noise'"):
        table(RAW, discrete="noise")
    with pytest.raises(ValueError, match=r"repeats must be a share in \(0, 1\]; got 2"):
        table(RAW, repeats=2)
    numbers = {"i": np.arange(10), "c": np.ones(10)}
    with pytest.raises(ValueError, match=r"no column is left: \['c'\] are .* \['i'\] look"):
        table(numbers, discrete="drop")
    with pytest.raises(ValueError, match=r"raw must be .* or \(N, 3\), with the columns .*'x0'"):
        table(RAW).schema.encode(RAW[:, :2])


def test_large_floats_are_not_discrete_for_being_whole():
    """Beyond 2^23 all float32 numbers are integers; what is below, or repeats, tells."""
    random = np.random.default_rng(0)
    large = (1e9 * (1 + random.random((100, 2)))).astype(np.float32)
    assert table(large).discrete == ()
    assert table((1e17 * (1 + random.random((100, 1)))).tolist()).discrete == ()
    mixed = np.round(10 ** random.uniform(0, 9, (100, 1))).astype(np.float32)
    assert table(np.hstack([mixed, large])).discrete == ("x0",)
    assert table(np.hstack([np.repeat(large[:50, :1], 2, axis=0), large])).discrete == ("x0",)


def test_tiny_and_huge_numbers():
    for scale in (1e-200, 1e200):
        found = table(scale * RAW)
        np.testing.assert_allclose(found.train, table(RAW).train, rtol=1e-5)
    with pytest.raises(ValueError, match=r"columns \['x0'\] vary too little for float64"):
        table(np.hstack([(np.arange(100)[:, None] % 25 == 0) * 5e-324, RAW]), discrete="keep")


def test_masks_object_arrays_and_byte_order():
    masked = np.ma.masked_array(RAW, np.arange(300).reshape(100, 3) == 7)
    assert np.isnan(np.concatenate([part.values for part in table(masked).rows])).sum(
        0
    ).tolist() == [0, 1, 0]
    wanted = table(RAW).train
    for other in (RAW.astype(">f8"), RAW.astype(object), RAW.tolist(), RAW.astype(str)):
        np.testing.assert_array_equal(table(other).train, wanted)
    holes = RAW.astype(object)
    for missing in (None, "?", "NA", "", float("nan")):
        holes[4, 2] = missing
        assert np.isnan(table(holes).schema.encode(holes).values[4]).tolist() == [
            False,
            False,
            True,
        ]
    dates = {"a": RAW[:, 0], "day": np.full(100, "2024-01-31", "datetime64[D]")}
    assert table(dates).constant == ("day",)


class Frame:
    """What data frames of pandas and polars have in common."""

    def __init__(self, columns):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def test_data_frames_are_read_by_name():
    frame = Frame(named(c=RAW[:, 2]))
    found = table(frame)
    assert found.columns == ("a", "b", "c")
    np.testing.assert_array_equal(found.train, table(RAW).train)
    swapped = Frame({name: frame[name] for name in ("c", "a", "b")})
    encode = lambda raw: found.schema.encode(raw).values  # noqa: E731
    np.testing.assert_array_equal(encode(swapped), encode(RAW))
    with_more = {"more": np.ones(100), **named(c=RAW[:, 2])}
    np.testing.assert_array_equal(encode(with_more), encode(RAW))
    with pytest.raises(ValueError, match=r"raw lacks the columns \['b'\]; it has \['a', 'c'\]"):
        encode({"a": RAW[:, 0], "c": RAW[:, 2]})


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.filterwarnings("ignore")
def test_data_frames_of_libraries(library):
    frames = pytest.importorskip(library)
    make = frames.table if library == "pyarrow" else frames.DataFrame
    found = table(make(named(c=RAW[:, 2])))
    assert found.columns == ("a", "b", "c")
    encode = lambda raw: found.schema.encode(raw).values  # noqa: E731
    np.testing.assert_array_equal(encode(make(named(c=RAW[:, 2]))), encode(RAW))


def test_text_files_as_people_have_them(tmp_path):
    wanted = table(RAW).train
    rows = [["größe", "b", "c"], *[[repr(v) for v in row] for row in RAW.tolist()]]
    text = "\n".join("\t".join(row) for row in rows)
    for name, content in (
        ("t.tsv", text.encode()),
        ("latin.tsv", text.encode("latin-1")),
        ("wide.tsv", text.encode("utf-16")),
        ("t.tsv.gz", gzip.compress(text.encode())),
        ("comma.csv", text.replace("\t", ";").replace(".", ",").encode()),
    ):
        (tmp_path / name).write_bytes(content)
        found = table(tmp_path / name)
        assert found.columns == ("größe", "b", "c")
        np.testing.assert_array_equal(found.train, wanted)
    counted = text.replace("größe\tb\tc", "0\t1\t2")
    (tmp_path / "counted.tsv").write_text(counted)
    assert table(tmp_path / "counted.tsv").columns == ("0", "1", "2")
    np.testing.assert_array_equal(table(tmp_path / "counted.tsv").train, wanted)
    (tmp_path / "t.npy.gz").touch()
    with pytest.raises(ValueError, match=r"t.npy.gz must be one of"):
        table(tmp_path / "t.npy.gz")


def test_given_columns_take_any_number():
    some = {
        "y": RNG.normal(size=100),
        "n": RNG.poisson(3, 100),
        "p": np.exp(2 * RNG.normal(size=100)),
    }
    found = table(some, given=["n", "p"])
    assert [column.kind for column in found.schema.given] == ["real", "real"]
    rows = found.schema.encode({"y": [0.0], "n": [1.5], "p": [-1.0]})
    assert np.isfinite(rows.given).all()
    declared = table(some, given=["n", "p"], columns={"p": "positive"})
    with pytest.raises(ValueError, match="is not among what it was built with"):
        declared.schema.encode({"y": [0.0], "n": [1], "p": [-1.0]})
