"""What happened in a run: rows of numbers, files of them, and a line on the screen."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

Row = dict[str, float]


@dataclass
class History:
    """One row for each stretch of steps.

    A row has `step`, `seconds` since the start, `train_<unit>`, the mean loss over the stretch,
    `grad_norm`, its mean, and, where the model was validated, `validation_<unit>`; `drift` where
    `fit` was asked for it. The unit is "nll" (nats) or "bits_per_dim".

    Attributes:
      unit: of the losses.
      rows: in order.
      best_step: the step whose parameters were returned.
    """

    unit: str
    rows: list[Row] = field(default_factory=list)
    best_step: int = 0

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one column, where it is present."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    @property
    def overfitted(self) -> bool:
        """Whether training went on to improve after `best_step` while validation lost more.

        The parameters of `best_step` were returned. More data, dropout, fewer layers or narrower
        networks would bring the two together; more steps would not.
        """
        train, validation = f"train_{self.unit}", f"validation_{self.unit}"
        rows = [row for row in self.rows if validation in row and row["step"] >= self.best_step]
        if len(rows) < 2:
            return False
        gained = rows[0][train] - rows[-1][train]
        return 0 < gained < rows[-1][validation] - rows[0][validation]

    def __str__(self) -> str:
        """The best step, its losses, and whether the run overfitted."""
        last = max(row["step"] for row in self.rows) if self.rows else 0
        best = next((row for row in self.rows if row["step"] == self.best_step), {})
        losses = [
            f"{k} {v:.4g}" for k, v in best.items() if k.startswith(("train_", "validation_"))
        ]
        text = f"best of {last} steps: {self.best_step} ({', '.join(losses)})"
        return text + ("; overfitted from there on" if self.overfitted else "")


@contextmanager
def writer(directory: Path | None, columns: list[str], rows: Sequence[Row] = ()) -> Iterator[Any]:
    """A function that appends a row to metrics.jsonl and metrics.csv, or does nothing.

    Both begin with `rows`, those of a run that is resumed. Of several processes the first writes.
    """
    if directory is None or jax.process_index():
        yield lambda row: None
        return
    directory.mkdir(parents=True, exist_ok=True)
    # A run may be resumed with other options, and then has other columns from there on.
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    files = [directory / "metrics.jsonl", directory / "metrics.csv"]
    started = [file.with_name(f".{file.name}.new") for file in files]
    with started[0].open("w") as lines, started[1].open("w", newline="") as table:
        csv_writer = csv.DictWriter(table, names)
        csv_writer.writeheader()

        def write(row: Row) -> None:
            lines.write(json.dumps(row) + "\n")
            csv_writer.writerow(row)
            lines.flush()
            table.flush()

        for row in rows:
            write(row)
        table.flush()
        for new, file in zip(started, files, strict=True):
            new.replace(file)  # so that the rows so far are there at any moment
        yield write


class Bar:
    """A line on the screen, or nothing."""

    def show(self, row: Row) -> None:
        """Shows the losses of a row."""

    def reach(self, step: int) -> None:
        """Shows that so many steps have been taken."""


class _RichBar(Bar):
    def __init__(self, progress: Any, steps: int, examples: int, unit: str):
        self._progress, self._unit, self._losses = progress, unit, {}
        self._task = progress.add_task(unit, total=steps, examples=examples)

    def show(self, row: Row) -> None:
        self._losses |= {k: v for k, v in row.items() if k.endswith(self._unit)}
        text = "  ".join(f"{name} {value:.4f}" for name, value in self._losses.items())
        self._progress.update(self._task, description=text)
        self.reach(int(row["step"]))

    def reach(self, step: int) -> None:
        self._progress.update(self._task, completed=step)


@contextmanager
def progress_bar(steps: int, examples: int, unit: str, *, enabled: bool) -> Iterator[Bar]:
    """Steps, losses, examples a second and the time left; silent where no terminal is.

    Args:
      steps: in all.
      examples: in each.
      unit: of the losses.
      enabled: whether to show anything.
    """
    if not (enabled and sys.stderr.isatty()):
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.text import Text

    class Throughput(ProgressColumn):
        """Examples a second, of late."""

        def render(self, task: Any) -> Text:
            return Text(f"{(task.speed or 0) * task.fields['examples']:.0f} examples/s")

    losses = TextColumn("{task.description}")
    columns = (MofNCompleteColumn(), BarColumn(), losses, Throughput(), Remaining())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _RichBar(progress, steps, examples, unit)
