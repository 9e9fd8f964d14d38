"""Layers of transformers: attention of all tokens at once, or of one to those it remembers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align, as_wide
from jflow.nets.layers import Dense, Dtypes, Net


@dataclass(frozen=True)
class AttentionNet(Net):
    """What transformers share: layers of attention, and of a network of each token.

        h = h + attention(norm(h)),    h = h + network(norm(h))

    Attributes:
      width: of tokens.
      layers: how many; compile time does not grow with them.
      heads: of attention; they divide the width.
      expansion: the network of a token is so many times as wide.
      gated: whether that network is W (act(U h) * (V h)), and not W act(U h); with "silu", SwiGLU.
      positions: "learned", a vector for each place, or "rotary", which turns queries and keys by
        angles that grow with the place.
      qk_norm: whether queries and keys are divided by their root mean square.
      context: how the context enters, if there is one: "add", to every token before the first
        layer; "film", there and in every layer, whose norms it scales and shifts:
        norm(h) (1 + s) + b, (s, b) = dense(context); or "cross": it is a sequence (S, C), to which
        all tokens attend in every layer, after they did to each other.
      remat: whether the backward pass computes layers again, in place of keeping what they compute;
        None for yes on CPUs, where that is faster, too, and no elsewhere.
      activation, dropout, dtype, param_dtype: see `Net`. Dropout is of what layers add.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    expansion: int = field(default=4, kw_only=True)
    gated: bool = field(default=False, kw_only=True)
    positions: Literal["learned", "rotary"] = field(default="learned", kw_only=True)
    qk_norm: bool = field(default=False, kw_only=True)
    context: Literal["add", "film", "cross"] = field(default="add", kw_only=True)
    remat: bool | None = field(default=None, kw_only=True)
    activation: str | Callable[[Array], Array] = field(default="gelu", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_counts(
            name, width=self.width, layers=self.layers, heads=self.heads, expansion=self.expansion
        )
        for flag in ("gated", "qk_norm"):
            if not isinstance(getattr(self, flag), bool):
                raise ValueError(
                    f"{name}: {flag} must be True or False; got {getattr(self, flag)!r}"
                )
        if self.remat is not None and not isinstance(self.remat, bool):
            raise ValueError(f"{name}: remat must be True, False or None; got {self.remat!r}")
        if self.width % self.heads:
            raise ValueError(f"{name}: heads must divide width={self.width}; got {self.heads}")
        if self.positions not in ("learned", "rotary"):
            raise ValueError(
                f"{name}: positions must be 'learned' or 'rotary'; got {self.positions!r}"
            )
        if self.context not in ("add", "film", "cross"):
            raise ValueError(
                f"{name}: context must be 'add', 'film' or 'cross'; got {self.context!r}"
            )
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"{name}: rotary positions need heads of an even width; got width={self.width} "
                f"and heads={self.heads}"
            )

    @property
    def context_ndim(self) -> int:
        """How many axes a context has: 2 for sequences, 1 for vectors."""
        return 2 if self.context == "cross" else 1


class RMSNorm(nn.Module):
    """The last axis over its root mean square, times a learned scale.

    Reference: Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467
    """

    dtypes: Dtypes

    @nn.compact
    def __call__(self, h: Array) -> Array:
        dtype, param_dtype = self.dtypes.of(h)
        scale = self.param("scale", nn.initializers.ones, h.shape[-1:], param_dtype)
        h = _over_root_mean_square(h)
        return (h * align(scale, h)).astype(dtype)


