"""Flows, densities and base distributions."""

from jflow.distributions.base import StandardLogistic, StandardNormal, StandardUniform
from jflow.distributions.density import Density, load
from jflow.distributions.flow import Flow
from jflow.distributions.init import init
from jflow.distributions.recipe import recipe

__all__ = [
    "Density",
    "Flow",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "init",
    "load",
    "recipe",
]
