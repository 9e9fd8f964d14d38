"""Reports: what they find, that they need nothing beside them, and how they are read."""

import html
import html.parser
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

import jflow
from jflow.data.schema import Rows
from jflow.report import Evidence, ImageEvidence, checks, image_checks, report

RNG = np.random.default_rng(0)
N = 400


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(1)
    kind = rng.choice(["near", "far", "<b>odd</b>"], N, p=[0.5, 0.4, 0.1])
    size = np.where(kind == "far", 5.0, 0.0) + rng.normal(size=N)
    size[::15] = np.nan
    columns = {
        "kind": kind, "size": size, "count": rng.poisson(4, N), "same": np.ones(N),
        "day": np.datetime64("2024-01-01") + rng.integers(0, 300, N),
    }  # fmt: skip
    table = jflow.data.table(columns, test=0.3, validation=0.2)
    flow = jflow.flows.tabular(table, layers=1, hidden=(32,))
    density, history = jflow.fit(flow, table, key=0, steps=300, progress=False)
    return density, Evidence.of(table, history, "birds & <birds>.csv")


@pytest.fixture(scope="module")
def page(fitted):
    return report(*fitted)


def pictures(count, seed):
    """Grey images, light where a place that differs is."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 4, count)[:, None, None, None]
    light = np.arange(4)[None, :, None, None] == place
    return (90 * rng.random((count, 4, 4, 1)) + 160 * light).astype(np.uint8)


@pytest.fixture(scope="module")
def seen():
    """A density of images, and what is to be known of its fit."""
    parts = [jflow.data.Labelled(pictures(n, n), np.zeros(n, int)) for n in (300, 100, 120)]
    images = jflow.data.Splits(*parts, values=256)
    flow = jflow.flows.glow(images.shape, 1, 2, 16, checkerboards=0)
    density, history = jflow.fit(flow, images, key=0, steps=300, batch_size=64, progress=False)
    return density, ImageEvidence.of(images, history, "scans & <scans>")


@pytest.fixture(scope="module", params=["table", "images"])
def each(request, page, fitted, seen):
    """The page of a table, and that of images."""
    return page if request.param == "table" else report(*seen)


class Read(html.parser.HTMLParser):
    """Tags and their attributes, and those that were not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]


def test_a_page_needs_nothing_beside_it(each):
    page, read = each, Read(each)
    assert read.open == []
    assert not read.of("script", "link", "iframe")
    for attrs in read.of("img"):
        assert attrs["src"].startswith("data:image/png;base64,")
        assert len(attrs["alt"]) > 20
    assert "http" not in re.sub(r"base64,[\w+/=]+", "", page)
    assert len(page) < 2e6


def test_a_page_can_be_heard(each):
    read = Read(each)
    assert read.of("html") == [{"lang": "en"}]
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"][1:] for attrs in read.of("a")]
    assert (
        links[1:] == [attrs["aria-labelledby"] for attrs in read.of("section")][-len(links) + 1 :]
    )
    assert links[0] == "content"
    for attrs in read.of("section"):
        assert attrs["aria-labelledby"] in ids
    assert len(read.of("h1")) == 1
    assert len(read.of("table")) == len(read.of("caption")) == (3 if "Columns" in each else 1)
    assert all("scope" in attrs for attrs in read.of("th"))
    for attrs in read.of("div"):
        if attrs.get("class") == "scroll":  # can be reached, and scrolled, by keys
            assert (attrs["tabindex"], attrs["role"]) == ("0", "region")
            assert attrs["aria-label"]


def test_a_page_says_what_there_is(page, fitted):
    assert "birds &amp; &lt;birds&gt;.csv" in page
    assert "<b>odd" not in page
    for words in (
        "one Gaussian",
        "Gaussian mixture",
        "kernel estimate",
        "tells",
        "validation rows",
    ):
        assert words in page
    assert "Left out, since they have one value: same." in page
    assert "2024-" in page
    assert report(*fitted) == page  # nothing is drawn anew


def test_evidence_is_kept(fitted, tmp_path, page):
    density, evidence = fitted
    evidence.save(tmp_path)
    again = Evidence.load(tmp_path)
    assert report(density, again, tmp_path / "r.html") == page
    assert (tmp_path / "r.html").read_text() == page
    with pytest.raises(FileNotFoundError, match="nothing to report on"):
        Evidence.load(tmp_path / "other")


def test_earlier_evidence_is_read():
    folder = Path(__file__).parent / "saved_raw" / "0.1" / "table"
    evidence = Evidence.load(folder)
    assert (evidence.counts, evidence.source) == ((60, 24, 36), "rows.csv")
    assert "rows.csv" in report(jflow.data.TableDensity.load(folder), evidence)


def test_evidence_of_something_else(fitted):
    density, evidence = fitted
    other = jflow.data.table({"size": RNG.normal(size=60)})
    with pytest.raises(ValueError, match="of the table that the density was fitted to"):
        report(density, (other, jflow.train.History("nll", [], 0)))
    with pytest.raises(ValueError, match="before its first validation"):
        report(density, replace(evidence, history=[]))


