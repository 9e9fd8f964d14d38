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
from jflow.transformers.affine import Affine, FixedAffine, Shift
from jflow.transformers.base import Transformer

__all__ = [
    "Affine",
    "Exp",
    "FixedAffine",
    "LeakyReLU",
    "Logit",
    "Power",
    "Shift",
    "Sigmoid",
    "SinhArcsinh",
    "Softplus",
    "Tanh",
    "Transformer",
]
