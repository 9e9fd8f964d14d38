"""All tests run in strict mode: float64 switched on, no implicit promotion of dtype or rank."""

import gc
import os
from importlib.metadata import version

# JFLOW_OPTIMIZE=1 compiles as users do. Otherwise: tests compile much and compute little. XLA's
# newer code generators for CPU take nearly twice the time, and programs cut into parts, to be
# compiled on several cores, a quarter more: the other cores run tests, too.
OPTIMIZE = os.environ.get("JFLOW_OPTIMIZE") == "1"
if not OPTIMIZE:
    # In the environment, so that processes that tests start do the same.
    fast = {"--xla_cpu_parallel_codegen_split_count": "1"}
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones know it no more
        fast["--xla_cpu_use_fusion_emitters"] = "false"
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [flag for flag in flags if flag.split("=")[0] not in fast]
    os.environ["XLA_FLAGS"] = " ".join((*flags, *("=".join(pair) for pair in fast.items())))
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

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
