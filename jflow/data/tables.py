"""Tables of any columns: from arrays, data frames or files to three parts that a flow can fit."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jflow.data.columns import named_columns
from jflow.data.find import Cells, find_column, looks_discrete, read_all
from jflow.data.frames import kind_of_frame
from jflow.data.schema import Rows, Schema
from jflow.data.splits import split_rows
from jflow.data.table_files import columns_of, read

Discrete = Literal["dequantize", "drop", "keep"]


@dataclass(frozen=True)
class Table:
    """A table in three disjoint parts, as its schema tells them.

    `jflow.fit(flow, table)` fits a flow to it and gives a `TableDensity`, that of the raw columns.

    Attributes:
      schema: how columns are read, and told to a flow.
      rows: those to fit on, to choose by and to report on.
      constant: names of the columns that have one value in training, and so no density.
      discrete: names of the columns that look discrete.
      handling: what was done with those: "dequantize", "drop" or "keep".
      seed: of the split, and of the noise in `train`, `validation` and `test`.
    """

    schema: Schema
    rows: tuple[Rows, Rows, Rows]
    constant: tuple[str, ...]
    discrete: tuple[str, ...]
    handling: Discrete
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are modelled."""
        return self.schema.names

    @property
    def features(self) -> int:
        """How many those are."""
        return len(self.schema.columns)

    @property
    def context_shape(self) -> int | None:
        """That a flow needs: of the given columns, and of cells that may be missing."""
        return self.schema.context_shape

    @cached_property
    def train(self) -> np.ndarray:
        """Numbers to fit a flow on by hand, (N, D), float32: y of `Schema.spread`.

        The noise in columns that are on a grid was drawn once.

        Raises:
          ValueError: some cells are missing, or columns are given.
        """
        return self._once(0)

    @cached_property
    def validation(self) -> np.ndarray:
        """The same to choose by, (M, D)."""
        return self._once(1)

    @cached_property
    def test(self) -> np.ndarray:
        """The same to report on, (K, D)."""
        return self._once(2)

    def _once(self, part: int) -> np.ndarray:
        if self.context_shape is not None:
            raise ValueError("cells are missing or columns given: use jflow.fit(flow, table)")
        values = jnp.asarray(self.rows[part].values)
        key = jax.random.fold_in(jax.random.key(self.seed), part)
        return np.asarray(jax.jit(self.schema.spread)(values, key)[0])

    def __str__(self) -> str:
        counts = [len(part.values) for part in self.rows]
        lines = ["{} rows to fit on, {} to choose by, {} to report on".format(*counts)]
        lines += [f"{c.name}: {c}" for c in self.schema.columns]
        lines += [f"{c.name}: {c}, given" for c in self.schema.given]
        lines += [f"{name}: constant, left out" for name in self.constant]
        if self.handling == "drop":
            lines += [f"{name}: discrete, left out" for name in self.discrete]
        return "\n".join(lines)


def table(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    given: Sequence[str] = (),
    conditionals: bool | None = None,
    validation: float = 0.1,
    test: float | ArrayLike = 0.1,
    seed: int = 0,
    names: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    discrete: Discrete = "dequantize",
    repeats: float = 0.2,
    bend: bool = True,
) -> Table:
    """A table of numbers, words, dates and angles, split and told for density estimation.

    The kind of each column is found from its cells, or declared:

    - "real": any number. Those with values far beyond the rest (50 interquartile ranges from the
      median) are seen through arcsinh; positive and skewed ones by their logarithm, as "positive".
    - "positive", "bounded(low, high)": through a logarithm or a logit; nothing is outside.
    - "circular(period)", "angle" (2 pi): cut where cells are fewest; 0 follows the period.
    - "integer", "boolean", "category" (words, the most frequent first), "date".

    A column is on a grid if it is of integers, words or truths, of dates without hours, or if more
    than a share of `repeats` of its rows repeat the value of another: there a density could grow
    without bound. Uniform noise in cells of the smallest distance of two values makes it
    continuous, anew at each step; the density is then a bound, and says so. (Numbers from 2^52 on,
    in float32 2^23, are all integers, which says nothing.)

    The split is fixed by `seed`: a permutation of NumPy's default generator, of which the first
    rows train, the next validate and the last test.

    Args:
      source: (N, D); names with columns (N,), as a dict or a data frame of pandas, polars or
        pyarrow; or the path of a .csv, .tsv, .npy or .parquet file, or of a compressed .csv.gz. The
        first line of a CSV file is a header unless all its cells are numbers, other than 0, 1, 2...
      columns: kinds by name, where they are not to be found.
      given: names of columns that the density is conditional on.
      conditionals: whether the flow also learns all columns given any others, so that cells may be
        missing, and be imputed. None: if some are missing.
      validation: the share of validation rows: of all rows, or of those that `test` leaves.
      test: the share of test rows; or a mask (N,) of booleans, where true is a test row.
      seed: for the split and the noise.
      names: of the columns, where the source has none; by default x0, x1, ...
      ignore: names of columns to leave out, such as labels.
      discrete: what to do with columns that look discrete and are not declared: "dequantize" them,
        "drop" them, or "keep" numbers as they are.
      repeats: the share of repeating rows above which a column looks discrete.
      bend: whether logarithms and arcsinh are found.

    Raises:
      FileNotFoundError: no such file.
      ImportError: pyarrow is not installed, and the file is Parquet.
      TypeError: a cell that cannot be read; row, column and cell are named.
      ValueError: an unknown suffix; columns of unequal length or name; infinities; words that are
        names and not categories; too few rows; shares that do not fit; no column left.
    """
    _check_options(discrete, repeats)
    names, arrays = _named(source, names)
    declared = dict(columns or {})
    cells = _cells(names, arrays, ignore, {"columns": declared, "given": given})
    count = len(next(iter(cells.values())).found)
    parts = split_rows(count, validation, test, np.random.default_rng(seed))
    same = [n for n, c in cells.items() if _is_constant(c, parts[0])]
    looks = [n for n, c in cells.items() if n not in same and _is_discrete(c, repeats)]
    out = {*same, *(n for n in looks if discrete == "drop" and n not in {*declared, *given})}
    _check_left(list(cells), same, looks, out, given)
    grids = {n for n in looks if _gridded(cells[n], discrete, declared)}
    found = {n: find_column(c, declared.get(n), parts[0], n in grids, bend=bend)
             for n, c in cells.items() if n not in out}  # fmt: skip
    if conditionals is None:
        conditionals = any(cells[n].missing.any() for n in found if n not in given)
    schema = Schema(
        tuple(c for n, c in found.items() if n not in given),
        tuple(c for n, c in found.items() if n in given), conditionals,
        tuple((n, cells[n].known, _one(cells[n], parts[0])) for n in same),
        tuple(n for n in names if n in cells), kind_of_frame(source),
    )  # fmt: skip
    rows = schema.encode({n: a for n, a in zip(names, arrays, strict=True) if n in found})
    each = (rows.take(parts[0]), rows.take(parts[1]), rows.take(parts[2]))
    return Table(schema, each, tuple(same), tuple(looks), discrete, seed)


