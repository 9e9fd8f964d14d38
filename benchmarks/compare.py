"""jflow beside the libraries that people use today: the same work, in turns, one table a case.

python -m benchmarks.compare [CASE ...] [--output FILE] [--jax PYTHON] [--torch PYTHON]

Each library runs in a process of its own (benchmarks/peers); all processes of a case live at the
same time and take turns. `make bench` sets up the two environments that the others need.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import CASES, ROWS, VALIDATION, Case, chosen

ROUNDS, TURN = 7, 0.4  # turns for each program, and seconds each, or one call if that is longer
DEFAULT = [name for name in CASES if not name.startswith("tiny")]
ROOT = Path(__file__).parent.parent
ENVIRONMENTS = {
    "jflow": "jflow", "flowjax": "jax", "bijx": "jax", "distrax": "jax",
    "zuko": "torch", "nflows": "torch", "normflows": "torch", "freia": "torch",
}  # fmt: skip


class LibraryError(RuntimeError):
    """A library's process ended before it should."""


class Library:
    """One process, and what it told."""

    def __init__(self, name: str, case: str, python: str, **environment: str) -> None:
        module, *variant = name.split()
        command = [python, "-m", f"benchmarks.peers.{module}", case, *variant]
        self.name, self.seconds = name, {program: [] for program in chosen(case).programs}
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, cwd=ROOT, env={**os.environ, **environment},
        )  # fmt: skip
        self.about: dict[str, Any] = self._answer()

    def run(self, program: str, count: int) -> list[float]:
        """Seconds of each call."""
        assert self.process.stdin
        self.process.stdin.write(f"{program} {count}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise LibraryError(f"{self.name}: {self.close() or 'no answer'}")
        return json.loads(line)

    def close(self) -> str:
        """Ends the process; returns the last line that it wrote about an error, if any."""
        self.process.communicate()
        with self.errors:
            self.errors.seek(0)
            lines = [line for line in self.errors.read().splitlines() if "Error" in line]
            return lines[-1] if lines else ""


def measure(name: str, pythons: dict[str, str]) -> list[Library]:
    """All libraries on one case: set up one after the other, then timed in turns."""
    case, libraries = CASES[name], []
    for library in case.libraries:
        try:
            libraries.append(Library(library, name, pythons[ENVIRONMENTS[library.split()[0]]]))
            print(f"{name}: {library} ready", file=sys.stderr, flush=True)
        except LibraryError as error:
            print(f"{name}: left out, {error}", file=sys.stderr, flush=True)
    for program in case.programs:
        rounds = 3 if program == "fit" else ROUNDS
        counts = {v: max(1, int(TURN / min(v.run(program, 2)))) for v in libraries}
        for _ in range(rounds):
            for library in libraries:
                library.seconds[program] += library.run(program, counts[library])
    for library in libraries:
        library.close()
    return libraries


def overhead(case: Case, library: Library) -> float:
    """Milliseconds a step of a fit beyond the bare steps and the bare validation."""
    steps = 2 * int((1 - VALIDATION) * ROWS // case.batch)
    validations = 2 * VALIDATION * ROWS / case.batch
    low = {name: min(values) for name, values in library.seconds.items()}
    return 1e3 * (low["fit"] - steps * low["train"] - validations * low["log_prob"]) / steps


def table(case: Case, libraries: list[Library]) -> str:
    """In Markdown: minima, and their ratios to the best of the others."""
    low = {v.name: {p: min(seconds) for p, seconds in v.seconds.items()} for v in libraries}
    others = [v.name for v in libraries if not v.name.startswith("jflow")]
    # Without any of the others, ratios are nan.
    best = {p: min((low[name][p] for name in others), default=math.nan) for p in case.programs}
    has_fit = "fit" in case.programs
    heads = [*(f"{p}, ms" for p in case.programs), "of medians"]
    heads += ["first call, s", *(["overhead a step, ms"] if has_fit else ["XLA MB", "peak MB"])]
    lines = [f"### {case.title}, batch {case.batch}", "", f"| library | {' | '.join(heads)} |"]
    lines.append("|" + "---|" * (len(heads) + 1))
    middle = {v.name: statistics.median(v.seconds[case.programs[0]]) for v in libraries}
    best_middle = min((middle[name] for name in others), default=math.nan)
    for v in libraries:
        cells = [f"{1e3 * low[v.name][p]:.3g} ({low[v.name][p] / best[p]:.2f})" for p in best]
        cells.append(f"{middle[v.name] / best_middle:.2f}")
        cells.append(f"{v.about['first_call'][case.programs[0]]:.2f}")
        if has_fit:
            cells.append(f"{overhead(case, v):.2f}")
        else:
            temporary = v.about.get("temporary_mb")
            cells += ["" if temporary is None else f"{temporary:.0f}", f"{v.about['peak_mb']:.0f}"]
        lines.append(f"| {v.name} | {' | '.join(cells)} |")
    notes = "; ".join(f"{v.name}: {v.about['note']}" for v in libraries)
    return "\n".join([*lines, "", f"{notes}.", ""])


def heading(versions: set[str]) -> str:
    """What was run on, and how to read the tables."""
    with open("/proc/cpuinfo") as lines:
        cpu = next((v.split(":")[1].strip() for v in lines if "model name" in v), "")
    where = f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"""# jflow beside other libraries

Written by `make bench`: the same flows, data, optimiser and precision for all, each library in a
process of its own, in turns. {date.today():%d %B %Y}; {where};
{", ".join(sorted(versions))}; float32.

Milliseconds are the least of all calls; in parentheses, their ratio to the best of the other
libraries (below 1 is faster than all of them); "of medians" is that ratio of the medians, for the
first column. "First call" is that of the first column, compilation included. "XLA MB" are the
temporary bytes of the compiled program; "peak MB" is what the process holds at most during a warm
call, beyond what its imports take.
"""


def run(names: list[str], pythons: dict[str, str]) -> str:
    """All tables; each is shown on the way, too."""
    tables, versions = [], set()
    for name in names:
        libraries = measure(name, pythons)
        versions |= {v.about["version"] for v in libraries}
        tables.append(table(CASES[name], libraries))
        print(tables[-1], file=sys.stderr, flush=True)
    return "\n".join([heading(versions), *tables])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="jflow beside other libraries.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--output", metavar="FILE", help="where the tables go; else, the screen")
    for kind, folder in (("jax", ".venv-jax"), ("torch", ".venv-torch")):
        parser.add_argument(f"--{kind}", metavar="PYTHON", default=f"{folder}/bin/python")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    pythons = {"jflow": sys.executable, "jax": options.jax, "torch": options.torch}
    for python in pythons.values():
        if not Path(python).exists():
            parser.error(f"there is no {python}; `make bench` sets up what the others need")
    found = run(options.cases or DEFAULT, pythons)
    # Only now: the tables that are there stay until there are new ones.
    Path(options.output).write_text(found) if options.output else print(found)