class Layer(nn.Module):
    """A layer, of all tokens (*batch, T, width), or of the next few."""

    config: AttentionNet

    def setup(self) -> None:
        config = self.config
        inner, small = config.expansion * config.width, 0.5 / config.layers
        self.norms = RMSNorm(config), RMSNorm(config)
        self.heads = Dense(3 * config.width, config)
        self.mixed = Dense(config.width, config, gain=small)
        self.wide = Dense(inner, config, gain=2.0)
        self.gate = Dense(inner, config) if config.gated else None
        self.narrow = Dense(config.width, config, gain=small)
        self.drop = nn.Dropout(config.dropout)
        self.film = Dense(4 * config.width, config, gain=0.1) if config.context == "film" else None
        self.cross = Cross(config) if config.context == "cross" else None

    def __call__(self, h: Array, context: Array | None, *, causal: bool) -> Array:
        given = self.given(context)
        queries, keys, values = self._heads(h, jnp.arange(h.shape[-2], dtype=jnp.int32), given)
        return self._rest(h, attention(queries, keys, values, causal=causal), given)

    def step(
        self, h: Array, given: Any, memory: tuple[Array, Array], i: Array
    ) -> tuple[Array, Array, Array]:
        """Tokens at places i, i + 1, ...; their keys and values, (*batch, heads, n, width / heads).

        Args:
          h: the tokens (*batch, n, width).
          given: what the context is in this layer.
          memory: keys and values of those before, (*batch, heads, T, width / heads); what is there
            from i on is not looked at.
          i: the place of the first.
        """
        places = i + jnp.arange(h.shape[-2], dtype=i.dtype)
        queries, keys, values = self._heads(h, places, given)
        found = recall(queries, keys, values, memory, i)
        keys, values = (jnp.swapaxes(a, -3, -2) for a in (keys, values))
        return self._rest(h, found, given), keys, values

    def given(self, context: Array | None) -> Any:
        """What the context is in this layer: of norms (*batch, 1, 4 width), or keys and values."""
        if context is None:
            return None
        if self.cross is not None:
            return self.cross.remembered(context)
        return None if self.film is None else self.film(context)

    def _normed(self, which: int, h: Array, given: Any) -> Array:
        normed = self.norms[which](h)
        if self.film is None or given is None:
            return normed
        scale, shift = jnp.split(given, 4, axis=-1)[2 * which : 2 * which + 2]
        return normed * (1 + scale) + shift

    def _heads(self, h: Array, places: Array, given: Any) -> tuple[Array, Array, Array]:
        """Queries, keys and values, (*batch, T, heads, width / heads)."""
        config = self.config
        queries, keys, values = split_heads(self.heads(self._normed(0, h, given)), config.heads)
        if config.qk_norm:
            queries, keys = _over_root_mean_square(queries), _over_root_mean_square(keys)
        if config.positions == "rotary":
            queries, keys = turned(queries, places), turned(keys, places)
        return queries, keys, values

    def _rest(self, h: Array, found: Array, given: Any) -> Array:
        still = not self.has_rng("dropout")
        h = h + self.drop(self.mixed(found.reshape(h.shape)), deterministic=still)
        if self.cross is not None and given is not None:
            h = h + self.drop(self.cross(h, *given), deterministic=still)
        normed = self._normed(1, h, given)
        wide = self.config.act(self.wide(normed))
        if self.gate is not None:
            wide = wide * self.gate(normed)
        return h + self.drop(self.narrow(wide), deterministic=still)


