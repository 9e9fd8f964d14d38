"""How many bits images take without a model of them."""

import io
import math
from typing import Any

import numpy as np


def complexity(images: np.ndarray) -> np.ndarray:
    """The size of each image as a file without loss, the smaller of PNG and WebP; nats, (N,).

    Args:
      images: uint8 (N, height, width, 1 or 3).

    Raises:
      ImportError: Pillow is not installed, or has no WebP.
      ValueError: images of another kind.
    """
    try:
        from PIL import Image, features
    except ImportError as error:
        raise ImportError("sizes of image files need Pillow: `pip install pillow`") from error
    if not features.check("webp"):
        raise ImportError("sizes of image files need a Pillow with WebP; its wheels have it")
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 (N, height, width, 1 or 3); got {images.dtype} {images.shape}"
        )

    def size(image: Any, kind: str, options: dict[str, Any]) -> int:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.tell()

    kinds = {"PNG": {"optimize": True}, "WEBP": {"lossless": True, "method": 4, "exact": True}}
    found = np.empty(len(images))
    for place, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        found[place] = min(size(image, kind, options) for kind, options in kinds.items())
    return found * 8 * math.log(2)
