"""What happened in a run: rows of numbers, what they say, and files of them."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

Row = dict[str, float]
_PARTS, _FILES = ("train_", "validation_"), ("metrics.jsonl", "metrics.csv")


@dataclass
class History:
    """One row for each stretch of steps, and how the run ended.

    A row has `step`, `seconds` since the start, `train_<unit>`, the mean loss over the stretch,
    `grad_norm`, its mean, `skipped`, how many of its steps were, and, where there was validation,
    `validation_<unit>`; objectives add columns of their own. The unit is "nll" (nats),
    "bits_per_dim", "kl" (nats), or what an objective says.

    Attributes:
      unit: of the losses.
      rows: in order.
      best_step: the step whose parameters were returned.
      ended: "done", "patience", "stopped" (by a callback) or "interrupted" (by Ctrl-C).
      notes: what else is to be known of the result, in words.
      held_out: which rows of the data `fit` validated on; None if it was not `fit` that chose them.
    """

    unit: str
    rows: list[Row] = field(default_factory=list)
    best_step: int = 0
    ended: str = ""
    notes: list[str] = field(default_factory=list)
    held_out: np.ndarray | None = field(default=None, repr=False, compare=False)

    def column(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one column, where it is present."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    @property
    def best(self) -> Row:
        """The row of `best_step`; an empty one, if there is none."""
        return next((row for row in self.rows if row["step"] == self.best_step), {})

    @property
    def gap(self) -> float | None:
        """Validation loss above training loss at the best step; None without validation."""
        train, validation = (self.best.get(f"{part}{self.unit}") for part in _PARTS)
        return None if train is None or validation is None else validation - train

    @property
    def skipped(self) -> int:
        """How many steps were skipped, because they were not finite."""
        return int(sum(row.get("skipped", 0) for row in self.rows))

    @property
    def overfitted(self) -> bool:
        """Whether training went on to improve after `best_step` while validation lost more.

        The parameters of `best_step` were returned. More data, dropout, fewer layers or narrower
        networks would bring the two together; more steps would not.
        """
        train, validation = (f"{part}{self.unit}" for part in _PARTS)
        rows = [row for row in self.rows if validation in row and row["step"] >= self.best_step]
        if len(rows) < 2:
            return False
        gained = rows[0][train] - rows[-1][train]
        return 0 < gained < rows[-1][validation] - rows[0][validation]

    @property
    def improving(self) -> bool:
        """Whether validation was still gaining when the steps ran out.

        The last tenth of the steps then gained more than a tenth of what the second half did.
        """
        steps, losses = self.column(f"validation_{self.unit}")
        if self.ended != "done" or len(steps) < 10 or self.best_step != steps[-1]:
            return False
        half, tenth = (
            losses[int(np.searchsorted(steps, share * steps[-1]))] for share in (0.5, 0.9)
        )
        return half - losses[-1] > 0 and tenth - losses[-1] > 0.1 * (half - losses[-1])

    @property
    def advice(self) -> list[str]:
        """What to know of the run, in words."""
        found = list(self.notes)
        if self.improving:
            found.append("still improving at the last step: more steps would gain more")
        if self.overfitted:
            found.append("overfitted from there on: more data, dropout or fewer layers would help")
        if self.skipped:
            found.append(f"{self.skipped} steps were not finite and skipped: look for outliers")
        return found

    def __str__(self) -> str:
        """The best step, its losses, how the run ended, and what to know of it."""
        last = max(row["step"] for row in self.rows) if self.rows else 0
        losses = [f"{name} {self.best[name]:.4g}" for name in self.best if name.startswith(_PARTS)]
        text = f"best of {last} steps: {self.best_step} ({', '.join(losses)})"
        early = f"ended early: {self.ended}" if self.ended not in ("", "done") else ""
        return "; ".join([text, *([early] if early else []), *self.advice])

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of the rows, by step."""
        import pandas  # type: ignore[import-not-found]

        return pandas.DataFrame(self.rows).set_index("step")

    def plot(self, axes: Any = None) -> Any:
        """Draws the losses and marks the best step; returns the `matplotlib` axes.

        Args:
          axes: to draw into; None for new ones.
        """
        if axes is None:
            from matplotlib import pyplot

            axes = pyplot.subplots(layout="constrained")[1]
        for part in _PARTS:
            steps, losses = self.column(f"{part}{self.unit}")
            if steps:
                axes.plot(steps, losses, label=part.rstrip("_"))
        if self.best:
            axes.axvline(self.best_step, color="gray", linestyle=":", label="best")
        axes.set(xlabel="step", ylabel=self.unit)
        axes.legend()
        return axes


