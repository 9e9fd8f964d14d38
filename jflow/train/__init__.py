"""Training and evaluation."""

from jflow.train.checkpoints import CheckpointError
from jflow.train.compilation import cache_compilations
from jflow.train.evaluation import Estimate, evaluate
from jflow.train.fit import fit
from jflow.train.health import Health, health
from jflow.train.history import History
from jflow.train.importance import Importance, importance
from jflow.train.interruption import Preempted
from jflow.train.run import NonFiniteLossError
from jflow.train.sharding import make_mesh
from jflow.train.variational import fit_to_target

__all__ = [
    "CheckpointError",
    "Estimate",
    "Health",
    "History",
    "Importance",
    "NonFiniteLossError",
    "Preempted",
    "cache_compilations",
    "evaluate",
    "fit",
    "fit_to_target",
    "health",
    "importance",
    "make_mesh",
]
