"""Paths of continuous flows of two features."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.collections import LineCollection

from jflow.distributions import Density
from jflow.functional.arguments import check_counts
from jflow.viz.figure import DRAWN, REAL, Picture, as_density, as_rows

# Where log p is lower than this below the highest, colours do not tell how low.
_DEEP = 6.0


def paths(
    density: Density, z: Any = None, context: Any = None, *, count: int = 200, times: int = 33
) -> Picture:
    """Paths of a continuous flow, from points of the base to what becomes of them.

    Args:
      density: of two features; its layer nearest to the base is continuous.
      z: latents (N, 2); None for `count` draws of the base.
      context: one context, of a conditional flow.
      count: how many draws.
      times: points of time along a path.

    Raises:
      TypeError: it is no `Density`, or of another kind.
      ValueError: events are not of two features.
    """
    values, _ = _ways(density, z, context, count, times)
    picture = Picture(figsize=(5.0, 5.0))
    axes: Any = picture.subplots()
    lines = LineCollection(list(np.swapaxes(values, 0, 1)), colors="0.6", linewidths=0.5)
    axes.add_collection(lines)
    for points, colour, name in ((values[0], REAL, "t = 0"), (values[-1], DRAWN, "t = 1")):
        axes.scatter(*points.T, s=6, c=colour, linewidths=0, label=name, zorder=2)
    axes.legend(fontsize=8)
    axes.autoscale()
    return picture


def animate_paths(
    density: Density, path: str | os.PathLike[str], z: Any = None, context: Any = None, *,
    count: int = 2_000, frames: int = 49,
) -> Path:  # fmt: skip
    """A density in time, as a moving picture: draws of the base on their way, coloured by log p.

    Args:
      density: see `paths`.
      path: the .gif file to write.
      z: see `paths`.
      context: see `paths`.
      count: see `paths`.
      frames: how many, from t = 0 to 1; the last stays for a while.

    Returns:
      The path.

    Raises:
      TypeError: see `paths`.
      ValueError: see `paths`; or the path has another ending.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() != ".gif":
        raise ValueError(f"path must be a .gif file; got {file}")
    values, log_p = _ways(density, z, context, count, frames)
    picture = Picture(figsize=(4.0, 4.2))
    axes: Any = picture.subplots()
    low, high = values.min((0, 1)), values.max((0, 1))
    edge = 0.05 * (high - low)
    axes.set(xlim=(low[0] - edge[0], high[0] + edge[0]), ylim=(low[1] - edge[1], high[1] + edge[1]))
    dots = axes.scatter(
        *values[0].T, c=log_p[0], s=4, linewidths=0, vmin=log_p.max() - _DEEP, vmax=log_p.max()
    )

    def draw(frame: int) -> list[Any]:
        dots.set_offsets(values[frame])
        dots.set_array(log_p[frame])
        axes.set_title(f"t = {frame / (frames - 1):.2f}", fontsize=9)
        return [dots]

    course = [*range(frames), *[frames - 1] * (frames // 3)]
    FuncAnimation(picture, draw, frames=course).save(file, PillowWriter(fps=12))
    return file


def _ways(
    density: Density, z: Any, context: Any, count: int, times: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points (T, N, 2), and log p there, (T, N)."""
    check_counts("paths", count=count)
    if as_density(density).flow.event_shape != (2,):
        raise ValueError(
            f"a density of two features is drawn; got event_shape {density.flow.event_shape}"
        )
    if z is None:
        z = density.latents(density.sample(0, count, context), context)
    found = density.paths(as_rows("z", z), context, times=times)
    return np.asarray(found.values), np.asarray(found.log_prob)
