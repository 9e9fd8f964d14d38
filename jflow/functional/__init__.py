"""Pure array mathematics: no Flax, no parameters, no state."""

from jflow.functional.arrays import align, as_wide, wrap_angles
from jflow.functional.autoregressive import Causal
from jflow.functional.contractions import Solution, invert_residual
from jflow.functional.convolution import conv2d
from jflow.functional.estimators import (
    Estimator,
    ExactTrace,
    Hutchinson,
    HutchPP,
    TraceEstimator,
    XTrace,
)
from jflow.functional.log_determinants import ExactLogDet, LogDetEstimator, estimate_log_det
from jflow.functional.paths import (
    CosinePath,
    Interpolant,
    LinearPath,
    LogitNormalTimes,
    Path,
    Times,
    UniformTimes,
    VarianceExploding,
    VariancePreserving,
)
from jflow.functional.series import PowerSeries, RussianRoulette
from jflow.functional.solvers import Adaptive, FixedGrid, MeanSteps, Solver
from jflow.functional.stopping import Geometric, Logarithmic, Poisson, Stopping
from jflow.functional.supports import Circle, Integers, Interval, Support
from jflow.functional.traces import Estimated, exact_trace, hutch_pp, hutchinson, xtrace

__all__ = [
    "Adaptive",
    "Causal",
    "Circle",
    "CosinePath",
    "Estimated",
    "Estimator",
    "ExactLogDet",
    "ExactTrace",
    "FixedGrid",
    "Geometric",
    "HutchPP",
    "Hutchinson",
    "Integers",
    "Interpolant",
    "Interval",
    "LinearPath",
    "LogDetEstimator",
    "Logarithmic",
    "LogitNormalTimes",
    "MeanSteps",
    "Path",
    "Poisson",
    "PowerSeries",
    "RussianRoulette",
    "Solution",
    "Solver",
    "Stopping",
    "Support",
    "Times",
    "TraceEstimator",
    "UniformTimes",
    "VarianceExploding",
    "VariancePreserving",
    "XTrace",
    "align",
    "as_wide",
    "conv2d",
    "estimate_log_det",
    "exact_trace",
    "hutch_pp",
    "hutchinson",
    "invert_residual",
    "wrap_angles",
    "xtrace",
]
