"""Notebooks run from top to bottom: in fewer steps, and in all of them where time is given."""

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# Jupyter's own event loop and sockets, which are not ours to close
@pytest.mark.filterwarnings("ignore")
def test_runs(path, short, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("JFLOW_RUN", str(tmp_path / "none"))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells if short else ():
        cell.source = re.sub(r"steps=(1_000|300)", "steps=10", cell.source)
    assert all(not cell.get("outputs") for cell in notebook.cells), "strip the outputs"
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
