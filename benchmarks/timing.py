"""Fair timing of several programs in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def interleaved(programs: Mapping[str, Callable[[], Any]], rounds: int = 15) -> dict[str, list]:
    """Seconds of each call, A B C A B C ..., after one warm-up of each, blocked until ready."""
    for program in programs.values():
        jax.block_until_ready(program())
    seconds: dict[str, list] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def print_table(seconds: Mapping[str, list], against: str) -> None:
    """Minimum and median in ms, and the ratio of both to those of `against`."""
    base = seconds[against]
    print(f"{'':28s} {'min ms':>9s} {'median ms':>10s} {'ratio min':>10s} {'ratio median':>13s}")
    for name, values in seconds.items():
        low, middle = min(values), statistics.median(values)
        print(
            f"{name:28s} {low * 1e3:9.1f} {middle * 1e3:10.1f} {low / min(base):10.3f} "
            f"{middle / statistics.median(base):13.3f}"
        )
