"""The columns of a table: from raw cells to numbers, on the host; `told` goes on from there."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jflow.data.cells import as_kind
from jflow.data.column import Column
from jflow.data.columns import named_columns
from jflow.data.frames import as_columns
from jflow.data.parts import in_parts
from jflow.data.told import CIRCLE, NUMBER, Layout, channels

# Rows whose given columns are told in one call.
_AT_ONCE = 4096


class Rows(NamedTuple):
    """Rows of a table as `Schema.encode` gives them.

    Attributes:
      values: t of the columns that are modelled, (N, D), float32; NaN where a cell is missing.
      given: what tells the columns that are given to a network, (N, C); None if there are none.
      log_det: (N,), float64: 0, or -inf where a cell is outside the support.
    """

    values: np.ndarray
    given: np.ndarray | None
    log_det: np.ndarray

    def take(self, index: np.ndarray) -> "Rows":
        """Some of them."""
        return Rows(*(None if array is None else array[index] for array in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Schema:
    """The columns of a table, and how they are told to a flow.

    Attributes:
      columns: that are modelled.
      given: that the density is conditional on.
      conditionals: whether rows may have missing cells, and any columns be given.
      constants: columns of one value, (name, kind, value), which have no density.
      order: names of all of these, as they came.
      frame: what samples come in: "pandas", "polars", "pyarrow" or "dict".
    """

    columns: tuple[Column, ...]
    given: tuple[Column, ...] = ()
    conditionals: bool = False
    constants: tuple[tuple[str, str, Any], ...] = ()
    order: tuple[str, ...] = ()
    frame: str = "dict"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that are modelled."""
        return tuple(column.name for column in self.columns)

    @property
    def is_bound(self) -> bool:
        """Whether log_prob is a bound: some columns are on a grid, or cells may be missing."""
        return self.conditionals or any(column.step for column in self.columns)

    @property
    def context_shape(self) -> int | None:
        """That a flow of this table needs."""
        size = sum(column.channels for column in self.given)
        if self.conditionals:
            size += sum(column.channels + 2 for column in self.columns)
        return size or None

    @property
    def layout(self) -> Layout:
        """What programs are compiled for."""
        return _layout(self.columns, self.conditionals)

    @cached_property
    def numbers(self) -> dict[str, np.ndarray]:
        """What programs are given: see `told.spread`."""
        of = lambda name: np.asarray([getattr(c, name) for c in self.columns], np.float64)  # noqa: E731
        curves = np.asarray([c.curve for c in self.columns])
        found = {"width": of("step") / of("unit"), "center": of("center"), "scale": of("scale")}
        found["log_unit"] = np.log(of("unit")) + np.log(of("scale"))
        return found | {name: curves == name for name in ("log", "asinh", "logit")}

    def encode(self, raw: Any, *, modelled: bool = True) -> Rows:
        """Rows of raw cells.

        Args:
          raw: a data frame, a dict of columns, or an array (N, D) of all columns in their order.
          modelled: whether the modelled columns are needed; otherwise those that lack are missing.

        Raises:
          TypeError: a cell that cannot be read; row, column and cell are named.
          ValueError: a column lacks, or a cell is missing where none may be.
        """
        cells = self._cells(raw)
        count = len(next(iter(cells.values())))
        lacking = [c.name for c in self.columns if c.name not in cells]
        if (modelled and lacking) or any(c.name not in cells for c in self.given):
            lacking += [c.name for c in self.given if c.name not in cells]
            raise ValueError(f"raw lacks the columns {lacking}; it has {list(cells)}")
        values = np.full((count, len(self.columns)), np.nan)
        log_det = np.zeros(count)
        for d, column in enumerate(self.columns):
            if column.name in cells:
                x = column.numbers(cells[column.name])
                values[:, d], outside = column.encode(x)
                log_det[outside] = -np.inf
        if modelled:
            for constant in self.constants:
                log_det[_differs(cells, *constant)] = -np.inf
        if modelled and not self.conditionals:
            self._check_whole(values)
        return Rows(values.astype(np.float32), self._told(cells, count), log_det)

    def _cells(self, raw: Any) -> dict[str, np.ndarray]:
        named = named_columns(as_columns(raw))
        if named is None:
            array = np.ma.asanyarray(raw)
            if array.ndim != 2 or array.shape[1] != len(self.order):
                raise ValueError(
                    f"raw must be a data frame, a dict of columns, or (N, {len(self.order)}), with "
                    f"the columns {list(self.order)}; got {array.shape}"
                )
            return dict(zip(self.order, array.T, strict=True))
        found = dict(zip(*named, strict=True))
        if len({column.shape for column in found.values()}) != 1:
            shapes = {name: column.shape for name, column in found.items()}
            raise ValueError(f"raw must have columns of one length; got {shapes}")
        return found

    def _told(self, cells: dict[str, np.ndarray], count: int) -> np.ndarray | None:
        """What tells the given columns, (N, C)."""
        if not self.given:
            return None
        values = np.empty((count, len(self.given)))
        for d, column in enumerate(self.given):
            values[:, d], outside = column.encode(column.numbers(cells[column.name]))
            if outside.any():
                row = int(np.flatnonzero(outside)[0])
                raise ValueError(
                    f"given column {column.name!r}, row {row}: {cells[column.name][row]!r} is not "
                    f"among what it was built with ({column.kind})"
                )
        if np.isnan(values).any():
            row, d = np.argwhere(np.isnan(values))[0]
            raise ValueError(
                f"given column {self.given[d].name!r}, row {row}: the cell is missing, and must not"
            )
        own, told = Schema(self.given), []
        for index, end in in_parts(count, _AT_ONCE):
            found = channels(own.layout, own.numbers, jnp.asarray(values[index], jnp.float32))
            told.append(np.asarray(found)[: end - index[0]])
        return np.concatenate(told)

    def _check_whole(self, values: np.ndarray) -> None:
        if np.isnan(values).any():
            row, d = np.argwhere(np.isnan(values))[0]
            raise ValueError(
                f"column {self.columns[d].name!r}, row {row}: the cell is missing; build the table "
                "with conditionals=True, or give all cells"
            )


def _differs(cells: dict[str, np.ndarray], name: str, known: str, value: Any) -> np.ndarray:
    """Which cells of a column that had one value have another; those that are missing have not."""
    if name not in cells or value is None:
        return np.zeros(0, int)
    found = as_kind(name, "category" if known == "text" else known, cells[name])
    if known == "text":
        return np.flatnonzero([cell is not None and cell != str(value) for cell in found])
    return np.flatnonzero(np.abs(found - value) > 16 * np.finfo(np.float64).eps * abs(value))


def _layout(columns: tuple[Column, ...], conditionals: bool) -> Layout:
    kinds = (len(c.categories) or (CIRCLE if c.kind == "circular" else NUMBER) for c in columns)
    return Layout(tuple(kinds), conditionals)
