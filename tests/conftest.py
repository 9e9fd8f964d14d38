"""All tests run in strict mode: float64 switched on, no implicit promotion of dtype or rank."""

from itertools import count

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile much and compute little.
jax.config.update("jax_disable_most_optimizations", True)

_finished = count(1)


def pytest_collection_modifyitems(items):
    """Puts the tests of one case (of cases.py) side by side and in one process.

    So the case's programs are compiled once, and may be dropped afterwards.
    """

    def case(item):
        name = item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""
        return str(item.path), name if item.path.name == "test_bijectors.py" else ""

    items.sort(key=case)
    for item in items:
        if case(item)[1]:
            item.add_marker(pytest.mark.xdist_group(case(item)[1]))


@pytest.fixture(autouse=True)
def few_compiled_programs():
    """Drops compiled programs now and then.

    Each takes memory maps, of which Linux allows a process 65,530. A thousand tests take more,
    and then the process dies.
    """
    yield
    if next(_finished) % 50 == 0:
        jax.clear_caches()
