"""What README and docs say is true: examples run, and every public name is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import jflow

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
        jflow.train,
        jflow.distributions,
        jflow.functional,
    ],
    ids=lambda module: module.__name__,
)
def test_every_public_name_is_documented_and_in_the_readme(module):
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        assert re.search(rf"\b{name}\b", README), f"{module.__name__}.{name} is not in README.md"


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_examples_run(page, tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
    code = code.replace("steps=1_000", "steps=10").replace("steps=200", "steps=10")
    code += CHECKS if page == "README.md" else ""
    # In a process of its own, as users run it: without the strict mode of the other tests.
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], cwd=tmp_path, check=True
    )


CHECKS = """
assert samples.shape == (100, 4)
assert again.shape == scores.shape == (10, 4)
assert sevens.shape == (16, 8, 8, 1)
assert bits.shape == (300,)
assert variables["constants"]["bijector"]["bijector"]["bijectors_1"]["order"].shape == (32, 4)
"""


def test_links_to_files_are_right():
    pages = ("README.md", "CONTRIBUTING.md", "docs/design.md", "docs/training.md")
    for page in (ROOT / name for name in pages):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_bijector_of_the_design_page_works():
    import jax

    from jflow.bijectors import Bijector
    from jflow.functional.arrays import align, as_wide

    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "design.md").read_text(), re.DOTALL
    )
    scope = {"Bijector": Bijector, "align": align, "as_wide": as_wide}
    exec("import flax.linen as nn\nimport jax.numpy as jnp\n" + code, scope)
    scale, y = scope["Scale"](), jax.random.normal(jax.random.key(0), (4, 3))
    variables = jax.tree.map(lambda v: v + 0.5, jflow.init(scale, jax.random.key(0), y))
    x, log_det = scale.apply(variables, y, method="inverse_and_log_det")
    assert jax.numpy.allclose(log_det, -1.5)
    assert jax.numpy.allclose(scale.apply(variables, x, method="forward"), y)
