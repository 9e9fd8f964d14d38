"""Scalar transforms with given parameters, for elementwise, coupling and autoregressive use."""

from jflow.transformers.activations import (
    Exp,
    LeakyReLU,
    Logit,
    Power,
    Sigmoid,
    SinhArcsinh,
    Softplus,
    Tanh,
)
from jflow.transformers.affine import Affine, FixedAffine, Shift, SoftplusAffine
from jflow.transformers.base import Transformer
from jflow.transformers.inverted import Inverted
from jflow.transformers.monotone import DeepSigmoid, SumOfSquares, UnconstrainedMonotonic
from jflow.transformers.rational_quadratic import (
    CircularShift,
    CircularSpline,
    RationalQuadraticSpline,
)
from jflow.transformers.smooth import BernsteinPolynomial, LogisticMixture, NonlinearSquared
from jflow.transformers.splines import CubicSpline, LinearSpline, QuadraticSpline, SquareRootBins

__all__ = [
    "Affine",
    "BernsteinPolynomial",
    "CircularShift",
    "CircularSpline",
    "CubicSpline",
    "DeepSigmoid",
    "Exp",
    "FixedAffine",
    "Inverted",
    "LeakyReLU",
    "LinearSpline",
    "LogisticMixture",
    "Logit",
    "NonlinearSquared",
    "Power",
    "QuadraticSpline",
    "RationalQuadraticSpline",
    "Shift",
    "Sigmoid",
    "SinhArcsinh",
    "Softplus",
    "SoftplusAffine",
    "SquareRootBins",
    "SumOfSquares",
    "Tanh",
    "Transformer",
    "UnconstrainedMonotonic",
]
