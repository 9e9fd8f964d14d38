"""Glow on the 8x8 digits of scikit-learn.

Test bits/dim (17 grey levels).
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="digits",
    recipe="glow",
    arguments={
        "levels": 2,
        "steps": 4,
        "hidden": 64,
        "checkerboards": 6,
        "positions": True,
        "dropout": 0.4,
    },
    dataset="digits",
    steps=2400,
    learning_rate=3e-3,
    baselines=True,
)
