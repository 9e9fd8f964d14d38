"""Tables of real numbers: from arrays or files to standardised parts, and back to raw units."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from jflow.data.columns import as_numbers, integers_from, named_columns
from jflow.data.table_files import columns_of, read

Discrete = Literal["drop", "keep", "dequantize"]


@dataclass(frozen=True)
class Table:
    """A table in three disjoint parts, standardised by the training rows: y = (raw - mean) / std.

    Attributes:
      train: (N, D), float32, to fit on.
      validation: (M, D), float32, to choose by.
      test: (K, D), float32, to report on.
      columns: names of the D columns that were kept.
      mean: (D,), of the training rows, in raw units.
      std: (D,), of the training rows, in raw units.
      constant: names of the columns that were dropped because they are constant in training.
      discrete: names of the columns that look discrete.
      handling: what was done with those: "drop", "keep" or "dequantize".
      step: (D,), the width of the uniform noise that was added, in raw units; 0 for none.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    columns: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    constant: tuple[str, ...]
    discrete: tuple[str, ...]
    handling: Discrete
    step: np.ndarray

    @property
    def log_det(self) -> float:
        """sum_d log(1 / std_d) in nats: log p(raw) = log p(y) + log_det."""
        return -float(np.sum(np.log(self.std)))

    def standardize(self, raw: Any) -> np.ndarray:
        """(raw - mean) / std, (..., D) to (..., D), float32. Raw values are taken as they are.

        Of a table with names (a dict of columns or a data frame), columns are taken by name,
        whatever their order; others than those of `columns` are passed over.

        Raises:
          ValueError: another number of columns, or one is missing.
        """
        named = named_columns(raw)
        if named is not None:
            found = dict(zip(*named, strict=True))
            if missing := [name for name in self.columns if name not in found]:
                raise ValueError(f"raw lacks the columns {missing}; it has {list(found)}")
            chosen = {name: found[name] for name in self.columns}
            raw = np.stack([as_numbers(name, c) for name, c in chosen.items()], axis=-1)
        raw = self._checked("raw", raw)
        return ((raw - self.mean) / self.std).astype(np.float32)

    def restore(self, y: ArrayLike) -> np.ndarray:
        """std y + mean, (..., D) to (..., D), float64: back to raw units."""
        return self.std * self._checked("y", y) + self.mean

    def _checked(self, name: str, values: ArrayLike) -> np.ndarray:
        values = np.asarray(values, np.float64)
        if values.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"{name} must have shape (..., {len(self.columns)}), with the columns "
                f"{list(self.columns)}; got {values.shape}"
            )
        return values


def table(
    source: Any,
    *,
    validation: float = 0.1,
    test: float | ArrayLike = 0.1,
    seed: int = 0,
    names: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    discrete: Discrete = "drop",
    repeats: float = 0.2,
) -> Table:
    """A table of real numbers, split, cleaned and standardised for density estimation.

    Columns that are constant in the training rows have no density; they are dropped, and named
    in `Table.constant`. A column looks discrete if all its values are integers, or if more than a
    share of `repeats` of the rows repeat the value of another, earlier row: there a density can
    grow without bound, and likelihoods mean nothing. (Numbers from 2^52 on, in float32 2^23, are
    all integers, which says nothing.) "dequantize" adds noise, uniform on [0, step), where step is
    the smallest distance of two values; it is drawn once.

    The split is fixed by `seed`: a permutation of NumPy's default generator, of which the first
    rows train, the next validate and the last test.

    Args:
      source: (N, D); names with columns (N,), as a dict or a data frame of pandas, polars or
        pyarrow; or the path of a .csv, .tsv, .npy or .parquet file, or of a compressed .csv.gz. The
        first line of a CSV file is a header unless all its cells are numbers, other than 0, 1, 2...
      validation: the share of validation rows: of all rows, or of those that `test` leaves.
      test: the share of test rows; or a mask (N,) of booleans, where true is a test row.
      seed: for the split and the noise.
      names: of the columns, where the source has none; by default x0, x1, ...
      ignore: names of columns to leave out, such as labels.
      discrete: what to do with columns that look discrete: "drop", "keep" or "dequantize".
      repeats: the share of repeating rows above which a column looks discrete.

    Raises:
      FileNotFoundError: no such file.
      ImportError: pyarrow is not installed, and the file is Parquet.
      TypeError: a cell that is no number; row, column and cell are named.
      ValueError: an unknown suffix; columns of unequal length or name; NaN or infinities; too few
        rows; shares that do not fit; no column left.
    """
    _check_options(discrete, repeats)
    names, given = _named(source, names)
    columns, wide = _numbers(names, given, ignore)
    values, rng = np.stack(list(columns.values()), axis=-1), np.random.default_rng(seed)
    parts = _split(len(values), validation, test, rng)
    constant = _are_constant(values[parts[0]])
    looks = ~constant & _look_discrete(values, wide, repeats)
    kept = ~constant & ~looks if discrete == "drop" else ~constant
    if not kept.any():
        raise ValueError(
            f"table: no column is left: {list(_pick(columns, constant))} are constant and "
            f"{list(_pick(columns, looks))} look discrete; for these, try discrete='dequantize'"
        )
    step = np.where(looks & (discrete == "dequantize"), _steps(values), 0.0)[kept]
    values = values[:, kept] + step * rng.random((len(values), len(step)))
    mean, std = _mean_and_std(values[parts[0]], _pick(columns, kept))
    return Table(
        *(((values[rows] - mean) / std).astype(np.float32) for rows in parts),
        columns=_pick(columns, kept),
        mean=mean,
        std=std,
        constant=_pick(columns, constant),
        discrete=_pick(columns, looks),
        handling=discrete,
        step=step,
    )


