"""Uses the installed wheel: fit, save, load. Run outside the repository."""

import sys
from pathlib import Path

import jax
import numpy as np

import jflow

site = Path(sys.argv[1]).resolve()
assert Path(jflow.__file__).resolve().is_relative_to(site), jflow.__file__
assert (site / "jflow" / "py.typed").is_file(), "the wheel lacks py.typed"
for name in ("base", "macros", "table", "images"):
    assert (site / "jflow" / "report" / "templates" / f"{name}.html").is_file(), name
sources = {p.relative_to(site) for p in (site / "jflow").rglob("*.py")}
assert len(sources) > 30, sorted(sources)

key = jax.random.key(0)
flow = jflow.flows.real_nvp(2, layers=2, hidden=(8,))
data = jax.random.normal(key, (200, 2))
density, history = jflow.fit(flow, data, key=key, steps=20, evaluate_every=10, batch_size=64)
density.save("density")
loaded = jflow.load("density")
np.testing.assert_array_equal(loaded.log_prob(data), density.log_prob(data))
print(f"wheel: {len(sources)} modules, jflow {jflow.__version__}, ok")
