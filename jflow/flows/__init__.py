"""Recipes: flows named after the papers that describe them."""

from jflow.flows.continuous import anode, ffjord, ot_flow, rnode
from jflow.flows.dense_flow import dense_flow
from jflow.flows.flow_pp import flow_pp, vflow
from jflow.flows.glow import glow
from jflow.flows.hint import hint
from jflow.flows.jet import jet
from jflow.flows.low_rank import planar, radial, sylvester
from jflow.flows.maf import iaf, maf
from jflow.flows.matching import flow_matching
from jflow.flows.monotone import bnaf, naf, sos, umnn
from jflow.flows.nice import nice
from jflow.flows.nsf import nsf
from jflow.flows.real_nvp import real_nvp
from jflow.flows.residual import i_densenet, i_resnet, residual_flow
from jflow.flows.sde import sde
from jflow.flows.tabular import tabular
from jflow.flows.tarflow import tarflow
from jflow.flows.transformer_af import transformer_af

__all__ = [
    "anode",
    "bnaf",
    "dense_flow",
    "ffjord",
    "flow_matching",
    "flow_pp",
    "glow",
    "hint",
    "i_densenet",
    "i_resnet",
    "iaf",
    "jet",
    "maf",
    "naf",
    "nice",
    "nsf",
    "ot_flow",
    "planar",
    "radial",
    "real_nvp",
    "residual_flow",
    "rnode",
    "sde",
    "sos",
    "sylvester",
    "tabular",
    "tarflow",
    "transformer_af",
    "umnn",
    "vflow",
]
