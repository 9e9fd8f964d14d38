"""NICE on the 8x8 digits of scikit-learn: 17 grey levels, 1,297 training images."""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="digits_nice",
    recipe="nice",
    arguments={"layers": 4, "hidden": (256, 256), "dropout": 0.3},
    dataset="digits",
    flat=True,
    steps=4000,
)
