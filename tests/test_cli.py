"""The command line: from a file to a model, scores, samples, filled cells; errors; exit codes."""

import csv
import io
import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("tyro")

from jflow import cli
from jflow.cli import fitting
from jflow.cli.pictures import read_images, write_images
from jflow.data import TableDensity
from jflow.data.image_files import files_below, pixels_of

SMALL = ["--steps", "20", "--recipe", "real_nvp"]


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.choice(["a", "b"], count)
    x = np.where(kind == "a", 0.0, 3.0) + rng.normal(size=count)
    x = [f"{v:.4f}" if rng.random() > 0.1 else "" for v in x]
    return [
        ["x", "kind", "n"],
        *zip(x, kind.tolist(), map(str, rng.poisson(3, count)), strict=True),
    ]


def write(path, some):
    path.write_text("\n".join(",".join(row) for row in some) + "\n")
    return str(path)


def run(*arguments):
    """The exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code
    return 0


def written(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    source = write(folder / "t.csv", rows(300))
    assert run("fit", source, "--out", folder / "m", *SMALL) == 0
    return folder / "m"


def test_scores_of_a_file_and_of_a_pipe_agree(model, tmp_path, capsys, monkeypatch):
    source = write(tmp_path / "new.csv", rows(50, seed=1))
    assert run("score", model, source, "--out", tmp_path / "s.csv") == 0
    scores = written((tmp_path / "s.csv").read_text())
    assert list(scores[0]) == ["log_prob", "p_value"]
    table = {n: c for n, *c in zip(*rows(50, seed=1), strict=True)}
    wanted = TableDensity.load(model).log_prob({n: np.asarray(c) for n, c in table.items()})
    np.testing.assert_allclose([float(s["log_prob"]) for s in scores], wanted, rtol=1e-6)
    monkeypatch.setattr("sys.stdin", io.StringIO((tmp_path / "new.csv").read_text()))
    assert run("score", model, "-", "--contributions") == 0
    piped = written(capsys.readouterr().out)
    assert [p["log_prob"] for p in piped] == [s["log_prob"] for s in scores]
    assert {"surprise_x", "surprise_kind", "surprise_n"} < set(piped[0])


def test_archives(model, tmp_path, capsys):
    table = {n: np.asarray(c) for n, *c in zip(*rows(30, seed=1), strict=True)}
    np.savez(tmp_path / "t.npz", **table)
    source = write(tmp_path / "t.csv", rows(30, seed=1))
    assert run("score", model, source) == 0
    wanted = capsys.readouterr().out
    assert run("score", model, tmp_path / "t.npz") == 0
    assert capsys.readouterr().out == wanted


def test_report(model, capsys):
    pytest.importorskip("jinja2")
    assert run("report", model) == 0
    assert "t.csv" in (model / "report.html").read_text()
    assert "saved in" in capsys.readouterr().err
    (model / "evidence.json").rename(model / "kept.json")
    assert run("report", model) == 2
    assert "nothing to report on" in capsys.readouterr().err
    (model / "kept.json").rename(model / "evidence.json")


def test_compare(tmp_path, capsys):
    source = write(tmp_path / "t.csv", rows(200))
    short = ("--steps", 20, "--recipes", "real_nvp", "maf")
    assert run("compare", source, "--out", tmp_path / "m", *short) == 0
    told = capsys.readouterr().err
    found = {n: float(v) for n, v in re.findall(r"^(\w+): (-[\d.]+) nats a row in", told, re.M)}
    assert set(found) == {"real_nvp", "maf"}
    assert f"chosen: {max(found, key=found.get)}" in told
    recipe = TableDensity.load(tmp_path / "m").density.flow.recipe.name
    assert recipe == max(found, key=found.get)
    assert run("compare", source, "--out", tmp_path / "n", *short, "--minutes", 0) == 2
    assert "--minutes must be" in capsys.readouterr().err


def test_compare_leaves_out_what_does_not_fit(tmp_path, capsys):
    source = write(tmp_path / "t.csv", [row[:1] for row in rows(200) if row[0]])
    short = ("--steps", 20, "--recipes", "real_nvp", "maf")
    assert run("compare", source, "--out", tmp_path / "m", *short) == 0
    told = capsys.readouterr().err
    assert "real_nvp: left out: " in told
    assert "chosen: maf" in told
    assert run("compare", source, "--out", tmp_path / "n", *short[:3], "real_nvp") == 2
    assert "none of ['real_nvp'] could be fitted" in capsys.readouterr().err


def test_what_a_report_needs_is_asked_for_before_a_fit(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / "t.csv", rows(200))
    for name in [name for name in sys.modules if name.startswith("jflow.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run("fit", source, "--out", tmp_path / "m", *SMALL) == 2
    told = capsys.readouterr().err
    assert "pip install 'jflow[report]'" in told
    assert "step" not in told


def test_compare_keeps_to_its_time(tmp_path, capsys):
    source = write(tmp_path / "t.csv", rows(200))
    long = ("--steps", 100_000, "--patience", 10_000, "--recipes", "real_nvp", "--minutes", 0.001)
    assert run("compare", source, "--out", tmp_path / "m", *long) == 0
    assert re.search(r"\(step \d00, \d+ s, stopped\)", capsys.readouterr().err)


def test_files_are_read_in_parts(model, tmp_path, monkeypatch):
    from jflow.cli import files

    monkeypatch.setattr(files, "_ROWS", 7)
    source = write(tmp_path / "new.csv", rows(20, seed=1))
    parts = list(files.read_parts(source, ("x", "kind", "n")))
    assert [len(part["x"]) for part in parts] == [7, 7, 6]
    bare = write(tmp_path / "bare.csv", rows(20, seed=1)[1:])
    again = list(files.read_parts(bare, ("x", "kind", "n")))
    for part, other in zip(parts, again, strict=True):
        assert {n: c.tolist() for n, c in part.items()} == {n: c.tolist() for n, c in other.items()}
    np.save(tmp_path / "t.npy", np.arange(30.0).reshape(10, 3))
    parts = list(files.read_parts(str(tmp_path / "t.npy"), ("a", "b", "c")))
    np.testing.assert_array_equal(parts[1]["b"], [22, 25, 28])
    assert run("score", model, source, "--out", tmp_path / "s.csv") == 0
    assert len(written((tmp_path / "s.csv").read_text())) == 20


def test_samples_and_filled_cells_are_read_again(model, tmp_path, capsys):
    assert run("sample", model, 30, "--out", tmp_path / "more.csv") == 0
    more = written((tmp_path / "more.csv").read_text())
    assert len(more) == 30
    assert {row["kind"] for row in more} == {"a", "b"}
    assert all(row["n"].lstrip("-").isdigit() for row in more)
    assert run("score", model, tmp_path / "more.csv") == 0
    assert len(written(capsys.readouterr().out)) == 30
    source = write(tmp_path / "holes.csv", [*rows(20, seed=2), ["", "a", "3"], ["1.0", "", "2"]])
    for options in ([], ["--draw"]):
        assert run("impute", model, source, *options) == 0
        filled = written(capsys.readouterr().out)
        assert all(float(row["x"]) == float(row["x"]) for row in filled)
        assert filled[-1]["x"] == "1.0"
        assert filled[-1]["kind"] in ("a", "b")


def test_a_model_says_what_it_is(model, capsys):
    assert run("info", model) == 0
    assert "kind: category of 2" in capsys.readouterr().out
    assert run("info", model, "--as-json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["conditionals"]
    assert list(said["columns"]) == ["x", "kind", "n"]
    assert said["calibration_rows"] == 30


def test_declared_and_given_columns(tmp_path, capsys):
    source = write(tmp_path / "t.csv", [row if row[0] else ["0.5", *row[1:]] for row in rows(100)])
    options = ["--columns", "x=bounded(-9, 12)", "--given", "kind", "--ignore", "n"]
    assert run("fit", source, "--out", tmp_path / "m", *SMALL, *options) == 2
    assert "Coupling: mask" in capsys.readouterr().err
    assert (
        run("fit", source, "--out", tmp_path / "m", "--steps", "5", "--recipe", "maf", *options)
        == 0
    )
    assert run("sample", tmp_path / "m", 4, "--given", "kind=b") == 0
    capsys.readouterr()
    assert run("sample", tmp_path / "m", 4) == 2
    assert "sample needs the given columns ['kind']" in capsys.readouterr().err
    assert run("sample", tmp_path / "m", 4, "--given", "kind") == 2
    assert "--given must be of the form NAME=VALUE" in capsys.readouterr().err


def test_errors_of_users_are_one_line(model, tmp_path, capsys):
    source = write(tmp_path / "bad.csv", [["x", "kind", "n"], ["1", "a", "2"], ["1", "a", "much"]])
    for arguments, said in (
        (["score", tmp_path, source], "no saved density of a table"),
        (["score", model, tmp_path / "none.csv"], "No such file"),
        (["score", model, source], "column 'n', row 1: 'much' cannot be read as 'integer'"),
        (
            ["score", model, tmp_path / "t.xlsx"],
            "must be a .csv, .tsv, .parquet, .npy or .npz file",
        ),
        (["score", model, source, "--out", "s.json"], "--out must be a .csv file"),
        (["fit", source, "--out", model], "holds a model; give --overwrite"),
    ):
        assert run(*arguments) == 2
        text = capsys.readouterr().err
        assert said in text
        assert "Traceback" not in text
        assert len(text.strip().splitlines()) == 1
    (tmp_path / "short.csv").write_text("x,kind,n\n1,a,2\n3,b\n")
    assert run("score", model, tmp_path / "short.csv") == 2
    assert "row 2 has 2 cells, where the header has 3" in capsys.readouterr().err
    (tmp_path / "empty.csv").write_text("")
    assert run("score", model, tmp_path / "empty.csv") == 2
    assert "the source is empty" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of grey images in two kinds, and a model of them."""
    image = pytest.importorskip("PIL.Image")
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for kind, least in (("dark", 0), ("light", 120)):
        (folder / "all" / kind).mkdir(parents=True)
        for place in range(60):
            pixels = rng.integers(least, least + 120, (4, 4)).astype(np.uint8)
            image.fromarray(pixels).save(folder / "all" / kind / f"{place}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fitting._SMALL, "glow", {"steps": 1, "hidden": 8, "checkerboards": 0})
        short = ("--steps", 30, "--validation", 0.2)
        assert run("fit", folder / "all", "--out", folder / "m", *short) == 0
    return folder


def test_images_are_scored(pictures, tmp_path, capsys):
    assert run("score", pictures / "m", pictures / "all") == 0
    scores = written(capsys.readouterr().out)
    assert len(scores) == 120
    assert list(scores[0]) == ["image", "log_prob", "bits_per_dim", "p_value"]
    assert scores[0]["image"] == "dark/0.png"
    bits = -float(scores[7]["log_prob"]) / (16 * np.log(2))
    assert float(scores[7]["bits_per_dim"]) == pytest.approx(bits)
    assert run("score", pictures / "m", pictures / "all" / "dark" / "0.png") == 0
    (alone,) = written(capsys.readouterr().out)
    assert alone == scores[0] | {"image": "0.png"}
    images = [np.asarray(pixels_of(f, True, None)) for f in files_below(pictures / "all")]
    np.savez(tmp_path / "a.npz", these=np.stack(images), labels=np.zeros(120))
    assert run("score", pictures / "m", tmp_path / "a.npz", "--out", tmp_path / "s.csv") == 0
    again = written((tmp_path / "s.csv").read_text())
    assert [row["p_value"] for row in again] == [row["p_value"] for row in scores]
    assert again[119]["image"] == "119"


def test_images_are_drawn_and_edited(pictures, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    model, first = pictures / "m", pictures / "all" / "dark" / "0.png"
    last = pictures / "all" / "light" / "0.png"
    assert run("sample", model, 5, "--out", tmp_path / "s.npz") == 0
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["images"].shape == (5, 4, 4, 1)
    assert run("sample", model, 5, "--out", tmp_path / "s", "--temperature", 0.5) == 0
    assert len(list((tmp_path / "s").glob("*.png"))) == 5
    assert run("sample", model, 5, "--out", tmp_path / "s.png") == 0
    with image.open(tmp_path / "s.png") as opened:
        assert opened.size == (3 * 5 - 1, 2 * 5 - 1)
    assert run("edit", model, first, last, "--count", 3, "--out", tmp_path / "e.npz") == 0
    with np.load(tmp_path / "e.npz") as arrays:
        between = arrays["images"]
    np.testing.assert_array_equal(between[0], pixels_of(first, True, None))
    np.testing.assert_array_equal(between[2], pixels_of(last, True, None))
    kinds = ("--towards", pictures / "all" / "light", "--away-from", pictures / "all" / "dark")
    assert run("edit", model, first, *kinds, "--out", tmp_path / "e") == 0
    (lighter,) = (tmp_path / "e").glob("*.png")
    assert pixels_of(lighter, True, None).mean() > pixels_of(first, True, None).mean() + 20
    assert run("edit", model, first, "--out", tmp_path / "e2") == 2
    assert "two images to go from one to the other, and got 1" in capsys.readouterr().err


def test_images_are_restored(pictures, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    model, first = pictures / "m", pictures / "all" / "light" / "0.png"
    hole = np.zeros((4, 4), np.uint8)
    hole[2:] = 255
    image.fromarray(hole).save(tmp_path / "hole.png")
    out = tmp_path / "r"
    assert run("restore", model, first, "--missing", tmp_path / "hole.png", "--out", out) == 0
    (filled,) = out.glob("*.png")
    before, after = pixels_of(first, True, None), pixels_of(filled, True, None)
    np.testing.assert_array_equal(after[:2], before[:2])
    assert (after[2:] != before[2:]).any()
    some = ("--noise", 20, "--draw", "--out", tmp_path / "n.npz")
    assert run("restore", model, pictures / "all" / "light", *some) == 0
    with np.load(tmp_path / "n.npz") as arrays:
        assert arrays["images"].shape == (60, 4, 4, 1)
    image.fromarray(np.full((2, 2), 200, np.uint8)).save(tmp_path / "small.png")
    large = ("--enlarge", 2, "--out", tmp_path / "l")
    assert run("restore", model, tmp_path / "small.png", *large) == 0
    (found,) = (tmp_path / "l").glob("*.png")
    assert abs(pixels_of(found, True, None).mean() - 200) < 5
    line = ("--count", 3, "--linear", "--out", tmp_path / "e.npz")
    assert run("edit", model, first, pictures / "all" / "dark" / "0.png", *line) == 0
    assert run("restore", model, first, "--out", tmp_path / "x.png") == 2
    assert "give one of --missing, --noise and --enlarge" in capsys.readouterr().err
    assert run("restore", model, first, "--enlarge", 3, "--out", tmp_path / "x.png") == 2
    assert "--enlarge must divide 4 and 4; got 3" in capsys.readouterr().err
    several = ("--missing", pictures / "all", "--out", tmp_path / "x.png")
    assert run("restore", model, first, *several) == 2
    assert "--missing must be one image" in capsys.readouterr().err


def test_levels_of_files_are_scaled(tmp_path):
    pytest.importorskip("PIL")
    images = np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    write_images(tmp_path / "a", images, 17)
    ((_, found),) = read_images(str(tmp_path / "a"), (2, 2, 3), 17)
    np.testing.assert_array_equal(found, images)
    grey = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint8)
    write_images(tmp_path / "b", grey, 256)
    ((_, found),) = read_images(str(tmp_path / "b"), (2, 2, 1), 32)
    np.testing.assert_array_equal(found, grey >> 3)  # as images(bits=5)


def test_a_model_of_images_says_what_it_is(pictures, capsys):
    assert run("info", pictures / "m", "--as-json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "shape": [4, 4, 1], "levels": 256, "correction": "complexity", "recipe": "glow",
        "calibration_rows": 24,
    }  # fmt: skip


def test_report_and_compare_of_images(pictures, tmp_path, capsys, monkeypatch):
    assert run("report", pictures / "m", "--out", tmp_path / "r.html") == 0
    assert "Strangest images" in (tmp_path / "r.html").read_text()
    monkeypatch.setitem(fitting._SMALL, "glow", {"steps": 1, "hidden": 8, "checkerboards": 0})
    monkeypatch.setitem(fitting._SMALL, "real_nvp", {"levels": 1, "hidden": 4, "blocks": 1})
    short = ("--steps", 10, "--validation", 0.2)
    assert run("compare", pictures / "all", "--out", tmp_path / "m", *short) == 0
    told = capsys.readouterr().err
    found = re.findall(r"^(\w+): [\d.]+ bits per dimension in", told, re.M)
    assert sorted(found) == ["glow", "real_nvp"]
    assert "chosen: " in told


def test_errors_of_images_are_one_line(pictures, model, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((6, 5), np.uint8)).save(tmp_path / "odd.png")
    source, of_images = str(pictures / "all"), str(pictures / "m")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd.d.png").mkdir()
    (tmp_path / "torn.npz").write_bytes(b"PK but no more")
    np.savez(tmp_path / "real.npz", x_train=np.zeros((30, 4, 4, 1)))
    np.savez(tmp_path / "whole.npz", x=np.zeros((30, 4, 4, 1), np.uint8))
    for place in range(30):
        image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "odd" / f"{place}.png")
    for arguments, said in (
        (["score", of_images, tmp_path / "odd.png"], "has (6, 5) pixels, but the model is of"),
        (["score", of_images, tmp_path / "none"], "no file or folder"),
        (["score", of_images, tmp_path / "a.csv"], "no file or folder"),
        (["score", of_images, tmp_path / "torn.npz"], "torn.npz is damaged"),
        (["score", of_images, source, "--contributions"], "--contributions are of tables"),
        (["score", model, source, "--resize"], "--resize is of images"),
        (["sample", of_images, 3], "give --out"),
        (["sample", of_images, 3, "--out", tmp_path / "s.jpg"], "--out must be a .png file"),
        (["sample", model, 3, "--temperature", 0.5], "--temperature is of images"),
        (["impute", of_images, "x.csv"], "impute needs a model of a table"),
        (["edit", model, "x.png", "--out", tmp_path / "e"], "edit needs a model of images"),
        (["edit", of_images, "x.png", "--towards", "y", "--out", "e"], "together"),
        (["fit", source, "--out", tmp_path / "m", "--given", "x"], "--given: only of a table"),
        (["fit", source, "--out", model, "--overwrite"], "holds a model of table"),
        (["sample", of_images, 3, "--out", tmp_path / "no" / "s.png"], "there is no folder"),
        (["sample", of_images, 3, "--out", pictures / "all"], "is not empty"),
        (["sample", of_images, 3, "--out", tmp_path / "odd.d.png"], "is a folder"),
        (["edit", of_images, "--out", tmp_path / "e.png"], "edit needs images"),
        (["fit", tmp_path / "nothere", "--out", tmp_path / "m"], "no file or folder"),
        (["fit", tmp_path / "torn.npz", "--out", tmp_path / "m"], "torn.npz is damaged"),
        (["fit", tmp_path / "real.npz", "--out", tmp_path / "m"], "images must be uint8"),
        (["fit", tmp_path / "whole.npz", "--out", tmp_path / "m", "--size", 2, 2], "of folders"),
        (["fit", source, "--out", tmp_path / "m", "--test", 0.3], "--test: only of a table"),
        (["fit", source, "--out", tmp_path / "m", "--validation", 1], "a share below 1"),
        (["fit", source, "--out", tmp_path / "m", "--minutes", 0], "--minutes must be above 0"),
    ):
        assert run(*arguments) == 2, arguments
        text = capsys.readouterr().err
        assert said in text
        assert len(text.strip().splitlines()) == 1
    for arguments, said in (
        (["fit", source, "--out", tmp_path / "m", "--recipe", "nsf"], "nsf is of tables"),
        (["fit", tmp_path / "odd", "--out", tmp_path / "m"], "must be even; they are (5, 5)"),
    ):
        assert run(*arguments) == 2
        assert said in capsys.readouterr().err
    assert run("score", of_images, tmp_path / "odd.png", "--resize") == 0


def test_help_does_not_wait_for_jax():
    code = (
        "import sys; from jflow import cli\n"
        "try: cli.main(['--help'])\nfinally: print(sorted(sys.modules))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 20  # a busy machine; a second on an idle one
    assert "jflow sample penguins 1000" in done.stdout
    assert "'jax'" not in done.stdout


def test_without_tyro(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert run("info", "m") == 2
    assert "pip install 'jflow[cli]'" in capsys.readouterr().err
