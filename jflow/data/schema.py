"""Columns of a table as a flow sees them: cells to numbers on the line, and back.

A cell x becomes t = (x - offset) / unit on the host, and on the device, where noise is drawn,

    v = t + u step / unit,    y = (curve(v) - center) / scale,    u uniform on [0, 1)

so that log p(x) = log p(y) + log|dy/dx| for a continuous column, and for one of a grid (integers,
categories, rounded numbers) log P(x) >= E_u log p(y) + log|dy/dx| + log(step), of which the last is
left out: log_prob is that of a density, and of a probability where steps are 1 (Theis et al., 2016,
https://arxiv.org/abs/1511.01844).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.data.column import Column
from jflow.data.columns import named_columns
from jflow.data.frames import as_columns

# How near v may come to the ends of an interval: numbers at its ends are there, too.
_EDGE = 1e-6
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


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

    @cached_property
    def _numbers(self) -> dict[str, np.ndarray]:
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
        return np.asarray(Schema(self.given).channels(jnp.asarray(values, jnp.float32)))

    def _check_whole(self, values: np.ndarray) -> None:
        if np.isnan(values).any():
            row, d = np.argwhere(np.isnan(values))[0]
            raise ValueError(
                f"column {self.columns[d].name!r}, row {row}: the cell is missing; build the table "
                "with conditionals=True, or give all cells"
            )

    def spread(self, t: Array, key: Array) -> tuple[Array, Array]:
        """y and log|dy/dx| of t, (..., D) each, with new noise in the cells of grids."""
        noise = jax.random.uniform(key, t.shape, t.dtype)
        return self._curved(t + self._like(t)["width"] * noise)

    def _like(self, t: Array) -> dict[str, Array]:
        """The numbers of each column, in the shape of t."""
        dtypes = {name: bool if v.dtype == bool else t.dtype for name, v in self._numbers.items()}
        return {
            name: jnp.broadcast_to(value.astype(dtypes[name]), t.shape)
            for name, value in self._numbers.items()
        }

    def _curved(self, v: Array) -> tuple[Array, Array]:
        number = self._like(v)
        inside = jnp.clip(jnp.where(number["logit"], v, 0.5), _EDGE, 1 - _EDGE)
        above = jnp.where(number["log"], v, 1.0)
        bent = jnp.where(number["asinh"], v, 0.0)
        y = jnp.where(number["logit"], jnp.log(inside) - jnp.log1p(-inside), v)
        y = jnp.where(number["log"], jnp.log(above), y)
        y = jnp.where(number["asinh"], jnp.arcsinh(bent), y)
        log_det = (
            -jnp.log(inside) - jnp.log1p(-inside) - jnp.where(number["logit"], 0, 2 * math.log(2))
        )
        log_det -= jnp.log(above) + jnp.log(jnp.hypot(1.0, bent)) + number["log_unit"]
        return (y - number["center"]) / number["scale"], log_det

    def gather(self, y: Array) -> Array:
        """v of y: where the curve came from, (..., D)."""
        number = self._like(y)
        f = y * number["scale"] + number["center"]
        v = jnp.where(number["logit"], jax.nn.sigmoid(f), f)
        v = jnp.where(number["log"], jnp.exp(jnp.where(number["log"], f, 0)), v)
        return jnp.where(number["asinh"], jnp.sinh(jnp.where(number["asinh"], f, 0)), v)

    def seen(
        self, values: Array, given: Array | None, asked: Array, key: Array
    ) -> tuple[Array, Array | None, Array]:
        """What a flow is given of rows: y (..., D), the context, and log|dy/dx| (...).

        A cell is asked for, or it is known, and told by the context, or it is missing. Where it is
        not asked for, y is noise e, N(0, 1), and -log N(e) is in log|dy/dx|: since noise has
        nothing to do with the rest, E log p(y) - log N(e) is at most log p of what is asked for.

        Args:
          values: t, NaN where a cell is missing.
          given: what tells the given columns; None if there are none.
          asked: which cells are asked for, (..., D); where they are missing, they are not.
          key: for noise.
        """
        first, second = jax.random.split(key)
        missing = jnp.isnan(values)
        whole = jnp.where(missing, 0.5, values)
        y, log_det = self.spread(whole, first)
        if not self.conditionals:
            return y, given, log_det.sum(-1)
        asked = asked & ~missing
        noise = jax.random.normal(second, y.shape, y.dtype)
        y = jnp.where(asked, y, noise)
        log_det = jnp.where(asked, log_det, noise**2 / 2 + _HALF_LOG_2PI)
        return y, self.context(values, given, asked), log_det.sum(-1)

    def context(self, values: Array, given: Array | None, asked: Array) -> Array | None:
        """What tells a flow the given columns and, of others, the cells that are known."""
        if not self.conditionals:
            return given
        missing = jnp.isnan(values)
        known = ~missing & ~asked
        of_channel = np.repeat(np.arange(len(self.columns)), [c.channels for c in self.columns])
        channels = jnp.where(
            known[..., of_channel], self.channels(jnp.where(missing, 0.5, values)), 0
        )
        flags = [known.astype(values.dtype), (missing & ~asked).astype(values.dtype)]
        return jnp.concatenate([*([] if given is None else [given]), channels, *flags], -1)

    def channels(self, t: Array) -> Array:
        """What tells cells to a network, (..., C): categories one by one, angles as points."""
        middle, parts = t + self._like(t)["width"] / 2, []
        y, _ = self._curved(middle)
        for d, column in enumerate(self.columns):
            if count := len(column.categories):
                place = jnp.round(t[..., d] * count).astype(int)
                parts.append(jax.nn.one_hot(place, count, dtype=t.dtype))
            elif column.kind == "circular":
                angle = 2 * jnp.pi * middle[..., d]
                parts.append(jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1))
            else:
                parts.append(y[..., d : d + 1])
        return jnp.concatenate(parts, -1)
