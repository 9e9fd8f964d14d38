"""What the recipes for images make of images of a size, with their own defaults and those of `fit`.

python -m benchmarks.images NAME [RECIPE [STEPS [PICTURE.png]]]

NAME is what `jflow.data.images` takes: "digits", a .npz file, a folder, a TFDS data set. RECIPE is
"glow" or "real_nvp". It prints a row of a Markdown table: the size, how many images to train on,
steps, minutes of `fit` with its compilations, and bits/dim of the test images; the picture has
samples of temperature 0.8 (0.5 in its last row).
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import jflow
from jflow import data, flows

VALIDATION, COLUMNS = 165, 12


def picture(density: jflow.Density, values: int, path: str) -> None:
    """Writes three rows of samples, enlarged to 64 pixels or more."""
    rows = [
        np.asarray(density.sample(seed, (COLUMNS,), temperature=temperature))
        for seed, temperature in enumerate((0.8, 0.8, 0.5))
    ]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    grey = (np.clip(grid / (values - 1), 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(grey[..., 0] if grey.shape[-1] == 1 else grey)
    times = max(1, -(-64 // rows[0].shape[1]))
    image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST).save(path)


def main(name: str, recipe: str = "glow", steps: str = "400", path: str | None = None) -> None:
    """Fits, scores and draws."""
    splits = data.images(name, validation=None if name == "digits" else VALIDATION)
    train, shape = splits.train, splits.train.y.shape[1:]
    flow = getattr(flows, recipe)(image_shape=shape, values=splits.values)
    start = time.perf_counter()
    density, _ = jflow.fit(
        flow, train.y, key=0, validation=splits.validation.y, steps=int(steps), progress=False
    )
    minutes = (time.perf_counter() - start) / 60
    bits = jflow.evaluate(density, splits.test.y[:1000], key=1)
    size = "x".join(map(str, shape))
    print(f"| {Path(name).stem} | {size} | {recipe} | {len(train.y)} | {steps} | {minutes:.1f} | "
          f"{bits} |", flush=True)  # fmt: skip
    if path:
        picture(density, splits.values, path)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
