"""A process that runs one library's programs when told to.

python -m benchmarks.peers.LIBRARY CASE [VARIANT]

prints a line of JSON about itself, then answers each line `PROGRAM COUNT` with one of the seconds
that each of COUNT calls took. It ends with its input.
"""

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.cases import Case, chosen

Program = Callable[[], Any]  # returns when its result is ready
Setup = Callable[[Case, str], tuple[dict[str, Callable[[], Program]], dict[str, Any]]]


def resident_mb(peak: bool = False) -> float:
    """Memory of this process, now or at most since `forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Lets the peak start from what is in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def serve(setup: Setup) -> None:
    """Answers until there are no more questions.

    Args:
      setup: (case, variant) to the programs' makers, and what there is to tell. A maker does all
        that comes before the first result (tracing, compiling); the time is reported.
    """
    # Libraries print; the answers have a channel of their own.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    case, variant = chosen(sys.argv[1]), " ".join(sys.argv[2:])
    before = resident_mb()
    makers, about = setup(case, variant)
    programs, first = {}, {}
    for name in case.programs:
        start = time.perf_counter()
        programs[name] = makers[name]()
        programs[name]()
        first[name] = time.perf_counter() - start
    if "fit" not in programs:
        forget_peak()
        programs[case.programs[0]]()
        about["peak_mb"] = resident_mb(peak=True) - before
    print(json.dumps({**about, "first_call": first}), file=out)
    for line in sys.stdin:
        name, count = line.rsplit(" ", 1)
        seconds = []
        for _ in range(int(count)):
            start = time.perf_counter()
            programs[name]()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), file=out)
