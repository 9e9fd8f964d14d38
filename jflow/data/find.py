"""What kinds of columns a table has: as they were declared, or as their cells look."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from jflow.data.cells import as_kind, read_cells
from jflow.data.column import Column, Curve
from jflow.data.columns import integers_from

KINDS = ("real", "positive", "bounded(low, high)", "circular(period)", "angle", "integer",
         "boolean", "category", "date")  # fmt: skip
_KNOWN = ("integer", "boolean", "date")
_DECLARED = re.compile(r"\s*(\w+)\s*(?:\(\s*([^()]*)\s*\))?\s*$")
# More words than these, in more than half of the rows, are names and not categories.
_MANY, _ALL = 20, 200
# Beyond so many interquartile ranges the tails of a column are bent.
_FAR = 50.0
# A column of positive numbers is taken by its logarithms if these are so much less skewed.
_SKEWED = 1.0
# Numbers are not on a grid finer than this share of their standard deviation.
_FINEST = 1e-6
# The share of cells that make a grid.
_ALIGNED = 0.99


@dataclass(frozen=True)
class Cells:
    """The cells of a column, before anything is known of them.

    Attributes:
      name: of the column.
      known: what they are: "real", "integer", "boolean", "date" or "text".
      found: numbers, (N,), NaN where missing; or words, None where missing.
      wide: from where on all numbers of their dtype are integers.
      whole: whether they came as whole numbers.
    """

    name: str
    known: str
    found: np.ndarray
    wide: float
    whole: bool = False

    @property
    def missing(self) -> np.ndarray:
        """Which cells are, (N,)."""
        return np.asarray([cell is None or cell != cell for cell in self.found])


def find_column(
    cells: Cells, spec: str | None, train: np.ndarray, gridded: bool, *, bend: bool,
    anywhere: bool = False,
) -> Column:  # fmt: skip
    """How to tell a column.

    Args:
      cells: of all rows, which tell the kind and the categories.
      spec: what was declared; None for what is found.
      train: the rows whose cells give the units.
      gridded: whether the cells are on a grid, for all that is known.
      bend: whether columns with heavy tails, or positive and skewed ones, are found.
      anywhere: whether all numbers are to be told, those too that no integer is, or not positive.

    Raises:
      TypeError: cells are not of the kind that was declared.
      ValueError: an unknown kind, or words that are names rather than categories.
    """
    kind, numbers = _parsed(cells.name, spec) if spec is not None else (_natural(cells), ())
    if kind == "category":
        return _category(cells, declared=spec is not None)
    x = cells.found
    if kind == "boolean":
        return _boolean(cells.name, x)
    seen = x[~np.isnan(x)]
    _check_range(cells.name, kind, x, numbers)
    if kind == "integer" and (anywhere or not gridded) and spec is None:
        kind = "real"
    step = _step(seen, kind, looks=gridded)
    column = Column(cells.name, kind, dtype=_dtype(kind), step=step)
    units = x[train]
    units = units[~np.isnan(units)] if (~np.isnan(units)).any() else seen
    if kind in ("bounded", "circular"):
        column = _on_interval(column, units, numbers)
    else:
        curve = _curve(kind, units, seen, bend=bend and spec is None, anywhere=anywhere)
        column = _on_line(column, units, curve)
    if kind == "real" and column.curve == "log":
        column = replace(column, kind="positive")
    return column


def _natural(cells: Cells) -> str:
    return {"text": "category"}.get(cells.known, cells.known)


def _parsed(name: str, spec: str) -> tuple[str, tuple[float, ...]]:
    match = _DECLARED.match(spec) if isinstance(spec, str) else None
    kind = match[1] if match else None
    wanted = {"bounded": 2, "circular": 1}
    known = {text.split("(")[0] for text in KINDS}
    numbers: list[float] = []
    try:
        numbers = [float(n) for n in match[2].split(",")] if match and match[2] else []
    except ValueError:
        kind = None
    if kind is None or kind not in known or len(numbers) != wanted.get(kind, 0):
        raise ValueError(f"columns: {name!r} must be one of {list(KINDS)}; got {spec!r}")
    if kind == "bounded" and not numbers[0] < numbers[1]:
        raise ValueError(f"columns: {name!r} must have low < high; got {spec!r}")
    if kind == "circular" and not numbers[0] > 0:
        raise ValueError(f"columns: {name!r} must have a period above 0; got {spec!r}")
    return ("circular", (2 * np.pi,)) if kind == "angle" else (kind, tuple(numbers))


def _category(cells: Cells, *, declared: bool) -> Column:
    present = [word for word in cells.found if word is not None]
    names, counts = np.unique(np.asarray(present, object).astype(str), return_counts=True)
    if not declared and (len(names) > _ALL or len(names) > max(_MANY, len(present) / 2)):
        raise ValueError(
            f"table: column {cells.name!r} has {len(names)} different words in {len(present)} "
            "rows, as of names: leave it out by ignore=, or declare it a 'category' by columns="
        )
    order = np.lexsort((names, -counts))
    categories = tuple(str(name) for name in names[order])
    return Column(
        cells.name, "category", unit=max(1, len(categories)), step=1.0, curve="logit",
        categories=categories, dtype="int64" if cells.whole else "str",
    )  # fmt: skip


def _boolean(name: str, x: np.ndarray) -> Column:
    if not np.isin(x[~np.isnan(x)], (0, 1)).all():
        row = int(np.flatnonzero(~np.isnan(x) & ~np.isin(x, (0, 1)))[0])
        raise TypeError(f"table: column {name!r}, row {row}: {x[row]} is neither 0 nor 1")
    return Column(name, "boolean", unit=2.0, step=1.0, curve="logit", dtype="bool")


def _dtype(kind: str) -> str:
    return {"integer": "int64", "date": "datetime64[us]"}.get(kind, "float64")


def _check_range(name: str, kind: str, x: np.ndarray, numbers: tuple[float, ...]) -> None:
    bad = np.isinf(x)
    what = "is infinite: leave out the row, or say that it is missing (NaN)"
    if not bad.any() and kind == "positive":
        bad, what = x <= 0, "is not above 0; declare the column 'real'"
    if not bad.any() and kind == "bounded":
        low, high = numbers
        bad, what = (x < low) | (x > high), f"is not in [{low:g}, {high:g}]"
    if not bad.any() and kind == "integer":
        bad, what = ~np.isnan(x) & (x != np.round(x)), "is not whole; declare the column 'real'"
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"table: column {name!r}, row {row}: {x[row]} {what}")


def looks_discrete(x: np.ndarray, wide: float, repeats: float) -> bool:
    """Whether numbers are all integers, or repeat themselves in more than a share of the rows.

    From `wide` on all numbers of their dtype are integers, which says nothing.
    """
    if not len(x):
        return False
    could_differ = np.abs(x) < wide
    whole = ((x == np.round(x)) | ~could_differ).all() and could_differ.any()
    return bool(whole or 1 - len(np.unique(x)) / len(x) > repeats)


def _step(x: np.ndarray, kind: str, *, looks: bool) -> float:
    """Of the grid that numbers are on; 0 for none."""
    if kind == "integer":
        return 1.0
    known = (1.0, 1 / 24, 1 / 1440, 1 / 86400) if kind == "date" else (1.0, 0.5, 0.1, 0.05, 0.01)
    gaps = np.diff(np.unique(x))
    if not len(gaps) or not (looks or kind == "date"):
        return 0.0
    finest = _FINEST * float(np.std(x))
    least = float(gaps.min())
    # Where months follow each other, days; otherwise a gap tells more than what is usual.
    for step in (*known, least) if kind == "date" else (least, *known):
        places = (x - x[0]) / step
        near = np.abs(places - np.round(places)) < 1e-3
        if step > finest / 1000 and near.mean() >= _ALIGNED:
            return step
    return 0.0 if kind == "date" else finest


def _curve(kind: str, x: np.ndarray, seen: np.ndarray, *, bend: bool, anywhere: bool) -> Curve:
    if kind == "positive":
        return "log"
    if not bend or kind == "date" or len(x) < 3 or not np.ptp(x):
        return "none"
    median = np.median(x)
    spread = np.subtract(*np.quantile(x, (0.75, 0.25)))
    least = 0 if kind == "integer" else np.nextafter(0, 1)
    if seen.min() >= least:
        skew = abs(_skewness(np.log(x + 0.5 * (kind == "integer"))))
        if _skewness(x) > _SKEWED and skew < _skewness(x) / 2:
            return "log" if not anywhere else "asinh" if spread > 0 else "none"
    return "asinh" if 0 < _FAR * spread < np.abs(x - median).max() else "none"


def _skewness(x: np.ndarray) -> float:
    largest = np.abs(x - x.mean()).max()
    z = (x - x.mean()) / (largest or 1)
    return float(np.mean(z**3) / max(np.mean(z**2) ** 1.5, 1e-300))


def _on_line(column: Column, x: np.ndarray, curve: Curve) -> Column:
    """With units in which the training cells have mean 0 and standard deviation 1."""
    step, mean = column.step, float(np.mean(x))
    if curve == "log":
        offset = -0.5 if column.kind == "integer" else 0.0
        unit, origin = float(np.median(x - offset)), 0.0 if column.kind == "integer" else x[0]
        column = replace(column, offset=offset, unit=unit, origin=float(origin))
    elif curve == "asinh":
        unit = float(np.subtract(*np.quantile(x, (0.75, 0.25))))
        center = _on_grid(float(np.median(x)), float(x[0]), step)
        column = replace(column, offset=center, unit=unit, origin=center)
    else:
        center = _on_grid(mean, float(x[0]), step) if step else mean
        unit = _deviation(column.name, x)
        column = replace(column, offset=center, unit=unit, origin=center)
    column = replace(column, curve=curve)
    v = (x + step / 2 - column.offset) / column.unit
    y = {"none": v, "log": np.log(np.maximum(v, 1e-300)), "asinh": np.arcsinh(v)}[curve]
    scale = np.sqrt(np.var(y) + (step / column.unit) ** 2 / 12 * (curve == "none"))
    return replace(column, center=float(np.mean(y)), scale=float(scale) or 1.0)


def _on_grid(x: float, origin: float, step: float) -> float:
    return origin + step * np.round((x - origin) / step) if step else x


def _deviation(name: str, x: np.ndarray) -> float:
    """The standard deviation, also of numbers whose squares are 0 or infinite.

    Raises:
      ValueError: it is 0, where numbers are among the smallest that there are.
    """
    largest = np.abs(x - x.mean()).max()
    shares = (x - x.mean()) / (largest or 1)
    deviation = float(largest * np.sqrt(np.mean(np.square(shares))))
    if not deviation > 0:
        raise ValueError(f"table: columns {[name]} vary too little for float64; change their units")
    return deviation


def _on_interval(column: Column, x: np.ndarray, numbers: tuple[float, ...]) -> Column:
    step = column.step
    if column.kind == "bounded":
        low, high = numbers
        unit, origin = high - low + step, float(x[0])
        return replace(column, offset=low, unit=unit, origin=origin, curve="logit")
    (period,) = numbers
    if step and abs(period / step - round(period / step)) > 1e-6:
        step = 0.0
    start = 0.0 if x.min() >= 0 else -period / 2
    # The circle is cut where the fewest cells are, an eighth of it around.
    bins = min(round(period / step) if step else 64, 64)
    counts, _ = np.histogram((x + 0.5 * step) % period, bins=bins, range=(0, period))
    near = [np.roll(counts, shift) for shift in range(-(bins // 16), bins // 16 + 1)]
    cut = float(np.argmin(np.sum(near, axis=0))) * period / bins
    cut, origin = _on_grid(cut, float(x[0]), step), float(x[0])
    return replace(
        column, offset=cut, unit=period, step=step, origin=origin, low=start, curve="logit"
    )


def read_all(columns: Mapping[str, np.ndarray], declared: Mapping[str, str]) -> dict[str, Cells]:
    """The cells of each column, of the kind that was declared."""
    found = {}
    for name, column in columns.items():
        wide, whole = integers_from(column.dtype), column.dtype.kind in "iu"
        if column.dtype.kind == "f" and column.dtype.itemsize < 8:
            column = column.astype(str).astype(np.float64)  # 0.1, not 0.10000000149
        if name in declared:
            kind, _ = _parsed(name, declared[name])
            known = {"category": "text"}.get(kind, kind if kind in _KNOWN else "real")
            found[name] = Cells(name, known, as_kind(name, kind, column), wide, whole)
        else:
            found[name] = Cells(name, *read_cells(name, column), wide, whole)
    return found
