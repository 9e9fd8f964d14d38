"""What README and docs say is true: examples run, and every public name is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import jflow
from jflow import report as jflow_report
from jflow import sklearn as jflow_sklearn
from jflow import testing
from jflow import viz as jflow_viz

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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
    ],
    ids=lambda module: module.__name__,
)
def test_every_public_name_is_documented_and_in_the_readme(module):
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        assert re.search(rf"\b{name}\b", README), f"{module.__name__}.{name} is not in README.md"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/training.md",
        "docs/tables.md",
        "docs/estimators.md",
        "docs/images.md",
        "docs/pictures.md",
    ],
)
def test_examples_run(page, tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
    code = code.replace("steps=1_000", "steps=10").replace("steps=200", "steps=10")
    code = code.replace("levels=2", "levels=1")  # half of what the compiler takes for the glow
    code += CHECKS if page == "README.md" else ""
    # In a process of its own, as users run it: without the strict mode of the other tests.
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *CACHE, "-c", code], cwd=tmp_path, check=True
    )


# Another process may be writing the compiled program that this one reads.
CACHE = ("-W", "ignore:Error reading persistent:UserWarning")
CHECKS = """
assert samples.shape == (100, 4)
assert again.shape == scores.shape == (10, 4)
assert sevens.shape == (16, 8, 8, 1)
assert bits.shape == (300,)
assert variables["constants"]["bijector"]["bijector"]["bijectors_1"]["order"].shape == (32, 4)
"""


def test_links_to_files_are_right():
    pages = (
        "README.md", "CONTRIBUTING.md", "docs/design.md", "docs/training.md", "docs/tables.md",
        "docs/images.md", "docs/pictures.md", "tests/README.md",
    )  # fmt: skip
    for page in (ROOT / name for name in pages):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
