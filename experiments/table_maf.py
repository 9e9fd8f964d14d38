"""MAF on a table; by default the breast cancer data of scikit-learn (569x30)."""

from experiments.config import TableExperiment

CONFIG = TableExperiment(
    name="table_maf",
    recipe="maf",
    arguments={"layers": 5, "hidden": (64, 64), "dropout": 0.3},
    steps=2000,
    clip_norm=5.0,
)
