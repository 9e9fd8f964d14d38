"""One column of a table: its cells as numbers, and back."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jflow.data.cells import MISSING, as_kind

# Beyond, float32 could not hold what becomes of them.
_LARGEST = 1e30
Curve = Literal["none", "log", "asinh", "logit"]


@dataclass(frozen=True)
class Column:
    """How one column is read, and told to a flow.

    Attributes:
      name: of the column.
      kind: "real", "positive", "bounded", "circular", "integer", "boolean", "category" or "date".
      offset: in raw units; of dates in days since 1970, of categories in places of `categories`.
      unit: likewise.
      step: of the grid that cells are on, likewise; 0 for none.
      origin: a point of that grid.
      low: where the turn of a circle begins that samples are in.
      curve: what is done to v.
      center: of what the curve gives, as `Schema` uses it.
      scale: likewise.
      categories: the words of a "category", the most frequent first.
      dtype: of samples.
    """

    name: str
    kind: str
    offset: float = 0.0
    unit: float = 1.0
    step: float = 0.0
    origin: float = 0.0
    low: float = 0.0
    curve: Curve = "none"
    center: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    dtype: str = "float64"

    def __str__(self) -> str:
        said = self.kind
        if self.categories:
            some = ", ".join(self.categories[:4])
            said += (
                f" of {len(self.categories)}: {some}{', ...' if len(self.categories) > 4 else ''}"
            )
        elif self.step and self.kind not in ("integer", "boolean"):
            said += f", in steps of {self.step:g}{' days' if self.kind == 'date' else ''}"
        bent = {"asinh": ", seen through arcsinh", "log": ", seen by its logarithm"}
        return said + bent.get(self.curve, "")

    @property
    def channels(self) -> int:
        """How many numbers tell this column to a network."""
        return len(self.categories) or (2 if self.kind == "circular" else 1)

    def numbers(self, cells: np.ndarray) -> np.ndarray:
        """Cells in raw units, (N,), float64: NaN where missing, infinite where never seen."""
        found = as_kind(self.name, self.kind, cells)
        if self.kind == "category":
            place = {word: float(i) for i, word in enumerate(self.categories)}
            other = lambda word: np.nan if word is None or word.lower() in MISSING else np.inf  # noqa: E731
            return np.asarray([place[w] if w in place else other(w) for w in found], np.float64)
        return found

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """t of numbers in raw units, and which are outside the support, (N,) each."""
        t = (x - self.offset) / self.unit
        if self.kind == "circular":
            return np.where(np.isinf(t), np.nan, t) % 1.0, np.isinf(t)
        outside = np.isinf(x)
        if self.kind in ("integer", "boolean"):
            outside |= ~np.isnan(x) & (x != np.round(x))
        if self.curve in ("log", "logit"):
            last = 1 - self.step / self.unit + 1e-9 if self.curve == "logit" else np.inf
            outside |= (t < 0) | (t > last) | ((self.curve == "log") & (t == 0))
        return np.where(outside, 0.5, t.clip(-_LARGEST, _LARGEST)), outside

    def decode(self, v: np.ndarray) -> np.ndarray:
        """Cells in their own type, of v, (N,)."""
        x = self.offset + self.unit * v
        if self.step:
            x = self.origin + self.step * np.floor((x - self.origin) / self.step)
            x = np.round(x, max(0, 9 - math.floor(math.log10(self.step))))  # 0.3, not 0.30000000004
        if self.kind == "circular":  # from 0 on, or from half a turn below, as they came
            x = self.low + (x - self.low) % self.unit
        if self.curve == "log" and self.step:
            least = self.origin % self.step  # the first point of the grid above 0
            positive = least if least > 1e-9 * self.step else self.step
            x = np.maximum(x, 0 if self.kind == "integer" else positive)
        missing = np.isnan(x)
        if self.kind == "category":
            place = np.where(missing, 0, x).astype(int).clip(0, len(self.categories) - 1)
            words = np.asarray(self.categories, self.dtype if self.dtype == "int64" else object)
            return (
                np.where(missing, np.asarray(None), words[place]) if missing.any() else words[place]
            )
        if self.kind == "date":
            unit = 1e6 if self.step else 1.0  # steps are of a second, or of more
            micro = unit * np.round(np.where(missing, 0, x) * 86_400e6 / unit)
            found = np.datetime64("1970-01-01", "us") + micro.astype("timedelta64[us]")
            return np.where(missing, np.datetime64("NaT"), found)
        if self.dtype == "bool":
            x = x.clip(0, 1)
        if missing.any() or self.dtype == "float64":
            return x
        return np.round(x).clip(-(2.0**62), 2.0**62).astype(self.dtype)


def constant(known: str, value: Any, count: int) -> np.ndarray:
    """So many cells of a column of one value."""
    if value is None or known == "text":
        return np.full(count, value, object)
    dtype = {"boolean": "bool", "integer": "int64"}.get(known, "float64")
    return Column("", known, dtype=dtype).decode(np.full(count, float(value)))
