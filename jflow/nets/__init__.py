"""Networks that make transform parameters. Each name here makes networks of a given width."""

from jflow.nets.concat_squash import ConcatSquash
from jflow.nets.contraction import Contraction
from jflow.nets.convolution import ConvNet, ResidualConvNet, ZeroConvNet
from jflow.nets.denoiser import Denoiser
from jflow.nets.dense_convolution import DenseConvNet
from jflow.nets.functions import as_function
from jflow.nets.gated import GatedConvNet
from jflow.nets.lipschitz import LipschitzConvNet, LipschitzMLP
from jflow.nets.lipschitz_dense import LipschitzDenseNet
from jflow.nets.made import MADE, ResidualMADE
from jflow.nets.mlp import MLP
from jflow.nets.potential import Potential
from jflow.nets.rows import RowNet
from jflow.nets.transformer import CausalTransformer, Transformer
from jflow.nets.two_level import TwoLevel
from jflow.nets.unet import UNet

__all__ = [
    "MADE",
    "MLP",
    "CausalTransformer",
    "ConcatSquash",
    "Contraction",
    "ConvNet",
    "Denoiser",
    "DenseConvNet",
    "GatedConvNet",
    "LipschitzConvNet",
    "LipschitzDenseNet",
    "LipschitzMLP",
    "Potential",
    "ResidualConvNet",
    "ResidualMADE",
    "RowNet",
    "Transformer",
    "TwoLevel",
    "UNet",
    "ZeroConvNet",
    "as_function",
]
