"""The density of the raw columns of a table."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from jflow.data import anomalies, table_saving
from jflow.data.calibrated import Calibrated
from jflow.data.column import constant
from jflow.data.columns import named_columns
from jflow.data.frames import as_columns, as_frame
from jflow.data.imputing import middle, with_cells
from jflow.data.parts import in_parts
from jflow.data.schema import Rows, Schema
from jflow.data.told import Layout, Numbers, gather, seen
from jflow.data.told import context as context_of
from jflow.distributions import Density
from jflow.functional.arguments import as_key, check_counts

# Draws of noise where log_prob is a bound; draws that filled cells are the median of; rows at once.
_DRAWS, _FILLS, _AT_ONCE = 16, 64, 4096
# Columns that are named in a line.
_NAMED = 6


@dataclass(frozen=True, eq=False, repr=False)
class TableDensity(Calibrated):
    """The density of a table's raw columns, in their units: what `fit(flow, table)` gives.

    Where some columns are on a grid (integers, categories, rounded numbers) or cells are missing,
    `log_prob` is a bound: log of the mean of p over draws of noise, which tends to log p from
    below with their number (Burda et al., 2016, https://arxiv.org/abs/1509.00519).

    Attributes:
      schema: how columns are read, and told to the flow.
      density: of what the flow sees.
      calibration: (n,), log_prob of held-out rows, sorted; None if it is not calibrated.
      trained: fingerprints of the rows that it was fitted on.
    """

    schema: Schema
    density: Density
    calibration: np.ndarray | None = None
    trained: np.ndarray | None = None

    def log_prob(
        self,
        raw: Any,
        *,
        given: Sequence[str] | None = None,
        draws: int | None = None,
        key: Array | int = 0,
        batch_size: int = 4096,
    ) -> np.ndarray:
        """log p of rows in raw units, nats, (N,), float64; -inf outside the support.

        Of columns on a grid of steps other than 1, the density of the mass in a step. Cells that
        are missing are left out: it is log p of the others.

        Args:
          raw: a data frame or a dict of columns, taken by name; or an array of all columns.
          given: names of columns, to have log p of the others given these; for tables built with
            `conditionals`.
          draws: of noise; None for 16 where log_prob is a bound.
          key: for noise; the same key gives the same log_prob.
          batch_size: rows at a time; memory does not grow with their number.

        Raises:
          TypeError: a cell that cannot be read; row, column and cell are named.
          ValueError: a column lacks, a cell is missing where none may be, or `given` cannot be.
        """
        asked = self._asked(given)
        return self.log_prob_of(self.schema.encode(raw), asked, draws, key, batch_size)

    def log_prob_of(
        self, rows: Rows, asked: np.ndarray | None = None, draws: int | None = None,
        key: Array | int = 0, batch_size: int = 4096,
    ) -> np.ndarray:  # fmt: skip
        """The same of encoded rows; `asked` is (D,) or (N, D), None for all cells."""
        count, width = rows.values.shape
        draws = draws or (_DRAWS if self.schema.is_bound else 1)
        check_counts("log_prob", draws=draws, batch_size=batch_size)
        asked = np.broadcast_to(True if asked is None else asked, (count, width))
        first, second = jax.random.split(as_key("log_prob", key))
        noise = second if self.density.flow.bijector.needs_key("inverse") else None
        places, found = anomalies.fingerprints(rows).astype(np.uint32), np.empty(count)
        for index, end in in_parts(count, batch_size // draws):
            part = rows.take(index)
            y, context, log_det = _seen(
                self.schema.layout,
                self.schema.numbers,
                part.values,
                part.given,
                asked[index],
                places[index],
                first,
                draws,
            )
            log_p = np.asarray(self.density.log_prob(y, context, key=noise) + log_det, np.float64)
            found[index[0] : end] = (np.logaddexp.reduce(log_p) - np.log(draws))[: end - index[0]]
        return found + rows.log_det

    def _told(self) -> str:
        names = [*self.schema.names[:_NAMED], *(["..."] if len(self.schema.names) > _NAMED else [])]
        return f"{len(self.schema.names)} columns: {', '.join(names)}"

    def _asked(self, given: Sequence[str] | None) -> np.ndarray | None:
        if given is None:
            return None
        self._need_conditionals("given=")
        if unknown := sorted(set(given) - set(self.schema.names)):
            raise ValueError(f"given must name columns among {self.schema.names}; got {unknown}")
        return np.asarray([name not in given for name in self.schema.names])

    def _need_conditionals(self, what: str) -> None:
        if not self.schema.conditionals:
            raise ValueError(
                f"{what} needs a density that knows any columns given any others: fit it to "
                "data.table(..., conditionals=True)"
            )

    def sample(self, count: int, given: Any = None, *, key: Array | int = 0) -> Any:
        """Rows in the frame and the types of the table.

        Args:
          count: how many.
          given: the given columns of one row, or of `count`, as a frame or a dict, for a table
            with such.
          key: a JAX random key or a whole number.

        Raises:
          ValueError: `given` lacks, or has another number of rows.
        """
        check_counts("sample", count=count)
        values = np.full((count, len(self.schema.columns)), np.nan, np.float32)
        told, columns = None, {}
        if self.schema.given:
            if given is None:
                names = [column.name for column in self.schema.given]
                raise ValueError(f"sample needs the given columns {names}: sample(count, given)")
            named = named_columns(as_columns(given))
            columns = dict(zip(*named, strict=True)) if named else {}
            told = self.schema.encode(as_columns(given), modelled=False).given
            if told is not None and len(told) not in (1, count):
                raise ValueError(f"given must have 1 row or {count}; it has {len(told)}")
            told = np.broadcast_to(told, (count, *told.shape[1:]))  # type: ignore[union-attr]
            columns = {n: np.broadcast_to(np.asarray(c), (count,)) for n, c in columns.items()}
        elif given is not None:
            raise ValueError("given: no columns of this table are given; see data.table(given=)")
        v = self.draw_missing(values, told, as_key("sample", key))
        return as_frame(self.schema.frame, self._cells(v, columns))

    def draw_missing(self, values: np.ndarray, given: np.ndarray | None, key: Array) -> np.ndarray:
        """v of the cells that are missing from rows, given the others; (N, D)."""
        found = np.empty(values.shape)
        for index, end in in_parts(len(values), _AT_ONCE):
            some, told = values[index], None if given is None else given[index]
            schema = self.schema
            context = context_of(schema.layout, schema.numbers, some, told, np.isnan(some))
            y = self.density.sample(jax.random.fold_in(key, index[0]), len(index), context)
            found[index[0] : end] = np.asarray(gather(self.schema.numbers, y))[: end - index[0]]
        return found

    def _cells(self, v: np.ndarray, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Cells of v, (N, D), of all columns in their order; of those not modelled, as known."""
        found = {c.name: c.decode(v[:, d]) for d, c in enumerate(self.schema.columns)}
        found |= {c.name: known[c.name] for c in self.schema.given}
        found |= {n: constant(known, value, len(v)) for n, known, value in self.schema.constants}
        return {name: found[name] for name in self.schema.order if name in found}

    def impute(self, raw: Any, *, samples: int | None = None, key: Array | int = 0) -> Any:
        """The rows with their missing cells drawn from p(missing | present).

        Rows with a cell outside the support, such as a word never seen, stay as they are.

        Args:
          raw: a data frame or a dict of columns.
          samples: None for one frame, in which each missing cell has the median of 64 draws, or
            the most frequent category; otherwise a list of so many frames, each one draw of all
            missing cells together: how they differ is how uncertain they are.
          key: a JAX random key or a whole number.

        Raises:
          ValueError: the table was built without `conditionals`, or a column lacks.
        """
        self._need_conditionals("impute")
        check_counts("impute", samples=1 if samples is None else samples)
        rows = self.schema.encode(raw)
        keys = jax.random.split(as_key("impute", key), samples or _FILLS)
        missing = np.isnan(rows.values)
        holed = np.flatnonzero(missing.any(axis=1) & np.isfinite(rows.log_det))
        some = rows.take(holed)
        drawn = [self.draw_missing(some.values, some.given, k) for k in keys]
        frames = drawn if samples else [middle(self.schema, np.stack(drawn))]
        filled = []
        for v in frames:
            cells = {c.name: (c.decode(v[:, d]), missing[holed, d])
                     for d, c in enumerate(self.schema.columns)}  # fmt: skip
            filled.append(with_cells(raw, holed, cells, self.schema.order))
        return filled if samples else filled[0]

    def calibrate(self, held_out: Any, *, key: Array | int = 0) -> "TableDensity":
        """This density with p-values that refer to rows it was not fitted on.

        `fit(flow, table)` has done this already, by the table's test rows.

        Args:
          held_out: rows of the same law, that neither fitted nor chose it: raw, or `Rows`.
          key: for noise.

        Raises:
          ValueError: rows that it was fitted on are among them, or there are fewer than 20.
        """
        rows = held_out if isinstance(held_out, Rows) else self.schema.encode(held_out)
        anomalies.check_held_out(self.schema, rows, self.trained)
        return replace(self, calibration=anomalies.as_calibration(self.log_prob_of(rows, key=key)))

    def score(self, raw: Any, *, key: Array | int = 0) -> np.ndarray:
        """`log_prob`."""
        return self.log_prob(raw, key=key)

    def contributions(
        self, raw: Any, *, points: int = 128, key: Array | int = 0
    ) -> dict[str, np.ndarray]:
        """How surprising each cell is, given the others in its row: -log p(x_d | others), nats.

            log p(x_d | others) = log p(x) - log int p(x with x_d = z) dz

        by quadrature over z, quantiles of the density's own law and the cell itself; directly, for
        tables built with `conditionals`. Names to (N,), the columns that are modelled; 0 where a
        cell is missing, infinite in rows that are outside the support.

        Args:
          raw: rows, as for `log_prob`.
          points: of the quadrature.
          key: for noise.
        """
        return anomalies.surprises(
            self, self.schema.encode(raw), points, as_key("contributions", key)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the directory `path`: the density, and the schema in table.json.

        Raises:
          FileExistsError: `path` holds something else.
        """
        table_saving.save(Path(path).expanduser(), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TableDensity":
        """Reads what `save` wrote.

        Raises:
          FileNotFoundError, ValueError: nothing is there, or it is damaged.
        """
        return cls(*table_saving.load(Path(path).expanduser()))


@partial(jax.jit, static_argnums=(0, 7))
def _seen(
    layout: Layout, numbers: Numbers, values: Array, given: Array | None, asked: Array,
    places: Array, key: Array, draws: int,
) -> tuple[Array, Array | None, Array]:  # fmt: skip
    """What the flow is given of rows, (draws, N, ...); the noise of a row depends on it alone."""

    def of_row(values: Array, given: Array | None, asked: Array, place: Array) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, place), draws)
        return jax.vmap(lambda own: seen(layout, numbers, values, given, asked, own))(keys)

    return jax.vmap(of_row, out_axes=1)(values, given, asked, places)
