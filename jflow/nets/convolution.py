"""Convolutional networks that keep the image size."""

import math
from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align
from jflow.nets.layers import Dense, Dtypes, Net, context_of_pixels


@dataclass(frozen=True)
class ConvNet(Net):
    """Makes Glow's network: 3x3, 1x1 and 3x3 convolutions with a learned output scale.

        h = act(conv3x3(x) + dense(context)),  h = act(conv1x1(h)),  result = conv3x3(h) e^(3 g)

    The last convolution starts at zero (see `ZeroConv` for g). x is (..., H, W, C), context
    (..., C'), the result (..., H, W, features). Unlike Glow's code, the hidden convolutions have
    biases in place of actnorm.

    Attributes:
      hidden: the channels of both hidden layers.
      positions: whether the first layer has a bias for each pixel, so that the network knows
        where it is. It is then for images of one size.
      activation, dropout, dtype, param_dtype: see `Net`.

    Reference: Kingma and Dhariwal, Glow, 2018, sections 3.3 and 5, https://arxiv.org/abs/1807.03039
    """

    hidden: int = 512
    positions: bool = False

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def __call__(self, features: int) -> nn.Module:
        """The network with that many output channels."""
        return _ConvNet(features, self)


class _ConvNet(nn.Module):
    features: int
    config: ConvNet

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        config = self.config
        h = Dense(config.hidden, config, (3, 3), gain=2.0, name="first")(x)
        h = _add_context(h, context, config)
        if config.positions:
            shape, (_, param_dtype) = h.shape[-3:], config.of(x)
            bias = self.param("positions", nn.initializers.normal(0.1), shape, param_dtype)
            h = h + align(bias, h)
        h = config.act(Dense(config.hidden, config, gain=2.0, name="middle")(config.act(h)))
        h = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(h)
        return ZeroConv(self.features, config, name="last")(h)


@dataclass(frozen=True)
class ResidualConvNet(Net):
    """Makes Real NVP's network: residual blocks of 3x3 convolutions between two outer ones.

        h = conv3x3(x) + dense(context)
        h = h + conv3x3(act(conv3x3(act(h))))      `blocks` times
        result = conv1x1(act(h))                   starts at zero

    x is (..., H, W, C), context (..., C'), the result (..., H, W, features). Unlike the paper,
    there is no batch normalisation, which would make the density depend on the batch.

    Attributes:
      hidden: the channels of all hidden layers.
      blocks: how many residual blocks.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: `hidden` or `blocks` is not a whole number, 1 or more.

    Reference: Dinh et al., Real NVP, 2017, section 4.1, https://arxiv.org/abs/1605.08803
    """

    hidden: int = 64
    blocks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("ResidualConvNet", hidden=self.hidden, blocks=self.blocks)

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def __call__(self, features: int) -> nn.Module:
        """The network with that many output channels."""
        return _ResidualConvNet(features, self)


class _ResidualConvNet(nn.Module):
    features: int
    config: ResidualConvNet

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        config = self.config
        h = Dense(config.hidden, config, (3, 3), name="first")(x)
        h = _add_context(h, context, config)
        blocks = nn.scan(
            _ResidualBlock,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=config.blocks,
        )
        h, _ = blocks(config, name="blocks")(h, None)
        return Dense(self.features, config, gain=0.0, name="last")(config.act(h))


class _ResidualBlock(nn.Module):
    config: ResidualConvNet

    @nn.compact
    def __call__(self, h: Array, _: None) -> tuple[Array, None]:
        config = self.config
        inner = Dense(config.hidden, config, (3, 3), gain=2.0, name="inner")(config.act(h))
        inner = config.act(inner)
        inner = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(inner)
        # With this gain, the sum of all blocks has the variance of one.
        return h + Dense(config.hidden, config, (3, 3), gain=1 / config.blocks, name="outer")(
            inner
        ), None


@dataclass(frozen=True)
class ZeroConvNet(Dtypes):
    """Makes one 3x3 convolution that starts at zero: Glow's prior of a factored-out half.

    x is (..., H, W, C), context (..., C') or None, the result (..., H, W, features).

    Attributes:
      dtype, param_dtype: see `Dtypes`.
    """

    makes: ClassVar[str] = "arrays"

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def __call__(self, features: int) -> nn.Module:
        """The layer with that many output channels."""
        return ZeroConv(features, self)


class ZeroConv(nn.Module):
    """A 3x3 convolution with a learned output scale e^(3 g), starting at zero (Glow).

    Over 64 input channels, the scale starts at 64 / channels (in Glow, at 1): a step of Adam
    moves a sum of so many terms in proportion to their number, and without this a deep flow of
    512 channels diverges within ten steps.

    Attributes:
      features: output channels.
      dtypes: of the computation and the parameters.
    """

    features: int
    dtypes: Dtypes

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        dtype, param_dtype = self.dtypes.of(x)
        y = Dense(self.features, self.dtypes, (3, 3), gain=0.0, name="conv")(x)
        y = _add_context(y, context, self.dtypes, gain=0.0)
        shape = (self.features,)
        start = nn.initializers.constant(math.log(min(1.0, 64 / x.shape[-1])) / 3)
        log_scale = self.param("log_scale", start, shape, param_dtype)
        scale = jnp.exp(3 * log_scale).astype(dtype)
        return y * scale.reshape((1,) * (y.ndim - 1) + (-1,))


def _add_context(h: Array, context: Array | None, dtypes: Dtypes, gain: float = 0.1) -> Array:
    """h (..., H, W, F) plus a linear function of the context, pixel by pixel if it is an image."""
    if context is None:
        return h
    context = context_of_pixels(context, h).astype(h.dtype)
    return h + Dense(h.shape[-1], dtypes, gain=gain, name="context")(context)
