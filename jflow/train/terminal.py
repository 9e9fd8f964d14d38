"""The person at the screen: what they see of a run, and how they end it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jflow.train.history import Row

# How a run may be asked to end, by how much it matters.
ENDS = ("", "stopped", "interrupted", "terminated")


class Preempted(SystemExit):
    """SIGTERM came, and a checkpoint was written. Left alone, it ends Python with status 75.

    75 is EX_TEMPFAIL: try again later.
    """

    def __init__(self) -> None:
        super().__init__(75)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


@contextmanager
def watch(terminations: bool) -> Iterator[Callable[[], str]]:
    """A function that tells how the run is to end, if it is: one of `ENDS`.

    The first SIGINT asks for "interrupted", the second raises KeyboardInterrupt at once. SIGTERM
    asks for "terminated", if it is watched for. Only Python's main thread can handle signals;
    elsewhere they do what they did before.
    """
    asked = [""]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: asked[0]
        return

    def interrupt(number: int, frame: Any) -> None:
        if asked[0]:
            raise KeyboardInterrupt
        asked[0] = "interrupted"
        # Not print, which must not be called while it is at work.
        os.write(2, b"jflow: ending the run with the best so far; once more ends it at once\n")

    def terminate(number: int, frame: Any) -> None:
        asked[0] = "terminated"

    before = {}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    if terminations:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminate)
    try:
        yield lambda: asked[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Display:
    """What a run shows of itself: here nothing."""

    def show(self, row: Row) -> None:
        """Shows the losses of a row."""

    def reach(self, step: int) -> None:
        """Shows that so many steps have been taken."""


@contextmanager
def show_progress(kind: bool | str, steps: int, examples: int, unit: str) -> Iterator[Display]:
    """Steps, losses, the best so far, examples a second and the time left.

    Args:
      kind: "bar", "log" for a line each row, False for nothing; True for a bar in a terminal or a
        notebook, and lines elsewhere.
      steps: in all.
      examples: in each.
      unit: of the losses.

    Raises:
      ValueError: another kind.
    """
    if kind not in (True, False, "bar", "log"):
        raise ValueError(f"progress must be 'bar', 'log', True or False; got {kind!r}")
    notebook = _in_notebook()
    if kind is True:
        kind = "bar" if notebook or sys.stderr.isatty() else "log"
    if not kind or jax.process_index():  # of several processes the first shows it
        yield Display()
    elif kind == "log":
        yield _Log(steps, examples, unit)
    elif notebook:
        yield _NotebookBar(steps, examples, unit)
    else:
        with _rich() as progress:
            yield _RichBar(progress, steps, examples, unit)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel shows what is displayed."""
    shell = sys.modules.get("IPython")
    found = shell and shell.get_ipython()
    return bool(found) and hasattr(found, "kernel")


class _Counted(Display):
    """The numbers of a line: losses, the best, examples a second, the time left."""

    def __init__(self, steps: int, examples: int, unit: str):
        self.steps, self.step, self._examples, self._unit = steps, 0, examples, unit
        self._began: tuple[float, int] | None = None
        self._losses: dict[str, float] = {}
        self._best = float("inf")

    def show(self, row: Row) -> None:
        self._losses |= {name: value for name, value in row.items() if name.endswith(self._unit)}
        self._best = min(self._best, row.get(f"validation_{self._unit}", self._best))
        self.reach(int(row["step"]))

    def reach(self, step: int) -> None:
        if self._began is None:  # after the first steps, which include compilation
            self._began = (time.perf_counter(), step)
        self.step = step

    @property
    def losses(self) -> str:
        """As text, with the best in validation."""
        each = [f"{name} {value:.4f}" for name, value in self._losses.items()]
        return "  ".join(each + ([f"best {self._best:.4f}"] if self._best < float("inf") else []))

    @property
    def short(self) -> str:
        """As narrow as a terminal: losses in training / validation (the best)."""
        text = " / ".join(f"{value:.4f}" for value in self._losses.values())
        best = f" (best {self._best:.4f})" if self._best < float("inf") else ""
        return f"{self._unit} {text}{best}" if text else self._unit

    @property
    def pace(self) -> str:
        """Examples a second and the time left, once they are known."""
        if self._began is None or self.step <= self._began[1]:
            return ""
        speed = (self.step - self._began[1]) / max(time.perf_counter() - self._began[0], 1e-9)
        left = int((self.steps - self.step) / speed)
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        return f"{speed * self._examples:,.0f}/s  {clock} left"


class _Log(_Counted):
    def show(self, row: Row) -> None:
        super().show(row)
        text = f"step {self.step}/{self.steps}  {self.losses}  {self.pace}"
        print(text.rstrip(), file=sys.stderr, flush=True)


class _NotebookBar(_Counted):
    def __init__(self, steps: int, examples: int, unit: str):
        super().__init__(steps, examples, unit)
        from IPython.display import display

        self._handle: Any = display(self._html(), display_id=True)

    def reach(self, step: int) -> None:
        super().reach(step)
        self._handle.update(self._html())

    def _html(self) -> Any:
        from IPython.display import HTML

        bar = f'<progress value="{self.step}" max="{self.steps}" style="width:20em"></progress>'
        text = f"{self.step}/{self.steps}  {self.short}  {self.pace}"
        return HTML(f'<div style="font-family:monospace;white-space:pre">{bar} {text}</div>')


class _RichBar(_Counted):
    def __init__(self, progress: Any, steps: int, examples: int, unit: str):
        super().__init__(steps, examples, unit)
        self._progress, self._task = progress, progress.add_task(unit, total=steps, pace="")

    def reach(self, step: int) -> None:
        super().reach(step)
        self._progress.update(self._task, completed=step, description=self.short, pace=self.pace)


def _rich() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    texts = (TextColumn("{task.description}"), TextColumn("{task.fields[pace]}"))
    return Progress(MofNCompleteColumn(), BarColumn(12), *texts, console=Console(stderr=True))
