"""Recipes: flows named after the papers that describe them."""

from jflow.flows.glow import glow
from jflow.flows.maf import iaf, maf
from jflow.flows.nice import nice
from jflow.flows.nsf import nsf
from jflow.flows.real_nvp import real_nvp

__all__ = ["glow", "iaf", "maf", "nice", "nsf", "real_nvp"]
