"""What each layer of a flow of two features does to points."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.animation import FuncAnimation, PillowWriter

from jflow.distributions import Density
from jflow.functional.arguments import check_counts
from jflow.viz.figure import Picture, as_density, as_rows, panels

_DOT = 5.0


def layers(
    density: Density, y: Any, context: Any = None, *, key: Any = None, columns: int = 5
) -> Picture:
    """Points of two features, as data and after each layer on the way to the base.

    Colours are the direction in which a point of the data lies from their mean, and stay with it.

    Args:
      density: of two features.
      y: points (N, 2).
      context: for a conditional flow.
      key: for flows that draw noise on the way.
      columns: how many panels are in a row.

    Raises:
      ValueError: the points, or those that a layer makes of them, have not two features.
    """
    check_counts("layers", columns=columns)
    names, places = _way(density, y, context, key)
    picture, axes = panels(len(places), columns, 2.4)
    for panel, name, points in zip(axes, names, places, strict=True):
        panel.scatter(*points.T, s=_DOT, c=_hues(places[0]), linewidths=0)
        panel.set_title(name, fontsize=8)
        panel.tick_params(labelsize=6)
    return picture


def animate(
    density: Density, y: Any, path: str | os.PathLike[str], context: Any = None, *,
    key: Any = None, frames: int = 12,
) -> Path:  # fmt: skip
    """The same as a moving picture: from the data to the base, and back.

    Between layers points go straight, which is not what the flow does there.

    Args:
      density: of two features.
      y: points (N, 2).
      path: the .gif file to write.
      context: for a conditional flow.
      key: for flows that draw noise on the way.
      frames: how many from one layer to the next.

    Returns:
      The path.

    Raises:
      ValueError: see `layers`; or the path has another ending.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() != ".gif":
        raise ValueError(f"path must be a .gif file; got {file}")
    check_counts("animate", frames=frames)
    names, places = _way(density, y, context, key)
    still, course = frames // 2, [(0, 0.0)]
    for step in range(len(places) - 1):
        course += [(step, (i + 1) / frames) for i in range(frames)]
        course += [(step, 1.0)] * still
    course += course[::-1]
    picture = Picture(figsize=(4.0, 4.2))
    axes: Any = picture.subplots()
    low, high = (f(np.concatenate(places), axis=0) for f in (np.min, np.max))
    edge = 0.05 * (high - low)
    axes.set(xlim=(low[0] - edge[0], high[0] + edge[0]), ylim=(low[1] - edge[1], high[1] + edge[1]))
    dots = axes.scatter(*places[0].T, s=_DOT, c=_hues(places[0]), linewidths=0)

    def draw(frame: tuple[int, float]) -> list[Any]:
        step, t = frame
        dots.set_offsets((1 - t) * places[step] + t * places[min(step + 1, len(places) - 1)])
        axes.set_title(names[step + (t == 1.0)], fontsize=9)
        return [dots]

    FuncAnimation(picture, draw, frames=course).save(file, PillowWriter(fps=12))
    return file


def _way(density: Density, y: Any, context: Any, key: Any) -> tuple[list[str], list[np.ndarray]]:
    """Names of steps, and points (N, 2) after each."""
    steps = as_density(density).trajectory(as_rows("y", y, 2), context, key=key)
    places = [as_rows(f"points after {s.name or 'none'}", s.values, 2) for s in steps]
    return ["data", *(step.name for step in steps[1:])], places


def _hues(points: np.ndarray) -> np.ndarray:
    away = points - points.mean(axis=0)
    turn = (np.arctan2(away[:, 1], away[:, 0]) / (2 * np.pi)) % 1
    return colors.hsv_to_rgb(
        np.stack([turn, np.full_like(turn, 0.75), np.full_like(turn, 0.85)], 1)
    )