def test_a_page_of_images(seen, tmp_path):
    density, evidence = seen
    page = report(density, evidence, tmp_path / "r.html")
    assert "scans &amp; &lt;scans&gt;" in page
    assert "4x4 pixels, 1 channel and 256 levels" in page
    for words in (
        "one Gaussian",
        "kernel estimate",
        "file without loss",
        "no model",
        "nearer to a",
    ):
        assert words in page
    assert "Nothing tells that the flow draws training images from memory." in page
    assert report(density, evidence) == page  # nothing is drawn anew
    evidence.save(tmp_path)
    assert report(density, ImageEvidence.load(tmp_path)) == page


def test_evidence_of_other_images(seen, fitted):
    density, evidence = seen
    other = [pictures(30, seed) for seed in (7, 8, 9)]
    with pytest.raises(ValueError, match="of the images that the density was fitted to"):
        report(density, replace(evidence, parts=tuple(other)))
    with pytest.raises(ValueError, match="of the images that the density was fitted to"):
        report(density, fitted[1])
    with pytest.raises(ValueError, match="of the table that the density was fitted to"):
        report(fitted[0], evidence)
    with pytest.raises(ValueError, match="before its first validation"):
        report(density, replace(evidence, history=[]))


def test_images_are_kept_by_chance():
    light = np.repeat(np.arange(2, dtype=np.uint8), 1500)[:, None, None, None]
    y = np.broadcast_to(100 * light, (3000, 4, 4, 1))
    parts = [jflow.data.Labelled(y, np.zeros(3000, int))] * 3
    images = jflow.data.Splits(*parts, values=256)
    found = ImageEvidence.of(images, jflow.train.History("bits_per_dim"))
    assert [len(part) for part in found.parts] == [3000, 1000, 1000]
    for part in found.parts:  # the first as good as any
        assert 0.4 < np.mean(part[:500] > 0) < 0.6


def test_one_test_image(seen):
    density, evidence = seen
    few = replace(evidence, parts=(*evidence.parts[:2], evidence.parts[2][:1]))
    page = report(density, few)
    assert "There are too few test images" in page
    assert "too few test images to tell whether" in page


def test_a_report_is_of_raw_data(seen, fitted):
    density, evidence = seen
    history = jflow.train.History("nll", [], 0)
    table = jflow.data.table({"size": RNG.normal(size=60)})
    with pytest.raises(TypeError, match=r"density must be what fit.* got a Density"):
        report(density.density, evidence)
    for of, given, match in (
        (density, (table, history), r"\(Splits, History\), or ImageEvidence; got Table, History"),
        (fitted[0], (np.zeros((3, 3)), history), r"\(Table, History\), or Evidence; got ndarray"),
        (fitted[0], (table, None), "got Table, NoneType"),
        (fitted[0], (table, history, 1), "got Table, History, int"),
        (fitted[0], (), "got "),
        (fitted[0], None, "got NoneType"),
    ):
        with pytest.raises(TypeError, match=match):
            report(of, given)


def test_bits_are_of_the_same_images(seen):
    density, evidence = seen
    found = image_checks.bits(density, evidence.parts, 0)
    assert found.images == 120
    flow, gaussian = found.each["flow"][0], found.each["one Gaussian"][0]
    assert flow == pytest.approx(-density.log_prob(evidence.parts[2]).mean() / 16 / np.log(2))
    assert found.gains["one Gaussian"][0] == pytest.approx(gaussian - flow)
    assert found.each["no model"] == (8.0, 0.0)
    # Their entropy: noise of 90 levels, and one place of four.
    others = flow, gaussian, found.each["kernel estimate"][0]
    assert np.log2(90) + 2 / 16 - 0.1 < min(others) < max(others) < 8


def test_a_report_without_webp(seen, monkeypatch):
    density, evidence = seen
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    found = image_checks.bits(density, evidence.parts, 0)
    assert set(found.each) == {"flow", "one Gaussian", "kernel estimate", "no model"}


def test_baselines_of_images_are_densities():
    y = RNG.normal(0.5, 0.1, size=(400, 1))
    grid = np.linspace(-3, 4, 4001)[:, None]
    for name, score in image_checks._baselines(y[:300], y[300:]).items():
        assert np.exp(score(grid)).sum() * 7 / 4000 == pytest.approx(1, abs=1e-3), name


def test_memory_is_told():
    train, test = pictures(400, 1), pictures(300, 2)
    fresh = image_checks.neighbours(pictures(300, 3), train, test)
    assert (fresh.too_near or 0) < 0.05
    assert image_checks.neighbours(pictures(300, 3), train, test[:99]).too_near is None
    drawn = np.where(np.arange(300)[:, None, None, None] < 100, train[:300], pictures(300, 4))
    found = image_checks.neighbours(drawn, train, test)
    assert found.too_near == pytest.approx(1 / 3, abs=0.03)
    np.testing.assert_array_equal(found.nearest[:100], np.arange(100))
    np.testing.assert_allclose(found.distances[:100], 0, atol=0.1)
    wanted = np.sqrt(np.mean((drawn[150].astype(float) - train[found.nearest[150]]) ** 2))
    assert found.distances[150] == pytest.approx(wanted, rel=1e-3)


