"""FFJORD on a table; by default the breast cancer data of scikit-learn (569x30).

For a table of your own: --dataset table.csv. Expected of the default: test -log p 2.5 +- 2.8 nats
(`table_nsf`: 8.1 +- 2.8; the error is that of 57 rows), in a minute and a half on one CPU core.
Traces are estimated, of 28 columns.
"""

from experiments.config import TableExperiment

CONFIG = TableExperiment(
    name="table_ffjord",
    recipe="ffjord",
    arguments={"steps": 8, "tolerance": 1e-4},
    steps=1500,
    learning_rate=5e-3,
    clip_norm=5.0,
)
