"""Figures that notebooks show, without the global state of pyplot."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jflow.data.calibrated import Calibrated
from jflow.distributions import Density

# Colours that the colour-blind tell apart.
REAL, DRAWN = "#3b82c4", "#d9772b"


class Picture(Figure):
    """A figure that the last line of a notebook's cell shows; `savefig` writes it."""

    def __init__(self, **options: Any):
        super().__init__(layout="constrained", **options)

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png", dpi=100)
        return written.getvalue()


def panels(count: int, columns: int, size: float) -> tuple[Picture, list[Any]]:
    """A picture with so many axes, square, in rows."""
    columns = min(count, columns)
    rows = -(-count // columns)
    picture = Picture(figsize=(size * columns, size * rows))
    axes = np.asarray(picture.subplots(rows, columns, squeeze=False)).ravel().tolist()
    for unused in axes[count:]:
        unused.axis("off")
    return picture, axes[:count]


def as_rows(
    name: str, points: Any, features: int | None = None, *, missing: bool = False
) -> np.ndarray:  # fmt: skip
    """Points (N, D).

    Raises:
      ValueError: another shape, another number of features, or NaN where none may be `missing`.
    """
    rows = np.asarray(points)
    if rows.ndim != 2 or not len(rows) or features not in (None, rows.shape[1]):
        wanted = "D" if features is None else features
        raise ValueError(f"{name} must be points (N, {wanted}); got {rows.shape}")
    if not missing and (bad := int((~np.isfinite(rows)).any(axis=1).sum())):
        raise ValueError(f"{name}: {bad} of {len(rows)} points are NaN or infinite; leave them out")
    return rows


def as_density(density: Any) -> Density:
    """What is drawn.

    Raises:
      TypeError: it is no `Density`.
    """
    if not isinstance(density, Density):
        beside = "; give density.density" if isinstance(density, Calibrated) else ""
        raise TypeError(f"density must be a Density; got a {type(density).__name__}{beside}")
    return density
