"""The flag without which some versions of jaxlib sum wrongly on CPUs."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from jflow.xla_flags import WRONG

NAME = "--xla_cpu_experimental_ynn_fusion_type"
# https://github.com/jax-ml/jax/issues/39103: of 32,769 rows, the last ones are wrong.
SUMS = """
import jax, jax.numpy as jnp
i = jnp.arange(32_769, dtype=jnp.float32)
x = jnp.stack((i, jnp.zeros_like(i), jnp.zeros_like(i)), axis=1)
f = jax.jit(lambda x: jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x))
print(float(f(x)[-1]))
"""
wrong_alone = pytest.mark.skipif(version("jaxlib") not in WRONG, reason="this jaxlib needs no flag")


def run(code, flags=""):
    """As a user would: without what the tests set."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_sums_are_right():
    done = run("import jflow" + SUMS)
    assert float(done.stdout) == 32_768.0**2
    assert "sums wrongly" not in done.stderr


@wrong_alone
def test_a_jax_that_has_run_is_told_of():
    done = run("import jax.numpy as jnp; jnp.zeros(1); import jflow")
    assert "JAX has run before jflow was imported" in done.stderr


@wrong_alone
def test_flags_of_the_user_stay():
    show = "import os, jflow; print(os.environ['XLA_FLAGS'])"
    assert run(show, f"{NAME}=dot").stdout.strip() == f"{NAME}=dot"
    other = "--xla_cpu_enable_fast_math=false"
    assert run(show, other).stdout.strip() == f"{other} {NAME}=-reduce"
