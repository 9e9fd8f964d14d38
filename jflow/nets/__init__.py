"""Networks that make transform parameters. Each name here makes networks of a given width."""

from jflow.nets.convolution import ConvNet, ResidualConvNet, ZeroConvNet
from jflow.nets.mlp import MLP

__all__ = ["MLP", "ConvNet", "ResidualConvNet", "ZeroConvNet"]
