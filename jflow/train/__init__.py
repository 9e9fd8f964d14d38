"""Training and evaluation."""

from jflow.train.compilation import cache_compilations
from jflow.train.evaluation import Estimate, evaluate
from jflow.train.fit import NonFiniteLossError, fit
from jflow.train.history import History
from jflow.train.variational import Importance, fit_to_target, importance

__all__ = [
    "Estimate",
    "History",
    "Importance",
    "NonFiniteLossError",
    "cache_compilations",
    "evaluate",
    "fit",
    "fit_to_target",
    "importance",
]
