"""What a check found: a table of properties, and the error that names those that fail."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Property:
    """One property that was checked.

    Attributes:
      name: what must hold.
      holds: whether it does.
      error: the largest error found, in the units of the property; NaN where none is measured.
      allowed: what the error may be where it was largest; NaN where none is measured.
      where: the point, or the parameter, at which the error was largest.
      fix: for a property that fails, what is wrong and what to do.
    """

    name: str
    holds: bool
    error: float = math.nan
    allowed: float = math.nan
    where: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """All properties that were checked. It prints as a table.

    Attributes:
      subject: what was checked.
      properties: in the order of the checks.
      notes: what was not checked, and why.
    """

    subject: str
    properties: tuple[Property, ...]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Property, ...]:
        """The properties that do not hold."""
        return tuple(p for p in self.properties if not p.holds)

    def __getitem__(self, name: str) -> Property:
        """The property of that name.

        Raises:
          KeyError: it was not checked; the message lists those that were.
        """
        for one in self.properties:
            if one.name == name:
                return one
        names = ", ".join(p.name for p in self.properties)
        raise KeyError(f"{name} was not checked; checked were: {names}")

    def __str__(self) -> str:
        width = max((len(p.name) for p in self.properties), default=8)
        held = sum(p.holds for p in self.properties)
        lines = [f"{self.subject}: {held} of {len(self.properties)} properties hold"]
        lines += [f"  {'':4} {'property':{width}}  {'error':>8} {'allowed':>8}  where"]
        for p in self.properties:
            numbers = f"{_number(p.error):>8} {_number(p.allowed):>8}"
            mark = "ok" if p.holds else "FAIL"
            lines.append(f"  {mark:4} {p.name:{width}}  {numbers}  {p.where}".rstrip())
        return "\n".join((*lines, *(f"  not checked: {note}" for note in self.notes)))


class ContractError(AssertionError):
    """Properties that a bijector, a transformer or a flow must have, and has not.

    Attributes:
      report: all that was checked, with what fails.
    """

    def __init__(self, report: Report):
        """The error of a report that has failures."""
        self.report = report
        super().__init__(_message(report))

    def __reduce__(self) -> tuple[type, tuple[Report]]:
        return type(self), (self.report,)


def _message(report: Report) -> str:
    lines = [f"{report.subject} fails {len(report.failures)} of {len(report.properties)} checks:"]
    for p in report.failures:
        size = f": error {p.error:.3g}, allowed {p.allowed:.3g}" if p.error == p.error else ""
        lines.append(f"- {p.name}{size}{f', at {p.where}' if p.where else ''}")
        lines += [f"    {p.fix}"] if p.fix else []
    return "\n".join(lines)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1e}"


@dataclass
class Checks:
    """Collects properties, and ends in a report or in an error."""

    subject: str
    found: list[Property] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cause: Exception | None = None

    def holds(self, name: str, holds: Any, where: str = "", fix: str = "") -> None:
        """A property without a size."""
        self.found.append(Property(name, bool(holds), where=where, fix="" if holds else fix))

    def close(
        self,
        name: str,
        found: ArrayLike,
        wanted: ArrayLike,
        allowed: ArrayLike,
        where: Callable[[int], str],
        fix: str = "",
    ) -> None:
        """|found - wanted| is at most `allowed`, row by row: all are (N, ...) or broadcast to it.

        Infinities of the same sign are equal; NaN is not close to anything.
        """
        found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        with np.errstate(invalid="ignore"):
            error = np.where(found == wanted, 0.0, np.abs(found - wanted))
        error = np.where(np.isnan(error), np.inf, error)
        limit = np.broadcast_to(np.asarray(allowed, np.float64), error.shape)
        if error.size == 0:
            return
        at = int(np.argmax(error / np.maximum(limit, 1e-300)))
        row = int(np.unravel_index(at, error.shape)[0]) if error.ndim else 0
        holds = bool(np.all(error <= limit))
        worst, most = float(error.flat[at]), float(limit.flat[at])
        place = where(row) if worst else ""
        self.found.append(Property(name, holds, worst, most, place, "" if holds else fix))

    def finite(self, name: str, values: Any, where: Callable[[int], str], fix: str = "") -> None:
        """All of (N, ...) are finite."""
        values = np.asarray(values)
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        self.holds(name, not bad.any(), where(int(np.argmax(bad))) if bad.any() else "", fix)

    def failed(self, name: str, error: Exception, fix: str) -> None:
        """A property that could not be checked, because something was raised."""
        self.cause = self.cause or error
        self.found.append(Property(name, False, fix=fix))

    def report(self) -> Report:
        """The report.

        Raises:
          ContractError: a property does not hold.
        """
        report = Report(self.subject, tuple(self.found), tuple(dict.fromkeys(self.notes)))
        if report.failures:
            raise ContractError(report) from self.cause
        return report


def describe(**arrays: Any) -> str:
    """A point in words: its coordinates, in full digits if there are few."""
    parts = []
    for name, value in arrays.items():
        if value is not None:
            flat = np.asarray(value, np.float64).ravel()
            shown = ", ".join(f"{v:.6g}" for v in flat[:8])
            parts.append(f"{name} = [{shown}{', ...' if flat.size > 8 else ''}]")
    return ", ".join(parts)