@dataclass
class Record:
    """What has happened in a run, as JSON can hold it.

    Attributes:
      rows: of the history.
      best_step: the step after which the best parameters were.
      best_loss: in validation; None before the first.
      misses: validations since.
      seconds: of training, in earlier processes too.
      skipped: steps, up to the last row.
      told: what the steps since the last row have told, by name.
    """

    rows: list[Row] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    misses: int = 0
    seconds: float = 0.0
    skipped: int = 0
    told: dict[str, list[float]] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Of what steps have told, where it is finite, as of steps taken."""
        arrays = {name: np.asarray(values, np.float32) for name, values in self.told.items()}
        finite = {name: array[np.isfinite(array)] for name, array in arrays.items()}
        return {n: float(np.mean(v)) if v.size else float("nan") for n, v in finite.items()}


class NonFiniteLossError(FloatingPointError):
    """Training met too many losses or gradients that are not finite, or no finite validation loss.

    Attributes:
      what: happened.
      step: the step that was not taken, counted from 0.
      density: the density, or for other objectives the variables, with the best parameters so far;
        without a validation before, those that training began with.
      history: of the run up to there.
      cause: where to look; see `Objective.cause`.
    """

    def __init__(self, what: str, step: int, density: Any, history: History, cause: str):
        super().__init__(
            f"{what}. The last good parameters are in this error's `density`. Try a smaller "
            f"learning_rate, a longer warmup_steps or a (smaller) clip_norm, and {cause}; single "
            "bad batches may be skipped by max_skipped"
        )
        self.what, self.step, self.density, self.history = what, step, density, history
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are pickled by their message alone otherwise, and a pool of processes hangs.
        return type(self), (self.what, self.step, self.density, self.history, self.cause)


@contextmanager
def writer(directory: Path | None, rows: Sequence[Row] = ()) -> Iterator[Callable[[Row], None]]:
    """A function that appends a row to metrics.jsonl and metrics.csv, or does nothing.

    Both begin with `rows`, those of a run that is resumed. Of several processes the first writes.
    A number that is not finite is null in the one, and empty in the other.
    """
    if directory is None or jax.process_index():
        yield lambda row: None
        return
    directory.mkdir(parents=True, exist_ok=True)
    done, names = list(rows), list(dict.fromkeys(name for row in rows for name in row))
    _rewrite(directory, done, names)

    def write(row: Row) -> None:
        done.append(row)
        if not row.keys() <= set(names):
            names.extend(name for name in row if name not in names)
            _rewrite(directory, done, names)
            return
        for file, text in zip(_FILES, (_line, partial(_cells, names)), strict=True):
            with (directory / file).open("a", newline="") as out:
                out.write(text(row))

    yield write


def _rewrite(directory: Path, rows: list[Row], names: list[str]) -> None:
    """Writes both files anew, so that the rows so far are there at any moment."""
    header = _cells(names, dict(zip(names, names, strict=True)))
    texts = ("".join(map(_line, rows)), header + "".join(_cells(names, row) for row in rows))
    for file, text in zip(_FILES, texts, strict=True):
        started = directory / f".{file}.new"
        started.write_text(text, newline="")
        started.replace(directory / file)


def _line(row: Row) -> str:
    return json.dumps({n: v if np.isfinite(v) else None for n, v in row.items()}) + "\n"


def _cells(names: list[str], row: Mapping[str, Any]) -> str:
    out = io.StringIO()
    kept = {n: v for n, v in row.items() if isinstance(v, str) or np.isfinite(v)}
    csv.DictWriter(out, names, lineterminator="\n").writerow(kept)
    return out.getvalue() if names else ""
