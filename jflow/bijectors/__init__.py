"""Invertible functions with log-determinants, and their composition."""

from jflow.bijectors.augment import Augment
from jflow.bijectors.autoregressive import Jacobi, MaskedAutoregressive
from jflow.bijectors.base import Bijector
from jflow.bijectors.block_autoregressive import BlockAutoregressive
from jflow.bijectors.chain import Chain
from jflow.bijectors.continuous import Continuous
from jflow.bijectors.convolution import EmergingConv, PeriodicConv, WoodburyConv
from jflow.bijectors.coupling import Coupling
from jflow.bijectors.dequantize import Dequantize
from jflow.bijectors.elementwise import Elementwise
from jflow.bijectors.hint import HINT
from jflow.bijectors.invert import Invert
from jflow.bijectors.linear import Conv1x1, Linear
from jflow.bijectors.low_rank import ConvFlow, Planar, Radial, Sylvester
from jflow.bijectors.multiscale import MultiScale
from jflow.bijectors.norm import ActNorm, BatchNorm
from jflow.bijectors.patchify import PairTokens, Patchify
from jflow.bijectors.permute import Permute, Reverse
from jflow.bijectors.rad import RAD
from jflow.bijectors.repeat import Repeat
from jflow.bijectors.reshape import CheckerboardSqueeze, HaarSqueeze, Reshape, Squeeze
from jflow.bijectors.residual import Residual, RevNet
from jflow.bijectors.rows import RowAutoregressive
from jflow.bijectors.sde import SDE
from jflow.bijectors.surjections import AbsoluteValue, MaxPool

__all__ = [
    "HINT",
    "RAD",
    "SDE",
    "AbsoluteValue",
    "ActNorm",
    "Augment",
    "BatchNorm",
    "Bijector",
    "BlockAutoregressive",
    "Chain",
    "CheckerboardSqueeze",
    "Continuous",
    "Conv1x1",
    "ConvFlow",
    "Coupling",
    "Dequantize",
    "Elementwise",
    "EmergingConv",
    "HaarSqueeze",
    "Invert",
    "Jacobi",
    "Linear",
    "MaskedAutoregressive",
    "MaxPool",
    "MultiScale",
    "PairTokens",
    "Patchify",
    "PeriodicConv",
    "Permute",
    "Planar",
    "Radial",
    "Repeat",
    "Reshape",
    "Residual",
    "RevNet",
    "Reverse",
    "RowAutoregressive",
    "Squeeze",
    "Sylvester",
    "WoodburyConv",
]
