"""What the page on the density of a table holds."""

from typing import Any

import jax
import numpy as np

import jflow
from jflow.data import Table, TableDensity
from jflow.data.anomalies import fingerprints
from jflow.data.schema import Rows
from jflow.report import checks, figures
from jflow.report.course import of_course
from jflow.report.evidence import Evidence, digest

DATA, KEPT, TEMPLATE = Table, Evidence, "table.html"
# Columns whose marginals are drawn, columns of the table of the strangest rows, and how many those.
_DRAWN, _SHOWN, _WORST = 12, 10, 10
# Generated rows.
_MANY = 5_000
_SURE = 0.01


def check(density: TableDensity, evidence: Evidence) -> None:
    """Refuses evidence of something else.

    Raises:
      ValueError: it is of another table.
    """
    if not isinstance(evidence, Evidence) or evidence.schema != digest(density.schema):
        raise ValueError("evidence must be of the table that the density was fitted to")


def findings(density: TableDensity, evidence: Evidence, seed: int) -> dict[str, Any]:
    """What the template is given."""
    schema, (train, validation, test) = density.schema, evidence.parts
    many = checks.generated(density, test.take(np.arange(_MANY) % len(test.values)), seed)
    pair = checks.two_sample(test.values, many[: len(test.values)])
    calibration = checks.p_values_of(density, validation)
    ranks = checks.ranks(density, test, seed + 1)
    likelihoods = checks.likelihoods(density, evidence.parts)
    recipe = density.density.flow.recipe
    found = {
        "version": jflow.__version__, "evidence": evidence, "schema": schema,
        "flow": recipe.name if recipe else "of its own",
        "parameters": sum(a.size for a in jax.tree.leaves(density.density.variables["params"])),
        "columns": [_column(schema, train, d) for d in range(len(schema.columns))],
        "course": figures.course(evidence.history, evidence.best_step),
        "likelihoods": likelihoods,
        "marginals": [figures.marginal(c, test.values[:, d], many[:, d])
                      for d, c in enumerate(schema.columns[:_DRAWN])],
        "unseen": [column.name for column in schema.columns[_DRAWN:]],
        "pairs": figures.pairs(schema.columns, test.values, many),
        "pair": pair,
        "calibration": calibration,
        "p_values": calibration and figures.uniform(calibration, "p-value", "p-values"),
        "ranks": ranks,
        "rank_pictures": [figures.uniform(each, name, f"places of {name} among its draws")
                          for name, each in list(ranks.items())[:_DRAWN]],
        "worst": _worst(density, test),
    }  # fmt: skip
    return found | {"warnings": _warnings(density, evidence, found)}


def _column(schema: Any, train: Rows, d: int) -> dict[str, Any]:
    column, t = schema.columns[d], train.values[:, d]
    there = t[np.isfinite(t)]
    cells = column.decode(there + 0.5 * column.step / column.unit)
    if column.categories or column.kind == "boolean":
        names, counts = np.unique(cells.astype(str), return_counts=True)
        order = np.argsort(-counts)[:3]
        told = ", ".join(f"{names[i]} {counts[i] / len(there):.0%}" for i in order)
    elif len(there):
        # Dates are ordered, but have no median of their own.
        low, middle, high = (_cell(np.sort(cells)[i]) for i in (0, len(cells) // 2, -1))
        told = f"{low} to {high}, median {middle}"
    else:
        told = ""
    return {
        "name": column.name,
        "kind": str(column),
        "missing": float(np.isnan(t).mean()),
        "told": told,
    }


def _cell(cell: Any) -> str:
    if isinstance(cell, float | np.floating):
        return "" if np.isnan(cell) else f"{cell:.5g}"
    if isinstance(cell, np.datetime64):
        return str(cell.astype("datetime64[s]")).removesuffix("T00:00:00")
    return "" if cell is None else str(cell)


def _worst(density: TableDensity, test: Rows) -> dict[str, Any]:
    """The test rows of the lowest log p, and which of their cells surprises most."""
    schema, log_p = density.schema, density.log_prob_of(test)
    index = np.argsort(log_p)[:_WORST]
    rows = test.take(index)
    surprise = checks.surprises(density, rows)
    columns = schema.columns[:_SHOWN]
    cells = [[_cell(c) for c in column.decode(rows.values[:, d] + 0.5 * column.step / column.unit)]
             for d, column in enumerate(columns)]  # fmt: skip
    names = list(surprise)
    each = np.stack(list(surprise.values()), axis=1)
    return {
        "names": [column.name for column in columns],
        "rows": [
            {"log_p": float(log_p[i]), "cells": [c[n] for c in cells],
             "most": names[int(each[n].argmax())], "nats": float(each[n].max())}
            for n, i in enumerate(index)
        ],
    }  # fmt: skip


def _warnings(density: TableDensity, evidence: Evidence, found: dict[str, Any]) -> list[str]:
    said = of_course(evidence, "nll", "nats")
    if (count := evidence.counts[2]) < 100:
        said.append(f"There are {count} test rows: all figures that rest on them are uncertain.")
    train, _, test = evidence.parts
    shared = float(np.isin(fingerprints(test), fingerprints(train)).mean())
    if shared > 0.01:
        said.append(f"{shared:.0%} of the test rows are among the training rows, too.")
    if evidence.constant:
        said.append(f"Left out, since they have one value: {', '.join(evidence.constant)}.")
    for name, (gain, error) in (found["likelihoods"].gains if found["likelihoods"] else {}).items():
        if gain < -error:
            said.append(f"The {name} fits the test rows better, by {-gain:.2f} nats a row.")
    if found["pair"] and found["pair"].accuracy > 0.75:
        said.append("Generated rows are easily told from real ones.")
    if density.calibration is None:
        said.append("The density is not calibrated: there are no p-values.")
    uneven = [name for name, each in found["ranks"].items() if each.p_value < _SURE]
    if uneven:
        said.append(f"Conditional draws are not calibrated for: {', '.join(uneven)}.")
    if found["calibration"] and found["calibration"].p_value < _SURE:
        said.append("p-values of validation rows are not uniform.")
    return said
