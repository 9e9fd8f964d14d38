"""Real NVP on the 8x8 digits of scikit-learn: 17 grey levels, 1,297 training images."""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="digits_real_nvp",
    recipe="real_nvp",
    arguments={"levels": 2, "hidden": 32, "blocks": 2, "dropout": 0.3},
    dataset="digits",
    steps=2400,
    learning_rate=2e-3,
)
