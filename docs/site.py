"""Builds the site: these pages, the notebooks run, and a reference of every public name.

    python docs/site.py [--whole] [--out site]

Notebooks run in a few steps, or with --whole in all of theirs. A warning is an error: of links, of
pages that are not in the menu, of public names that the reference lacks.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

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
# The lengths of fits that may be cut; those that a notebook's own checks rest on are others.
FEWER = re.compile(r"steps=(1_000|300)\b")
# Opens a notebook where it can be run, if it is known where the project lives.
BADGE = "https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}"


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
        page += [f"::: {room}.{name}\n" for name in names(room)]
        (folder / f"{room.removeprefix('jflow.')}.md").write_text("\n".join(page))


def run_notebook(path: Path, to: Path, whole: bool) -> None:
    """Runs a notebook, in a few steps or in all."""
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells if not whole else ():
        cell.source = FEWER.sub("steps=10", cell.source)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=1200, resources=where).execute()
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    if repository := os.environ.get("JFLOW_REPOSITORY"):
        link = BADGE.format(repository=repository, name=path.name)
        badge = f"[![open it and run it](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(badge))
    nbformat.write(notebook, to)


def check(site: Path) -> None:
    """Refuses a site whose reference lacks a public name.

    Raises:
      SystemExit: naming those that are missing.
    """
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
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            run_notebook(path, pages / "notebooks" / path.name, options.whole)
        reference(pages / "api")
        shutil.copy(ROOT / "docs" / "mkdocs.yml", folder)
        out = options.out.resolve()
        given = f"--config-file={folder}/mkdocs.yml", f"--site-dir={out}"
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", *given]
        subprocess.run(command, check=True, cwd=ROOT)
    check(out)
    print(f"{out}/index.html")


if __name__ == "__main__":
    main()
