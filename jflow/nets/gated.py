"""Flow++'s networks of images: gated convolutions and gated self-attention."""

from collections.abc import Callable
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align
from jflow.nets.attention import RMSNorm, attention, split_heads
from jflow.nets.layers import Dense, Net, context_of_pixels


@dataclass(frozen=True)
class GatedConvNet(Net):
    """Makes Flow++'s network of images: blocks of a gated convolution and gated attention.

        h = norm(h + p sigmoid(q)),  (p, q) = dense(act2(conv3x3(act2(h)) + dense(act2(context))))
        h = norm(h + p sigmoid(q)),  (p, q) = dense(attention(dense(h + positions)))

    act2(h) = (act(h), act(-h)), joined. Attention is among all pixels of an image, whose places
    have learned vectors, so that the network is for images of one size; norms are over the channels
    of a pixel, by root mean squares. Between a first and a last 3x3 convolution, which starts at
    zero. x is (..., H, W, C), context (..., C') or (..., H, W, C'), the result (..., H, W,
    features). All blocks are one loop.

    Attributes:
      hidden: the channels of all blocks.
      blocks: how many.
      heads: of attention, which divide the channels; 0 for convolutions alone.
      remat: whether the backward pass computes blocks again, in place of keeping what they compute.
      activation, dropout, dtype, param_dtype: see `Net`. Dropout is of what convolutions give.

    Raises:
      ValueError: a count is out of range, or heads do not divide the channels.

    Reference: Ho et al., Flow++, 2019, section 3.3, https://arxiv.org/abs/1902.00275
    """

    hidden: int = 96
    blocks: int = 10
    heads: int = 4
    remat: bool = field(default=False, kw_only=True)
    activation: str | Callable[[Array], Array] = field(default="elu", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("GatedConvNet", hidden=self.hidden, blocks=self.blocks)
        check_counts("GatedConvNet", 0, heads=self.heads)
        if self.heads and self.hidden % self.heads:
            raise ValueError(
                f"GatedConvNet: heads must divide hidden={self.hidden}, or be 0; got {self.heads}"
            )
        if not isinstance(self.remat, bool):
            raise ValueError(f"GatedConvNet: remat must be True or False; got {self.remat!r}")

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def both(self, h: Array) -> Array:
        """The activations of h and of -h, joined."""
        return jnp.concatenate([self.act(h), self.act(-h)], axis=-1)

    def __call__(self, features: int) -> nn.Module:
        """The network with that many output channels."""
        return _GatedConvNet(features, self)


class _GatedConvNet(nn.Module):
    features: int
    config: GatedConvNet

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        config = self.config
        h = Dense(config.hidden, config, (3, 3), name="first")(x)
        places = None
        if config.heads:
            start, (_, param_dtype) = nn.initializers.normal(0.1), config.of(x)
            places = self.param("positions", start, h.shape[-3:], param_dtype)
        if context is not None:
            context = context_of_pixels(context, h).astype(h.dtype)

        def block(block: _Block, h: Array) -> tuple[Array, None]:
            return block(h, context, places), None

        blocks = nn.scan(
            nn.remat(block, prevent_cse=False) if config.remat else block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=config.blocks,
        )
        h, _ = blocks(_Block(config, name="blocks"), h)
        return Dense(self.features, config, (3, 3), gain=0.0, name="last")(h).astype(x.dtype)


class _Block(nn.Module):
    config: GatedConvNet

    @nn.compact
    def __call__(self, h: Array, context: Array | None, places: Array | None) -> Array:
        config = self.config
        inner = Dense(config.hidden, config, (3, 3), name="inner")(config.both(h))
        if context is not None:
            inner = inner + Dense(config.hidden, config, name="context")(config.both(context))
        inner = config.both(inner)
        inner = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(inner)
        h = RMSNorm(config, name="norm")(h + self._gated("outer", inner))
        if places is None:
            return h
        *batch, height, width, channels = h.shape
        pixels = (h + align(places, h)).reshape(*batch, height * width, channels)
        joined = Dense(3 * config.hidden, config, name="heads")(pixels)
        found = attention(*split_heads(joined, config.heads), causal=False)
        h = h + self._gated("mixed", found.reshape(h.shape))
        return RMSNorm(config, name="norm_of_attention")(h)

    def _gated(self, name: str, h: Array) -> Array:
        # With this gain, the sum of all blocks has about the variance of one.
        wide = Dense(2 * self.config.hidden, self.config, gain=1 / self.config.blocks, name=name)(h)
        value, gate = jnp.split(wide, 2, axis=-1)
        return value * jax.nn.sigmoid(gate)
