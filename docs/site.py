"""Builds the site: these pages, the notebooks run, and a reference of every public name.

    python -m docs.site [--whole] [--out site]

Notebooks run in a few steps, or with --whole in all of theirs, two at a time. A warning is an error
(of pages that are not in the menu, say), and so is a public name that the reference lacks, or a
link that leads nowhere.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
from nbclient import NotebookClient

from tests.quick import compile_quickly

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "jflow": "At the top",
    "jflow.flows": "Recipes",
    "jflow.bijectors": "Bijectors",
    "jflow.transformers": "Scalar transforms",
    "jflow.distributions": "Distributions",
    "jflow.nets": "Networks",
    "jflow.functional": "Functions",
    "jflow.data": "Data",
    "jflow.train": "Training",
    "jflow.sklearn": "Estimators",
    "jflow.report": "Reports",
    "jflow.viz": "Pictures",
    "jflow.testing": "Checks",
    "jflow.interop": "Bridges",
    "jflow.interop.distrax": "Distrax",
    "jflow.interop.tfp": "TFP",
    "jflow.interop.flowjax": "flowjax",
    "jflow.interop.numpyro": "NumPyro",
    "jflow.interop.blackjax": "BlackJAX",
    "jflow.interop.arviz": "ArviZ",
    "jflow.interop.weights": "Trained flows",
}
# The lengths of fits and chains that may be cut; those that checks rest on are others.
FEWER = {
    r"(steps=|\"steps\": )(\d_000|300)\b": r"\g<1>10",
    r"(draws|warmup)=\d00\b": r"\1=20",
    r"particles=\d\b": "particles=3",
}
SHORT = "*This page was built from a short run: fits were cut to 10 steps, so figures are poor.*"
# Opens a notebook where it can be run, if it is known where the project lives.
BADGE = "https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}"


# A density has its methods from several parts.
OPTIONS = {"Density": "    options: {inherited_members: true}\n"}


def names(room: str) -> list[str]:
    """What a room makes public; of the top, without its rooms."""
    public = importlib.import_module(room).__all__
    return sorted(n for n in public if f"{room}.{n}" not in ROOMS)


def reference(folder: Path) -> None:
    """A page for each room, of which the docstrings are filled in."""
    folder.mkdir()
    for room, title in ROOMS.items():
        page = [
            f"# {title}: `{room}`\n",
            f"::: {room}\n    options: {{members: [], show_root_heading: false}}\n",
        ]
        page += [f"::: {room}.{name}\n{OPTIONS.get(name, '')}" for name in names(room)]
        (folder / f"{room.removeprefix('jflow.')}.md").write_text("\n".join(page))


def as_served(source: str) -> str:
    """A cell of a notebook whose links lead to pages of the site, each in a folder of its own."""
    source = re.sub(r"\]\(\.\./docs/(\w+)\.md", r"](../../\1/", source)
    return re.sub(r"\]\((\w+)\.ipynb", r"](../\1/", source)


def run_notebook(path: Path, *, to: Path, whole: bool) -> None:
    """Runs a notebook, in a few steps or in all."""
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells if not whole else ():
        for length, fewer in FEWER.items():
            cell.source = re.sub(length, fewer, cell.source)
    short = [cell.source for cell in notebook.cells] != sources
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=1200, resources=where).execute()
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = as_served(source) if cell.cell_type == "markdown" else source
    if repository := os.environ.get("JFLOW_REPOSITORY"):
        link = BADGE.format(repository=repository, name=path.name)
        badge = f"[![open it and run it](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(badge))
    if short:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(SHORT))
    nbformat.write(notebook, to / path.name)


def broken_links(site: Path) -> list[str]:
    """Links of pages to others, or to places in them, that are not there."""
    pages = {path.resolve(): path.read_text() for path in site.rglob("*.html")}
    places = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path in (path for path in pages if path.name != "404.html"):
        for link in re.findall(r'<a [^>]*href="([^":]+)"', pages[path]):
            target, place = map(unquote, urldefrag(link))
            there = (path.parent / target).resolve() if target else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (place and place not in places.get(there, {place})):
                broken.append(f"{path.relative_to(site.resolve())} links to {link}")
    return broken


def check(site: Path) -> None:
    """Refuses a site whose reference lacks a public name, or whose links lead nowhere.

    Raises:
      SystemExit: naming those that are missing.
    """
    if broken := broken_links(site):
        sys.exit("\n".join(broken))
    found = "".join(page.read_text() for page in site.glob("api/**/index.html"))
    anchors = set(re.findall(r'id="([\w.]+)"', found))
    missing = [f"{room}.{n}" for room in ROOMS for n in names(room) if f"{room}.{n}" not in anchors]
    if missing:
        sys.exit(f"the reference lacks {', '.join(missing)}")


def main() -> None:
    """Assembles the pages, and builds the site of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help="run notebooks in all their steps")
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    options = parser.parse_args()
    if not options.whole:  # then notebooks compile much and compute little
        compile_quickly()
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "docs"
        shutil.copytree(
            ROOT / "docs", pages, ignore=shutil.ignore_patterns("*.py", "*.yml", "__pycache__")
        )
        for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
            shutil.copy(ROOT / name, pages / name)
        shutil.copy(ROOT / "tests" / "README.md", pages / "tests.md")
        for page in pages.glob("*.md"):  # here they are in one folder
            text = re.sub(r"\]\((\.\./)?tests/README\.md", "](tests.md", page.read_text())
            page.write_text(re.sub(r"\]\((docs|\.\.)/", "](", text))
        (pages / "notebooks").mkdir()
        run = partial(run_notebook, to=pages / "notebooks", whole=options.whole)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, sorted((ROOT / "notebooks").glob("*.ipynb"))))
        reference(pages / "api")
        shutil.copy(ROOT / "docs" / "mkdocs.yml", folder)
        out = options.out.resolve()
        given = f"--config-file={folder}/mkdocs.yml", f"--site-dir={out}"
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", *given]
        subprocess.run(command, check=True, cwd=folder)
    check(out)
    print(f"{out}/index.html")


if __name__ == "__main__":
    main()
