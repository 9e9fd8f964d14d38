"""Training and evaluation."""

from jflow.data.batches import Arrays, Batch, Chunk, Source
from jflow.data.streams import Stream
from jflow.distributions.compiled import cache_compilations
from jflow.distributions.health import Health, health
from jflow.distributions.importance import Importance, importance
from jflow.distributions.smc import SMC, smc
from jflow.functional.sharding import make_mesh
from jflow.train.checkpoints import CheckpointError
from jflow.train.couplings import (
    IndependentCoupling,
    OptimalTransport,
    PathCoupling,
    Sinkhorn,
)
from jflow.train.distillation import Distillation
from jflow.train.evaluation import Estimate, evaluate
from jflow.train.fit import fit
from jflow.train.history import History, NonFiniteLossError
from jflow.train.matching import FlowMatching
from jflow.train.mean_flow import MeanFlow
from jflow.train.objectives import FlowLoss, MaximumLikelihood, Objective
from jflow.train.pairs import Pairs, draw_pairs
from jflow.train.semidiscrete import semidiscrete_pairs
from jflow.train.steps import alternating, gradient_step
from jflow.train.targets import FAB, AlphaDivergence, ReverseKL
from jflow.train.terminal import Preempted
from jflow.train.train import train
from jflow.train.variational import fit_to_target

__all__ = [
    "FAB",
    "SMC",
    "AlphaDivergence",
    "Arrays",
    "Batch",
    "CheckpointError",
    "Chunk",
    "Distillation",
    "Estimate",
    "FlowLoss",
    "FlowMatching",
    "Health",
    "History",
    "Importance",
    "IndependentCoupling",
    "MaximumLikelihood",
    "MeanFlow",
    "NonFiniteLossError",
    "Objective",
    "OptimalTransport",
    "Pairs",
    "PathCoupling",
    "Preempted",
    "ReverseKL",
    "Sinkhorn",
    "Source",
    "Stream",
    "alternating",
    "cache_compilations",
    "draw_pairs",
    "evaluate",
    "fit",
    "fit_to_target",
    "gradient_step",
    "health",
    "importance",
    "make_mesh",
    "semidiscrete_pairs",
    "smc",
    "train",
]
