"""Flows, densities and base distributions."""

from jflow.distributions.denoising import denoise
from jflow.distributions.density import Density
from jflow.distributions.estimates import LogProbEstimate
from jflow.distributions.flow import Flow
from jflow.distributions.init import init
from jflow.distributions.inspection import Step, Summary
from jflow.distributions.learned import (
    ConditionalGaussian,
    GaussianMixture,
    StudentT,
)
from jflow.distributions.loading import load
from jflow.distributions.paths import Paths
from jflow.distributions.product import Product
from jflow.distributions.recipe import recipe
from jflow.distributions.standard import (
    BoxUniform,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
)
from jflow.distributions.von_mises import VonMises

__all__ = [
    "BoxUniform",
    "ConditionalGaussian",
    "Density",
    "Flow",
    "GaussianMixture",
    "LogProbEstimate",
    "Paths",
    "Product",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "Step",
    "StudentT",
    "Summary",
    "VonMises",
    "denoise",
    "init",
    "load",
    "recipe",
]
