"""U-Nets: networks of images that see them at several resolutions."""

from collections.abc import Callable
from dataclasses import dataclass, field

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.nets.attention import RMSNorm, attention
from jflow.nets.layers import Dense, Net, context_of_pixels


@dataclass(frozen=True)
class UNet(Net):
    """Makes U-Nets: the fields of continuous flows of images.

    Residual blocks, `blocks` at each of `levels` resolutions, each half the one before and with
    twice the channels, on the way down, and as many on the way up, which are joined by those of
    their size:

        h = h + conv3x3(act((1 + s) norm(conv3x3(act(norm(h)))) + b))
        (s, b) = dense(act(dense(c)))

    Norms are over the channels of a pixel, so that no image depends on another one. x is (..., H,
    W, C), context c (..., C') or (..., H, W, C'), the result (..., H, W, features), zero at first.

    Attributes:
      hidden: the channels of the first level.
      levels: how many resolutions; height and width are multiples of 2^(levels - 1).
      blocks: of each level.
      heads: of self-attention after each block of the last level; 0 for none.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: a count is out of range, or (on call) an image cannot be halved so often.

    References: Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597; Ho et al., 2020,
    https://arxiv.org/abs/2006.11239, appendix B
    """

    hidden: int = 32
    levels: int = 2
    blocks: int = 1
    heads: int = 0
    activation: str | Callable[[Array], Array] = field(default="silu", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("UNet", hidden=self.hidden, levels=self.levels, blocks=self.blocks)
        check_counts("UNet", 0, heads=self.heads)
        if self.heads and self.channels(self.levels - 1) % self.heads:
            raise ValueError(
                f"UNet: heads must divide the {self.channels(self.levels - 1)} channels of the "
                f"last level; got {self.heads}"
            )

    def channels(self, level: int) -> int:
        """Those of a level."""
        return self.hidden * 2**level

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def __call__(self, features: int) -> nn.Module:
        """The network with that many output channels."""
        return _UNet(features, self)


class _UNet(nn.Module):
    features: int
    config: UNet

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        config, times = self.config, 2 ** (self.config.levels - 1)
        if any(size % times for size in x.shape[-3:-1]):
            raise ValueError(
                f"UNet: height and width must be multiples of {times}, with levels="
                f"{config.levels}; got {x.shape[-3:-1]}"
            )
        if context is not None:
            context = context.astype(x.dtype)
            context = config.act(Dense(2 * config.hidden, config, name="context")(context))
        h = Dense(config.hidden, config, (3, 3), name="first")(x)
        kept = []
        for level in range(config.levels):
            h = self._blocks(f"down_{level}", level, h, context)
            kept.append(h)
            if level < config.levels - 1:
                h = _halved(h)
        for level in reversed(range(config.levels)):
            h = kept[level] if level == config.levels - 1 else jnp.concatenate(
                [_doubled(h), kept[level]], axis=-1
            )  # fmt: skip
            h = self._blocks(f"up_{level}", level, h, context)
        h = config.act(RMSNorm(config, name="norm")(h))
        return Dense(self.features, config, (3, 3), gain=0.0, name="last")(h)

    @nn.nowrap
    def _blocks(self, name: str, level: int, h: Array, context: Array | None) -> Array:
        config = self.config
        for i in range(config.blocks):
            h = _Block(config.channels(level), config, name=f"{name}_{i}")(h, context)
            if config.heads and level == config.levels - 1:
                h = _Attention(config, name=f"{name}_{i}_attention")(h)
        return h


class _Block(nn.Module):
    channels: int
    config: UNet

    @nn.compact
    def __call__(self, h: Array, context: Array | None) -> Array:
        config = self.config
        inner = config.act(RMSNorm(config, name="norm_0")(h))
        inner = Dense(self.channels, config, (3, 3), gain=2.0, name="inner")(inner)
        inner = RMSNorm(config, name="norm_1")(inner)
        if context is not None:
            own = Dense(2 * self.channels, config, gain=0.1, name="film")
            scale, shift = jnp.split(own(context_of_pixels(context, h)), 2, axis=-1)
            inner = (1 + scale) * inner + shift
        inner = config.act(inner)
        inner = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(inner)
        inner = Dense(self.channels, config, (3, 3), gain=0.5, name="outer")(inner)
        if h.shape[-1] != self.channels:
            h = Dense(self.channels, config, name="skip")(h)
        return h + inner


class _Attention(nn.Module):
    """h + dense(self-attention of the pixels of norm(h))."""

    config: UNet

    @nn.compact
    def __call__(self, h: Array) -> Array:
        config, shape = self.config, h.shape
        flat = (*shape[:-3], shape[-3] * shape[-2], shape[-1])
        pixels = RMSNorm(config, name="norm")(h).reshape(flat)
        joined = Dense(3 * shape[-1], config, name="in")(pixels)
        heads = joined.reshape(*flat[:-1], config.heads, 3 * shape[-1] // config.heads)
        mixed = attention(*jnp.split(heads, 3, axis=-1), causal=False)
        out = Dense(shape[-1], config, gain=0.5, name="out")(mixed.reshape(pixels.shape))
        return h + out.reshape(shape)


def _halved(h: Array) -> Array:
    """The means of blocks of 2 x 2 pixels."""
    *batch, height, width, channels = h.shape
    return h.reshape(*batch, height // 2, 2, width // 2, 2, channels).mean((-4, -2))


def _doubled(h: Array) -> Array:
    """Each pixel four times."""
    return jnp.repeat(jnp.repeat(h, 2, axis=-3), 2, axis=-2)
