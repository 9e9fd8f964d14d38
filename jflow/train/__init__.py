"""Training and evaluation."""

from jflow.train.evaluation import Estimate, evaluate
from jflow.train.fit import NonFiniteLossError, fit
from jflow.train.history import History

__all__ = ["Estimate", "History", "NonFiniteLossError", "evaluate", "fit"]
