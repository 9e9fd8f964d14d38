"""The page of a report."""

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from jflow.data import ImageDensity, Splits, Table, TableDensity
from jflow.report import image_page, table_page
from jflow.report.evidence import Evidence, ImageEvidence
from jflow.train import History


def report(
    density: TableDensity | ImageDensity,
    evidence: Evidence | ImageEvidence | tuple[Table | Splits, History],
    out: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
) -> str:
    """What is to be known of a fitted density, as one HTML file that needs no other.

    Of a table it has the columns, the course of training, the likelihood of test rows beside
    baselines, real and generated rows, p-values of validation rows, ranks of cells among draws, a
    classifier two-sample test, the strangest rows, and warnings. Of images, likewise; and the
    training images that are nearest to generated ones, and images between others.

    Args:
      density: what `fit(flow, table)` or `fit(flow, images)` gave.
      evidence: the table or the images, and the history of the fit; or an `Evidence` or
        `ImageEvidence`.
      out: a file to write; None for none.
      seed: of samples.

    Returns:
      The page.

    Raises:
      TypeError, ValueError: the evidence is of other data, or of a fit without a single validation.
    """
    if not isinstance(density, TableDensity | ImageDensity):
        raise TypeError(
            "density must be what fit(flow, table) or fit(flow, data.images(...)) gave; got a "
            f"{type(density).__name__}"
        )
    page_of = image_page if isinstance(density, ImageDensity) else table_page
    if not isinstance(evidence, Evidence | ImageEvidence):
        found = evidence if isinstance(evidence, tuple | list) else (evidence,)
        data, history = found if len(found) == 2 else (None, None)
        if not isinstance(data, page_of.DATA) or not isinstance(history, History):
            raise TypeError(
                f"evidence of such a density must be ({page_of.DATA.__name__}, History), or "
                f"{page_of.KEPT.__name__}; got {', '.join(type(part).__name__ for part in found)}"
            )
        evidence = page_of.KEPT.of(*found)  # type: ignore[arg-type]
    page_of.check(density, evidence)  # type: ignore[arg-type]
    if not evidence.history:
        raise ValueError("evidence has no history: the fit ended before its first validation")
    found = page_of.findings(density, evidence, seed)  # type: ignore[arg-type]
    page = _environment().get_template(page_of.TEMPLATE).render(**found)
    if out is not None:
        Path(out).expanduser().write_text(page, encoding="utf-8")
    return page


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("jflow.report"), autoescape=select_autoescape(),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
