"""Densely connected convolutional networks with attention."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.nets.attention import RMSNorm, attention, split_heads
from jflow.nets.layers import Dense, Net, context_of_pixels


@dataclass(frozen=True)
class DenseConvNet(Net):
    """Makes DenseFlow's network of images: each convolution sees what all before it have found.

        h_0 = conv1x1(x) + dense(context)
        h_i = [h_i-1, act(conv3x3(act(conv1x1(h_i-1))))]      `layers` times, `growth` channels each
        d   = p + q sigmoid(r),  (p, q, r) = conv1x1(h_layers)
        a   = dense(attention(Q, K, V) + V),  (Q, K, V) = dense(h_0)
        result = conv1x1(conv1x1(act(norm([a, d]))))          starts at zero

    Attention is among all pixels. x is (..., H, W, C), context (..., C') or (..., H, W, C'), the
    result (..., H, W, features).

    Differences from the paper: exact attention in place of Nystroem's approximation; a norm over
    the channels of a pixel in place of one over the batch, which would make the density depend on
    that.

    Attributes:
      hidden: the channels before and after the dense layers, of which attention has half.
      layers: how many see all before.
      growth: channels that each of them adds.
      heads: of attention, which divide half of `hidden`; 0 for none.
      activation, dropout, dtype, param_dtype: see `Net`. Dropout is of what 1x1 convolutions of the
        dense layers give.

    Raises:
      ValueError: a count is out of range, or heads do not divide the channels of attention.

    Reference: Grcic et al., 2021, section 3.2, https://arxiv.org/abs/2106.04627
    """

    hidden: int = 48
    layers: int = 7
    growth: int = 64
    heads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("DenseConvNet", hidden=self.hidden, layers=self.layers, growth=self.growth)
        check_counts("DenseConvNet", 0, heads=self.heads)
        if self.heads and self.hidden % (2 * self.heads):
            raise ValueError(
                f"DenseConvNet: heads must divide half of hidden={self.hidden}, or be 0; got "
                f"{self.heads}"
            )

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: those of an image."""
        return 3

    def __call__(self, features: int) -> nn.Module:
        """The network with that many output channels."""
        return _DenseConvNet(features, self)


class _DenseConvNet(nn.Module):
    features: int
    config: DenseConvNet

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        config = self.config
        h = Dense(config.hidden, config, name="first")(x)
        if context is not None:
            context = context_of_pixels(context, h).astype(h.dtype)
            h = h + Dense(config.hidden, config, name="context")(context)
        found = self._dense_layers(h)
        if config.heads:
            found = jnp.concatenate([self._attention(h), found], axis=-1)
        found = config.act(RMSNorm(config, name="norm")(found))
        found = Dense(config.hidden, config, gain=2.0, name="mixed")(found)
        return Dense(self.features, config, gain=0.0, name="last")(found).astype(x.dtype)

    def _dense_layers(self, h: Array) -> Array:
        config = self.config
        for i in range(config.layers):
            inner = Dense(h.shape[-1], config, gain=2.0, name=f"narrow_{i}")(h)
            inner = config.act(inner)
            inner = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(inner)
            new = Dense(config.growth, config, (3, 3), gain=2.0, name=f"wide_{i}")(inner)
            h = jnp.concatenate([h, config.act(new)], axis=-1)
        value, scaled, gate = jnp.split(
            Dense(3 * config.hidden, config, name="gated")(h), 3, axis=-1
        )
        return value + scaled * jax.nn.sigmoid(gate)

    def _attention(self, h: Array) -> Array:
        config, width = self.config, self.config.hidden // 2
        *batch, height, columns, channels = h.shape
        pixels = h.reshape(*batch, height * columns, channels)
        joined = Dense(3 * width, config, name="heads")(pixels)
        queries, keys, values = split_heads(joined, config.heads)
        found = attention(queries, keys, values, causal=False) + values
        found = found.reshape(*h.shape[:-1], width)
        return Dense(config.hidden, config, name="attended")(found)
