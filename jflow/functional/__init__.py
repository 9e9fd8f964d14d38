"""Pure array mathematics: no Flax, no parameters, no state."""

from jflow.functional.contractions import Solution, invert_residual
from jflow.functional.convolution import conv2d
from jflow.functional.log_determinants import ExactLogDet, LogDetEstimator, estimate_log_det
from jflow.functional.series import PowerSeries, RussianRoulette
from jflow.functional.stopping import Geometric, Logarithmic, Poisson, Stopping
from jflow.functional.traces import Estimated, exact_trace, hutch_pp, hutchinson, xtrace

__all__ = [
    "Estimated",
    "ExactLogDet",
    "Geometric",
    "LogDetEstimator",
    "Logarithmic",
    "Poisson",
    "PowerSeries",
    "RussianRoulette",
    "Solution",
    "Stopping",
    "conv2d",
    "estimate_log_det",
    "exact_trace",
    "hutch_pp",
    "hutchinson",
    "invert_residual",
    "xtrace",
]
