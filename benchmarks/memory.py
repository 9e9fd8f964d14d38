"""The memory that `fit` takes beside large data: python -m benchmarks.memory [GB]. Linux.

Each kind of data in a process of its own, which a small `real_nvp` is fitted to: its peak, over the
bytes of the data, and over those of the same fit of few rows, which are Python, JAX and compiled
programs. Pages of a file that is mapped count as soon as they are read.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import jflow

COLUMNS, PART, FEW = 50, 500_000, 1_000
MAPPED = "a file that is mapped"
KINDS = {
    "an array": lambda y: y,
    MAPPED: lambda y: y,
    "a stream of an array": jflow.data.arrays,
}


def fill(y: np.ndarray) -> np.ndarray:
    """Normal numbers in place, a part at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, len(y), PART):
        part = y[first : first + PART]
        part[:] = rng.standard_normal(part.shape, np.float32)
    return y


def child(kind: str, rows: int, file: str) -> None:
    """Fits, and prints the peak of this process in bytes."""
    mapped = kind == MAPPED
    y = np.load(file, mmap_mode="r") if mapped else fill(np.empty((rows, COLUMNS), np.float32))
    flow = jflow.flows.real_nvp(COLUMNS, 2, (32,))
    jflow.fit(flow, KINDS[kind](y), key=0, steps=40, evaluate_every=20, progress=False)
    # Of this program: what getrusage tells may be of the one that started it.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) * 1024)


def peak(kind: str, rows: int, folder: str) -> int:
    """Of a process of its own, in bytes."""
    file = Path(folder) / f"{rows}.npy"
    if kind == MAPPED:
        y = np.lib.format.open_memmap(file, "w+", np.float32, (rows, COLUMNS))
        fill(y)
        y.flush()
    command = [sys.executable, "-m", "benchmarks.memory", "child", kind, str(rows), str(file)]
    return int(subprocess.check_output(command, text=True).split()[-1])


def main(gigabytes: float) -> None:
    """Prints the table."""
    rows = round(gigabytes * 1e9 / 4 / COLUMNS)
    size = rows * COLUMNS * 4
    print(f"fit, {rows:,} x {COLUMNS} float32, {size / 1e9:.2f} GB: peak of the process / data")
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            large, small = (peak(kind, count, folder) for count in (rows, FEW))
            beside = (large - small) / size
            print(f"{kind:24s}{large / size:5.2f}, without what few rows take {beside:5.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
