"""A report on the density of a table, or of images: one HTML file, which needs no other."""

from importlib.util import find_spec

if missing := [name for name in ("jinja2", "matplotlib", "sklearn") if find_spec(name) is None]:
    raise ImportError(f"jflow.report needs {missing}: pip install 'jflow[report]'")

from jflow.report.evidence import Evidence, ImageEvidence
from jflow.report.page import report

__all__ = ["Evidence", "ImageEvidence", "report"]
