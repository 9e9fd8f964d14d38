"""All tests run in strict mode: float64 switched on, no implicit promotion of dtype or rank."""

import gc
import os

from tests.quick import compile_quickly

OPTIMIZE = os.environ.get("JFLOW_OPTIMIZE") == "1"  # compiles as users do
if not OPTIMIZE:
    compile_quickly()

import jax  # noqa: E402
import pytest  # noqa: E402

# Tracing makes and drops many small objects: with Python's own limits, collecting takes 7 %.
gc.set_threshold(200_000, 20, 100)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", not OPTIMIZE)


@pytest.fixture(autouse=True, scope="module")
def no_compiled_programs_of_other_files():
    """Drops compiled programs at the end of each file.

    Each takes memory maps, of which Linux allows a process 65,530, and then the process dies.
    """
    yield
    jax.clear_caches()
