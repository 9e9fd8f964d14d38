"""FFJORD on a table; by default the breast cancer data of scikit-learn (569x30).

For a table of your own: --dataset table.csv.
"""

from experiments.config import TableExperiment

CONFIG = TableExperiment(
    name="table_ffjord",
    recipe="ffjord",
    arguments={"steps": 8, "tolerance": 1e-4},
    steps=1000,
    clip_norm=5.0,
)
