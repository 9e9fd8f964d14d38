"""What README and docs say is true: examples run, and every public name is there."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jflow
from jflow import interop, testing
from jflow import report as jflow_report
from jflow import sklearn as jflow_sklearn
from jflow import viz as jflow_viz

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
INVENTORY = (ROOT / "docs" / "inventory.md").read_text()


@pytest.mark.parametrize(
    "module",
    [
        jflow,
        jflow.bijectors,
        jflow.transformers,
        jflow.nets,
        jflow.flows,
        jflow.data,
        jflow_report,
        jflow_sklearn,
        jflow_viz,
        jflow.train,
        jflow.distributions,
        jflow.functional,
        testing,
        interop,
        "jflow.interop.arviz",
        "jflow.interop.blackjax",
        "jflow.interop.distrax",
        "jflow.interop.flowjax",
        "jflow.interop.numpyro",
        "jflow.interop.tfp",
        "jflow.interop.weights",
    ],
    ids=lambda module: module if isinstance(module, str) else module.__name__,
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of ArviZ, when it is imported
def test_every_public_name_is_documented_and_in_the_inventory(module):
    if isinstance(module, str):
        pytest.importorskip(module.rpartition(".")[2]) if "tfp" not in module else None
        module = importlib.import_module(module)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        assert re.search(rf"\b{name}\b", INVENTORY), f"{module.__name__}.{name}"


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 120


def texts(node):
    """The strings of a module, joined as Python joins them; of what is filled in, three dots."""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def test_messages_that_are_explained_are_those_that_are_raised():
    modules = sorted((ROOT / "jflow").rglob("*.py"))
    said = "\n".join(text for path in modules for text in texts(ast.parse(path.read_text())))
    page = (ROOT / "docs" / "troubleshooting.md").read_text().split("## By symptom")[0]
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert len(cells) > 50
    for message in (found for cell in cells for found in re.findall(r"`([^`]+)`", cell)):
        for part in message.split("..."):
            assert part.strip() in said, f"no error says {part!r}"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/index.md",
        "docs/first_steps.md",
        "docs/how_to.md",
        "docs/which_flow.md",
        "docs/continuous.md",
        "docs/transformers.md",
        "docs/bits_per_dim.md",
        "docs/training.md",
        "docs/tables.md",
        "docs/estimators.md",
        "docs/images.md",
        "docs/pictures.md",
        pytest.param("docs/bridges.md", marks=pytest.mark.slow),
        pytest.param("docs/migration.md", marks=pytest.mark.slow),
    ],
)
def test_examples_run(page, tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
    code = code.replace("steps=1_000", "steps=10").replace("steps=200", "steps=10")
    code = code.replace("levels=2", "levels=1")  # half of what the compiler takes for the glow
    code += {"README.md": CHECKS, "docs/first_steps.md": FURTHER}.get(page, "")
    # In a process of its own, as users run it: without the strict mode of the other tests.
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *CACHE, "-c", code], cwd=tmp_path, check=True
    )


# What the site makes, or brings into one folder.
MADE = ("api/flows.md", "CHANGELOG.md")
# Another process may be writing the compiled program that this one reads.
CACHE = ("-W", "ignore:Error reading persistent:UserWarning")
CHECKS = """
assert samples.shape == (100, 4)
assert again.shape == scores.shape == (10, 4)
"""
FURTHER = """
assert samples.shape == (100, 4)
assert sevens.shape == (16, 8, 8, 1)
assert bits.shape == (300,)
assert variables["constants"]["bijector"]["bijector"]["bijectors_1"]["order"].shape == (32, 4)
"""


def test_links_of_the_site_that_lead_nowhere_are_found(tmp_path):
    pytest.importorskip("nbclient")
    from docs.site import broken_links

    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index.html").write_text('<h1 id="here">')
    links = "there/", "there/#here", "#own", "there/#nowhere", "elsewhere/", "https://jax.dev"
    page = "".join(f'<a class="x" href="{link}">' for link in links)
    (tmp_path / "index.html").write_text(page + '<p id="own">')
    found = broken_links(tmp_path)
    assert [line.split()[-1] for line in found] == ["there/#nowhere", "elsewhere/"]


def prose(page):
    """The text of a page, or of a notebook's cells of text."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_links_to_files_are_right():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "tests" / "README.md"]
    for page in (*pages, *ROOT.glob("notebooks/*.ipynb")):
        for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[\w.-]+)?\)", prose(page)):
            in_site = ROOT / target  # which has notebooks in a folder of the pages
            there = (page.parent / target).exists() or in_site.exists() or target in MADE
            assert there, f"{page.name} links to {target}"