def _check_left(
    names: list[str], same: list[str], looks: list[str], out: set[str], given: Sequence[str]
) -> None:
    if constant := sorted(set(given) & set(same)):
        raise ValueError(f"given columns {constant} are constant; leave them out of given")
    if not set(names) - out - set(given):
        dropped = out != set(same)
        raise ValueError(
            f"table: no column is left: {same} are constant and {looks} look discrete"
            + ("; for these, try discrete='dequantize'" if dropped else "")
        )


def _gridded(cells: Cells, discrete: str, declared: Mapping[str, str]) -> bool:
    """Whether noise is to be added to cells that look discrete."""
    return discrete != "keep" or cells.known == "text" or cells.name in declared


def _check_options(discrete: str, repeats: float) -> None:
    if discrete not in get_args(Discrete):
        raise ValueError(f"discrete must be one of {list(get_args(Discrete))}; got {discrete!r}")
    if not 0 < repeats <= 1:
        raise ValueError(f"repeats must be a share in (0, 1]; got {repeats}")


def _one(cells: Cells, train: np.ndarray) -> Any:
    """The first training cell that there is, as JSON can hold it; None if there is none."""
    there = cells.found[train][~cells.missing[train]].tolist()
    return there[0] if there else None


def _is_constant(cells: Cells, train: np.ndarray) -> bool:
    """Whether the cells of the training rows are one value, or vary by no more than rounding."""
    some = cells.found[train][~cells.missing[train]]
    if not len(some):
        return True
    if cells.known == "text":
        return len(set(some.tolist())) == 1
    if not np.isfinite(some).all():
        return False
    return bool(np.ptp(some) <= 8 * np.finfo(np.float64).eps * np.abs(some).max())


def _is_discrete(cells: Cells, repeats: float) -> bool:
    if cells.known in ("text", "boolean", "integer"):
        return True
    return looks_discrete(cells.found[~cells.missing], cells.wide, repeats)


def _cells(
    names: list[str], arrays: list[np.ndarray], ignore: Sequence[str],
    asked: Mapping[str, Any],
) -> dict[str, Cells]:  # fmt: skip
    """The cells of the columns but the ignored ones."""
    for what, some in {"ignore": ignore, **asked}.items():
        if isinstance(some, str):
            raise ValueError(f"{what} must be a list of names; got {some!r}")
        if unknown := sorted(set(some) - set(names)):
            raise ValueError(f"{what} must name columns of the table; {unknown} are not in {names}")
    kept = {n: c for n, c in zip(names, arrays, strict=True) if n not in set(ignore)}
    shapes = {name: column.shape for name, column in kept.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"table: columns must have one and the same shape (N,); got {shapes}")
    rows = max((len(column) for column in kept.values()), default=0)
    if rows < 4:
        raise ValueError(
            f"table: {rows} rows of {len(kept)} columns; a table needs 4 rows or more, to "
            "train on, validate and test"
        )
    return read_all(kept, asked["columns"])


def _named(source: Any, given: Sequence[str] | None) -> tuple[list[str], list[np.ndarray]]:
    """The columns of any source, and a name for each."""
    named = named_columns(source)
    if named is not None:
        names, columns = named
    elif isinstance(source, str | os.PathLike):
        names, columns = read(Path(source).expanduser())
    else:
        names, columns = None, columns_of("source", np.ma.asanyarray(source))
    if names is not None and given is not None:
        raise ValueError(f"names must be None for a source that has names; it has {names}")
    names = list(names or given or (f"x{d}" for d in range(len(columns))))
    if len(names) != len(columns):
        raise ValueError(f"table: {len(names)} names {names} for {len(columns)} columns")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"table: column names {twice} occur more than once; rename them")
    return names, columns
