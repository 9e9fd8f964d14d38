"""What a table's schema is, as its cells tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jflow.data.columns import vary
from jflow.data.find import Cells, find_column, looks_discrete
from jflow.data.schema import Schema


def find_schema(
    cells: Mapping[str, Cells],
    train: np.ndarray,
    declared: Mapping[str, str],
    given: Sequence[str] = (),
    conditionals: bool | None = None,
    *,
    discrete: str = "dequantize",
    repeats: float = 0.2,
    bend: bool = True,
    anywhere: bool = False,
) -> tuple[Schema, tuple[str, ...]]:
    """The schema, and the names of columns that look discrete.

    Args:
      cells: by column, of all rows.
      train: the rows that units are taken from.
      declared: kinds by name.
      given: see `table`; so are the others.
      conditionals: as well.
      discrete: as well.
      repeats: as well.
      bend: as well.
      anywhere: whether numbers that no training row could have, such as those below zero where
        all are positive, are told, too; those of given columns are.

    Raises:
      ValueError: no column is left; given columns that are constant.
    """
    same = [n for n, c in cells.items() if _is_constant(c, train)]
    looks = [n for n, c in cells.items() if n not in same and _is_discrete(c, repeats)]
    out = {*same, *(n for n in looks if discrete == "drop" and n not in {*declared, *given})}
    _check_left(list(cells), same, looks, out, given)
    grids = {n for n in looks if _gridded(cells[n], discrete, declared)}
    found = {}
    for n in (n for n in cells if n not in out):
        free = n in given and n not in declared  # no number that is given is an error
        gridded = n in grids and not (free and cells[n].known in ("integer", "real"))
        found[n] = find_column(
            cells[n], declared.get(n), train, gridded, bend=bend, anywhere=anywhere or free
        )
    if conditionals is None:
        conditionals = any(cells[n].missing.any() for n in found if n not in given)
    schema = Schema(
        tuple(c for n, c in found.items() if n not in given),
        tuple(c for n, c in found.items() if n in given), conditionals,
        tuple((n, cells[n].known, _one(cells[n], train)) for n in same), tuple(cells),
    )  # fmt: skip
    return schema, tuple(looks)


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
    return not vary(some)


def _is_discrete(cells: Cells, repeats: float) -> bool:
    if cells.known in ("text", "boolean", "integer"):
        return True
    return looks_discrete(cells.found[~cells.missing], cells.wide, repeats)
