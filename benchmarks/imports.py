"""What `import jflow` costs over the imports it cannot do without.

python -m benchmarks.imports
"""

import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "jax, flax.linen, optax": "import jax, flax.linen, optax",
    "jflow": "import jax, flax.linen, optax, jflow; jflow.fit",
}


def main(rounds: int = 7) -> None:
    """Whole processes, in turn."""
    seconds: dict[str, list] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        print(
            f"import {name:24s} min {min(values):.2f} s  median {statistics.median(values):.2f} s"
        )
    low = min(seconds["jflow"]) - min(seconds["jax, flax.linen, optax"])
    print(f"import jflow adds {low:.2f} s (minima)")


if __name__ == "__main__":
    main()
