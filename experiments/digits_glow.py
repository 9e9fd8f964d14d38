"""Glow on the 8x8 digits of scikit-learn.

Test bits/dim (17 grey levels).
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="digits",
    recipe="glow",
    arguments={"levels": 2, "steps": 4, "hidden": 32, "dropout": 0.2},
    dataset="digits",
    baselines=True,
)
