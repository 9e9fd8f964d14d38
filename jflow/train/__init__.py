"""Training and evaluation."""

from jflow.train.evaluation import Estimate, evaluate
from jflow.train.fit import NonFiniteLossError, fit
from jflow.train.history import History
from jflow.train.variational import Importance, fit_to_target, importance

__all__ = [
    "Estimate",
    "History",
    "Importance",
    "NonFiniteLossError",
    "evaluate",
    "fit",
    "fit_to_target",
    "importance",
]