class Cross(nn.Module):
    """Attention of tokens (*batch, T, width) to those of a context (*batch, S, width).

    Reference: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 3.2.3
    """

    config: AttentionNet

    def setup(self) -> None:
        config = self.config
        self.norms = RMSNorm(config), RMSNorm(config)
        self.asked = Dense(config.width, config)
        self.known = Dense(2 * config.width, config)
        self.mixed = Dense(config.width, config, gain=0.5 / config.layers)

    def remembered(self, context: Array) -> tuple[Array, Array]:
        """Keys and values (*batch, S, heads, width / heads), once for all tokens."""
        keys, values = jnp.split(self.known(self.norms[1](context)), 2, axis=-1)
        return self._compared(self._by_head(keys)), self._by_head(values)

    def __call__(self, h: Array, keys: Array, values: Array) -> Array:
        queries = self._compared(self._by_head(self.asked(self.norms[0](h))))
        return self.mixed(attention(queries, keys, values, causal=False).reshape(h.shape))

    def _by_head(self, a: Array) -> Array:
        heads = self.config.heads
        return a.reshape(*a.shape[:-1], heads, a.shape[-1] // heads)

    def _compared(self, a: Array) -> Array:
        return _over_root_mean_square(a) if self.config.qk_norm else a


def split_heads(joined: Array, heads: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values (*, heads, d), of all of them joined, (*, 3 heads d)."""
    joined = joined.reshape(*joined.shape[:-1], 3, heads, joined.shape[-1] // (3 * heads))
    return joined[..., 0, :, :], joined[..., 1, :, :], joined[..., 2, :, :]


def attention(queries: Array, keys: Array, values: Array, *, causal: bool) -> Array:
    """softmax(Q K^T / sqrt(d)) V, of (*batch, T, heads, d); causal: of places up to one's own.

    As `jax.nn.dot_product_attention`, of any dtype and batch, and faster on CPU.
    """
    queries, keys, values = (jnp.swapaxes(a, -3, -2) for a in (queries, keys, values))
    queries = queries / math.sqrt(queries.shape[-1])
    scores = as_wide(jnp.einsum("...qd,...kd->...qk", queries, keys))
    scores = _causal(scores) if causal else scores
    most = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    shares = jnp.exp(scores - most)
    # Divided by their sum after the product, which is smaller than they are.
    found = jnp.einsum("...qk,...kd->...qd", shares.astype(values.dtype), values)
    total = jnp.sum(shares, axis=-1, keepdims=True).astype(values.dtype)
    return jnp.swapaxes(found / total, -3, -2)


def recall(
    queries: Array, keys: Array, values: Array, memory: tuple[Array, Array], i: Array
) -> Array:
    """Causal `attention` of tokens (*batch, n, heads, d) at places i, i + 1, ...

    `memory` has the keys and the values before, (*batch, heads, T, d).
    """
    known_keys, known_values = memory
    queries = queries / math.sqrt(queries.shape[-1])
    known = jnp.einsum("...qhd,...htd->...hqt", queries, known_keys)
    places = lax.broadcasted_iota(i.dtype, known.shape, known.ndim - 1)
    own = _causal(jnp.einsum("...qhd,...khd->...hqk", queries, keys))
    scores = jnp.concatenate([jnp.where(places < i, known, -jnp.inf), own], axis=-1)
    shares = jax.nn.softmax(as_wide(scores)).astype(values.dtype)
    known, own = jnp.split(shares, [known.shape[-1]], axis=-1)
    found = jnp.einsum("...hqt,...htd->...qhd", known, known_values)
    return found + jnp.einsum("...hqk,...khd->...qhd", own, values)


def _causal(scores: Array) -> Array:
    """Scores of queries and keys of the same places: -inf for those of later keys."""
    seen = np.tril(np.ones(scores.shape[-2:], bool))
    return scores + align(jnp.asarray(np.where(seen, 0, -np.inf)), scores)


def turned(a: Array, places: Array) -> Array:
    """Pairs of numbers of a (*batch, T, heads, d) turned by angles place * 10000^(-2 j / d).

    Products of two then depend on the difference of their places alone.

    Reference: Su et al., 2021, https://arxiv.org/abs/2104.09864, equation 15
    """
    half = a.shape[-1] // 2
    rates = 10_000 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (places.astype(jnp.float32)[:, None] * rates[None])[:, None]
    cos, sin = (align(f(angles), a) for f in (jnp.cos, jnp.sin))
    first, second = a[..., :half], a[..., half:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def _over_root_mean_square(h: Array) -> Array:
    squares = jnp.mean(jnp.square(as_wide(h)), axis=-1, keepdims=True)
    return h * lax.rsqrt(squares + 1e-6).astype(h.dtype)
