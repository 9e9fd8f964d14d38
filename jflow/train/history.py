"""What happened in a run: rows of numbers, files of them, and a line on the screen."""

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@contextmanager
def writer(directory: Path | None, columns: list[str]) -> Iterator[Any]:
    """A function that appends a row to metrics.jsonl and metrics.csv, or does nothing."""
    if directory is None:
        yield lambda row: None
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (
        (directory / "metrics.jsonl").open("w") as lines,
        (directory / "metrics.csv").open("w", newline="") as table,
    ):
        csv_writer = csv.DictWriter(table, columns)
        csv_writer.writeheader()

        def write(row: Row) -> None:
            lines.write(json.dumps(row) + "\n")
            csv_writer.writerow(row)
            lines.flush()
            table.flush()

        yield write


@contextmanager
def progress_bar(steps: int, unit: str, *, enabled: bool) -> Iterator[Any]:
    """A function that shows a row; silent where the screen is not a terminal."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda row: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), Remaining())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(unit, total=steps)
        shown: dict[str, float] = {}

        def show(row: Row) -> None:
            shown.update({k: v for k, v in row.items() if k.endswith(unit)})
            text = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            progress.update(task, completed=row["step"], description=text)

        yield show
