"""What comes of a fit to a table, or to images in three parts: densities that are calibrated."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from jflow.data.anomalies import FEWEST, fingerprints
from jflow.data.image_density import ImageDensity
from jflow.data.image_scores import fingerprints as fingerprints_of_images
from jflow.data.parts import all_over
from jflow.data.splits import Labelled, Splits
from jflow.data.tables import Table
from jflow.distributions import Density

# Test images that p-values refer to, at most.
_MOST = 1_000


def calibrated(density: Any, data: Table | Splits) -> Any:
    """With what it was fitted on, and, if there is enough, calibrated by the test part."""
    try:
        if isinstance(data, Table):
            density = replace(density, trained=np.unique(fingerprints(data.rows[0])))
            few = len(data.rows[2].values) < FEWEST or data.weights is not None
            return density if few else density.calibrate(data.rows[2])
        density = _of_images(density, data)
        return density if len(data.test) < FEWEST else _by_images(density, data.test.y)
    except (ValueError, ImportError) as error:  # of rows that occur several times; no Pillow
        warnings.warn(f"the density is not calibrated: {error}", stacklevel=3)
        return density


def _of_images(density: Density, images: Splits) -> ImageDensity:
    in_memory = isinstance(images.train, Labelled)
    trained = np.unique(fingerprints_of_images(images.train.y)) if in_memory else None
    return ImageDensity(density, trained=trained)


def _by_images(density: ImageDensity, test: np.ndarray) -> ImageDensity:
    has_files = density.levels <= 256 and density.shape[-1] in (1, 3)
    return density.calibrate(
        test[all_over(len(test), _MOST)], correction="complexity" if has_files else None
    )
