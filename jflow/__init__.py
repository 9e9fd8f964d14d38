"""Normalizing flows in JAX and Flax."""

from jflow import bijectors, data, distributions, flows, functional, nets, train, transformers
from jflow.distributions import (
    BoxUniform,
    ConditionalGaussian,
    Density,
    Flow,
    GaussianMixture,
    Product,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
    StudentT,
    VonMises,
    init,
    load,
    recipe,
)
from jflow.train import evaluate, fit, fit_to_target

__version__ = "0.1.0"

__all__ = [
    "BoxUniform",
    "ConditionalGaussian",
    "Density",
    "Flow",
    "GaussianMixture",
    "Product",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "StudentT",
    "VonMises",
    "bijectors",
    "data",
    "distributions",
    "evaluate",
    "fit",
    "fit_to_target",
    "flows",
    "functional",
    "init",
    "load",
    "nets",
    "recipe",
    "train",
    "transformers",
]
