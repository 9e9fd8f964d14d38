"""Pure array mathematics: no Flax, no parameters, no state."""

from jflow.functional.convolution import conv2d as conv2d

__all__ = ["conv2d"]