def _check_options(discrete: str, repeats: float) -> None:
    if discrete not in get_args(Discrete):
        raise ValueError(f"discrete must be one of {list(get_args(Discrete))}; got {discrete!r}")
    if not 0 < repeats <= 1:
        raise ValueError(f"repeats must be a share in (0, 1]; got {repeats}")


def _pick(names: Iterable[str], chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen)


def _are_constant(values: np.ndarray) -> np.ndarray:
    """Which columns do not vary, or by no more than rounding, (D,)."""
    return np.ptp(values, axis=0) <= 8 * np.finfo(np.float64).eps * np.abs(values).max(axis=0)


def _look_discrete(values: np.ndarray, wide: np.ndarray, repeats: float) -> np.ndarray:
    """Which columns hold only integers, or repeat themselves in too many rows, (D,).

    `wide` is, for each column, from where on all numbers of its dtype are integers.
    """
    distinct = np.asarray([len(np.unique(column)) for column in values.T])
    could_differ = np.abs(values) < wide
    whole = (values == np.round(values)) | ~could_differ
    return (whole.all(axis=0) & could_differ.any(axis=0)) | (1 - distinct / len(values) > repeats)


def _mean_and_std(values: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Those of the columns, also of numbers whose squares are 0 or infinite.

    Raises:
      ValueError: a standard deviation is 0, where numbers are among the smallest that there are.
    """
    mean = values.mean(axis=0)
    largest = np.abs(values - mean).max(axis=0)
    shares = (values - mean) / np.where(largest, largest, 1)
    std = largest * np.sqrt(np.mean(np.square(shares), axis=0))
    if not (std > 0).all():
        few = list(_pick(names, std == 0))
        raise ValueError(f"table: columns {few} vary too little for float64; change their units")
    return mean, std


def _steps(values: np.ndarray) -> np.ndarray:
    """The smallest distance of two values in each column, 0 in one of equal values, (D,)."""
    gaps = [np.diff(np.unique(column)) for column in values.T]
    return np.asarray([gap.min() if gap.size else 0.0 for gap in gaps])


def _split(
    count: int, validation: float, test: float | ArrayLike, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows to train on, to validate on and to test on."""
    mask, held = np.asarray(test), _share("validation", validation)
    if mask.ndim == 0:
        order, last = rng.permutation(count), max(1, round(_share("test", test) * count))
        rest, tested = order[: count - last], order[count - last :]
        held = max(1, round(held * count))
    elif mask.dtype == bool and mask.shape == (count,) and mask.any():
        rest, tested = rng.permutation(np.flatnonzero(~mask)), np.flatnonzero(mask)
        held = max(1, round(held * len(rest)))
    else:
        raise ValueError(
            f"test must be a share, or a mask of {count} booleans, some of them true; got "
            f"{mask.dtype} {mask.shape}, with {np.count_nonzero(mask)} true"
        )
    if len(rest) - held < 2:
        raise ValueError(
            f"validation and test must leave 2 or more of {count} rows to train on; they take "
            f"{held} and {len(tested)}"
        )
    return rest[:-held], rest[-held:], tested


def _share(name: str, share: ArrayLike) -> float:
    number = np.asarray(share)
    if number.ndim or number.dtype.kind not in "iuf" or not 0 < number < 1:
        raise ValueError(f"{name} must be a share in (0, 1); got {share}")
    return float(number)


def _numbers(
    names: list[str], columns: list[np.ndarray], ignore: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns but the ignored ones, checked, in float64.

    And, for each, from where on all numbers of the dtype that it had are integers.
    """
    unknown = sorted(set(ignore) - set(names))
    if unknown:
        raise ValueError(f"ignore must name columns of the table; {unknown} are not in {names}")
    given = {n: c for n, c in zip(names, columns, strict=True) if n not in set(ignore)}
    found = {name: as_numbers(name, column) for name, column in given.items()}
    lengths = {name: column.shape for name, column in found.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise ValueError(f"table: columns must have one and the same shape (N,); got {lengths}")
    rows = max((len(column) for column in found.values()), default=0)
    if rows < 4:
        raise ValueError(
            f"table: {rows} rows of {len(found)} columns; a table needs 4 rows or more, to train "
            "on, validate and test"
        )
    bad = {name: ~np.isfinite(column) for name, column in found.items()}
    where = [name for name, flags in bad.items() if flags.any()]
    if where:
        count = np.count_nonzero(np.any([bad[name] for name in where], axis=0))
        raise ValueError(
            f"table: columns {where} hold NaN or infinities, in {count} of {rows} rows; leave out "
            "those rows, or fill them in"
        )
    wide = [integers_from(column.dtype) for column in given.values()]
    return {name: column.astype(np.float64) for name, column in found.items()}, np.asarray(wide)


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
