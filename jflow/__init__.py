"""Normalizing flows in JAX and Flax."""

from jflow import bijectors, data, distributions, flows, functional, nets, train, transformers
from jflow.distributions import (
    Density,
    Flow,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
    init,
    load,
    recipe,
)
from jflow.train import evaluate, fit

__version__ = "0.1.0"

__all__ = [
    "Density",
    "Flow",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "bijectors",
    "data",
    "distributions",
    "evaluate",
    "fit",
    "flows",
    "functional",
    "init",
    "load",
    "nets",
    "recipe",
    "train",
    "transformers",
]
