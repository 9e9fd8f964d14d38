"""Tables of any columns: from arrays, data frames or files to three parts that a flow can fit."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jflow.data.columns import named_columns
from jflow.data.find import Cells, read_all
from jflow.data.find_schema import find_schema
from jflow.data.frames import kind_of_frame
from jflow.data.schema import Rows, Schema
from jflow.data.splits import split_rows
from jflow.data.table_files import columns_of, read
from jflow.data.told import spread
from jflow.functional.arguments import as_weights

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
      weights: of the rows of each part; None for equal ones.
    """

    schema: Schema
    rows: tuple[Rows, Rows, Rows]
    constant: tuple[str, ...]
    discrete: tuple[str, ...]
    handling: Discrete
    seed: int = 0
    weights: tuple[np.ndarray, ...] | None = None

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
        """Numbers to fit a flow on by hand, (N, D), float32: y of `jflow.data.told.spread`.

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
        return np.asarray(jax.jit(spread)(self.schema.numbers, values, key)[0])

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
    weights: ArrayLike | None = None,
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
        pyarrow; or the path of a .csv, .tsv, .npy, .npz or .parquet file, or of a compressed
        .csv.gz. The first line of a CSV file is a header unless all its cells are numbers, other
        than 0, 1, 2...
      columns: kinds by name, where they are not to be found.
      given: names of columns that the density is conditional on.
      conditionals: whether the flow also learns all columns given any others, so that cells may be
        missing, and be imputed. None: if some are missing.
      weights: (N,), of the rows in the mean that is minimised and in validation, zero or more;
        None for equal ones. p-values need a calibration of their own, then.
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
    frame = kind_of_frame(source)
    names, arrays = _named(source, names)
    declared = dict(columns or {})
    cells = _cells(names, arrays, ignore, {"columns": declared, "given": given})
    count = len(next(iter(cells.values())).found)
    parts = split_rows(count, validation, test, np.random.default_rng(seed))
    schema, looks = find_schema(
        cells, parts[0], declared, given, conditionals, discrete=discrete, repeats=repeats,
        bend=bend,
    )  # fmt: skip
    schema = replace(schema, frame=frame)
    modelled = {column.name for column in (*schema.columns, *schema.given)}
    rows = schema.encode({n: a for n, a in zip(names, arrays, strict=True) if n in modelled})
    each = (rows.take(parts[0]), rows.take(parts[1]), rows.take(parts[2]))
    same = tuple(name for name, _, _ in schema.constants)
    own = _in_parts(weights, parts, count)
    return Table(schema, each, same, looks, discrete, seed, own)


def _in_parts(
    weights: ArrayLike | None, parts: tuple[np.ndarray, ...], count: int
) -> tuple[np.ndarray, ...] | None:
    """The weights of the rows of each part."""
    if weights is None:
        return None
    each = as_weights("weights", weights, count)
    return tuple(each[part] for part in parts)


def _check_options(discrete: str, repeats: float) -> None:
    if discrete not in get_args(Discrete):
        raise ValueError(f"discrete must be one of {list(get_args(Discrete))}; got {discrete!r}")
    if not 0 < repeats <= 1:
        raise ValueError(f"repeats must be a share in (0, 1]; got {repeats}")


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