def test_images_are_told_apart():
    train, test = pictures(400, 1), pictures(300, 2)
    assert not image_checks.told_apart(test, pictures(300, 3), train).told_apart
    assert image_checks.told_apart(test, 255 - test, train).accuracy > 0.9


def test_likelihoods_are_of_the_same_rows(fitted):
    density, evidence = fitted
    found = checks.likelihoods(density, evidence.parts)
    whole = np.isfinite(evidence.parts[2].values).all(1)
    assert found.rows == whole.sum() < len(whole)
    wanted = density.log_prob_of(evidence.parts[2].take(np.flatnonzero(whole)))
    assert found.each["flow"][0] == pytest.approx(wanted.mean())
    gain, _ = found.gains["one Gaussian"]
    assert gain == pytest.approx(found.each["flow"][0] - found.each["one Gaussian"][0])
    assert gain > 0  # there are two clusters
    few = Rows(*(None if a is None else a[:5] for a in evidence.parts[2]))
    assert checks.likelihoods(density, (*evidence.parts[:2], few)) is None


def test_baselines_are_densities():
    y = RNG.normal(size=(500, 1))
    grid = np.linspace(-8, 8, 2001)[:, None]
    for name, score in checks._baselines(y[:400], y[400:]).items():
        assert np.exp(score(grid)).sum() * 0.008 == pytest.approx(1, abs=1e-3), name


def test_two_samples():
    same = checks.two_sample(RNG.normal(size=(300, 2)), RNG.normal(size=(300, 2)))
    assert abs(same.accuracy - 0.5) < 0.07
    assert not same.told_apart
    other = checks.two_sample(RNG.normal(size=(300, 2)), RNG.normal(size=(300, 2)) + 2)
    assert other.accuracy > 0.85
    assert other.told_apart
    assert checks.two_sample(np.full((300, 2), np.nan), RNG.normal(size=(300, 2))) is None


def test_ranks_tell_draws_that_are_too_narrow(fitted, monkeypatch):
    density, evidence = fitted
    right = checks.ranks(density, evidence.parts[2], 0)
    assert set(right) == {"kind", "size", "count", "day"}
    assert all(((each.values > 0) & (each.values < 1)).all() for each in right.values())
    assert right["size"].p_value > 1e-3

    def narrow(self, values, given, key):
        return np.where(np.isnan(values), 0.0, values)

    monkeypatch.setattr(type(density), "draw_missing", narrow)
    assert checks.ranks(density, evidence.parts[2], 0)["size"].p_value < 1e-6


def test_given_columns(tmp_path):
    x = RNG.normal(size=200)
    table = jflow.data.table({"x": x, "y": x + RNG.normal(size=200)}, given=["x"], test=0.2)
    flow = jflow.flows.tabular(table, layers=1, hidden=(8,))
    page = report(*_split(jflow.fit(flow, table, key=0, steps=20, progress=False), table))
    assert "given x" in page
    assert "do not know the given columns" in page


def _split(fit, table):
    return fit[0], (table, fit[1])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(each, tmp_path, width, dark):
    # In a frame, since the window of Chromium is never narrower than 500.
    script = """<script>
      const frame = document.querySelector("iframe");
      frame.addEventListener("load", () => {
        const inner = frame.contentDocument, root = inner.documentElement;
        const reached = [...inner.querySelectorAll('a, [tabindex="0"]')].map(
          e => (e.focus(), inner.activeElement === e));
        const shown = [...inner.images].map(i => i.complete && i.naturalWidth > 0);
        document.body.dataset.found = JSON.stringify([root.scrollWidth,
          frame.contentWindow.innerWidth, reached.length > 9 && reached.every(Boolean),
          shown.length > 8 && shown.every(Boolean),
          frame.contentWindow.getComputedStyle(inner.body).backgroundColor]);
      });</script>"""
    frame = f'<iframe width="{width}" height="2000" frameborder="0" srcdoc="{html.escape(each)}">'
    head = '<!doctype html><meta name="color-scheme" content="light dark">'
    (tmp_path / "page.html").write_text(f"{head}<body>{frame}</iframe>{script}")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path}/browser", "--window-size=1400,2000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom",
    ]  # fmt: skip
    dom = subprocess.run(
        ["chromium", *options, str(tmp_path / "page.html")], capture_output=True, text=True,
        timeout=120,
    ).stdout  # fmt: skip
    found = re.search(r'data-found="\[(\d+),(\d+),(\w+),(\w+),&quot;(.*?)&quot;', dom).groups()
    assert int(found[0]) <= int(found[1]) == width
    assert found[2:4] == ("true", "true")
    assert (found[4] == "rgb(20, 23, 28)") == dark
