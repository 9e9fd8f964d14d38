"""Pictures: densities of two features, what layers do, images, pairs, courses, calibration."""

from importlib.util import find_spec

if find_spec("matplotlib") is None:
    raise ImportError("jflow.viz needs matplotlib: pip install 'jflow[viz]'")

from jflow.viz.layers import animate, layers
from jflow.viz.paths import animate_paths, paths
from jflow.viz.pictures import calibration, curves, density2d, grid, pairs

__all__ = [
    "animate",
    "animate_paths",
    "calibration",
    "curves",
    "density2d",
    "grid",
    "layers",
    "pairs",
    "paths",
]
