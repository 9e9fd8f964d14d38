"""Transformers: networks of tokens by attention, of all tokens or of those before."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial

from jflow.functional.arrays import align
from jflow.functional.autoregressive import BlockStep, Causal, Step
from jflow.nets.attention import AttentionNet, Layer, RMSNorm
from jflow.nets.functions import as_function, other_method, without_dropout
from jflow.nets.layers import Dense, aligned_context


@dataclass(frozen=True)
class Transformer(AttentionNet):
    """Makes transformers: tokens (..., T, F) and context (..., C) to (..., T, features).

    The context enters every token, or, with context="cross", is a sequence (..., S, C) to which
    they attend. The last layer starts at zero. For couplings of patches of
    images (ViT), and all else that is of sets or sequences of vectors.

    Attributes:
      width, layers, heads, expansion, gated, positions, qk_norm, context, remat: see
        `AttentionNet`.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: a count is out of range, or heads do not divide the width.

    References: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762; Dosovitskiy et al., 2021,
    https://arxiv.org/abs/2010.11929
    """

    @property
    def event_ndim(self) -> int:
        """How many axes an event has: tokens, and the numbers of one."""
        return 2

    def __call__(self, features: int) -> nn.Module:
        """The network with that many outputs for each token."""
        return _Transformer(features, self)


@dataclass(frozen=True)
class CausalTransformer(AttentionNet):
    """Makes causal transformers, for `MaskedAutoregressive`: parameters from the tokens before.

    Positions are the tokens of events (T, F), or the features of vectors (D,). Token i of the
    network is number i - 1 of the event, so that the first ones see nothing but the context. A step
    of the slow direction computes one token, and remembers keys and values of those before: all
    steps together cost about one evaluation. The context (C,) enters every token, or, with
    context="cross", is a sequence (S, C) to which they attend. The last layer starts at zero.
    Dropout acts where all tokens are evaluated at once.

    Attributes:
      event_ndim: 2 for events (T, F), 1 for vectors.
      width, layers, heads, expansion, gated, positions, qk_norm, context, remat: see
        `AttentionNet`.
      activation, dropout, dtype, param_dtype: see `Net`.

    Raises:
      ValueError: a count is out of range, or heads do not divide the width.

    References: Zhai et al., TarFlow, 2024, https://arxiv.org/abs/2412.06329; Patacchiola et al.,
    T-NAF, 2024, https://arxiv.org/abs/2401.01855
    """

    makes: ClassVar[str] = "causal functions"

    event_ndim: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.event_ndim not in (1, 2) or isinstance(self.event_ndim, bool):
            raise ValueError(
                "CausalTransformer: event_ndim must be 2, for events (tokens, features), or 1, for "
                f"vectors; got {self.event_ndim!r}"
            )

    def __call__(self, outputs: int) -> nn.Module:
        """The network with that many outputs for each number of an event."""
        return CausalTokens(outputs, self)


class _Tokens(nn.Module):
    """From tokens (*batch, T, F) to (*batch, T, outputs)."""

    outputs: int
    config: AttentionNet
    gain: float = 0.0

    def setup(self) -> None:
        config = self.config
        self.embed = Dense(config.width, config)
        self.given = Dense(config.width, config) if config.context != "cross" else None
        self.layers = Layer(config)
        self.norm = RMSNorm(config)
        self.last = Dense(self.outputs, config, gain=self.gain)

    def all(self, x: Array, context: Array | None, places: Array | None, causal: bool) -> Array:
        """Of all tokens at once."""

        def layer(layer: Layer, h: Array) -> tuple[Array, None]:
            return layer(h, context, causal=causal), None

        remat = self.config.remat
        if remat is None:
            remat = jax.default_backend() == "cpu"
        run = nn.remat(layer, prevent_cse=False) if remat else layer
        h, _ = self._loop(run)(self.layers, self._first(x, context, places))
        return self.last(self.norm(h)).astype(x.dtype)

    def step(
        self, x: Array, context: Any, places: Array | None, given: Any, memory: Any, i: Array
    ) -> tuple[Array, Any]:
        """Of tokens x (*batch, n, F) from place i on; and what their layers leave: keys, values."""

        def layer(layer: Layer, h: Array, given: Any, memory: Any, i: Array) -> tuple[Array, Any]:
            h, *left = layer.step(h, given, memory, i)
            return h, tuple(left)

        loop = self._loop(layer, in_axes=(0, 0, nn.broadcast))
        h, left = loop(self.layers, self._first(x, context, places), given, memory, i)
        return self.last(self.norm(h)).astype(x.dtype), left

    def in_layers(self, context: Array | None) -> Any:
        """What the context is in each layer, the same in all steps."""

        def layer(layer: Layer, nothing: tuple[()]) -> tuple[tuple[()], Any]:
            return nothing, layer.given(context)

        _, given = self._loop(layer)(self.layers, ())
        return given

    def _first(self, x: Array, context: Array | None, places: Array | None) -> Array:
        h = self.embed(x)
        if context is not None and self.given is not None:
            h = h + self.given(context).astype(h.dtype)
        return h if places is None else h + align(places, h)

    def _loop(self, layer: Any, **options: Any) -> Any:
        return nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.config.layers,
            **options,
        )


def _learned(module: nn.Module, config: AttentionNet, x: Array) -> Array | None:
    """Vectors of the places of x (*batch, T, F): (T, width)."""
    return _vectors(module, "positions", config, x) if config.positions == "learned" else None


def _vectors(module: nn.Module, name: str, config: AttentionNet, x: Array) -> Array:
    _, param_dtype = config.of(x)
    shape = x.shape[-2], config.width
    return module.param(name, nn.initializers.normal(0.5), shape, param_dtype)


def _entering(module: nn.Module, config: AttentionNet, context: Any, x: Array) -> Array | None:
    """The context as tokens x (*batch, T, F) take it: (*batch, 1, C), or tokens (*batch, S, width).

    A context of all of a batch has axes of size 1 in place of its own.
    """
    if context is None:
        return None
    context = aligned_context(context, x.shape[:-2], config.context_ndim).astype(x.dtype)
    if config.context != "cross":
        return context[..., None, :]
    h = Dense(config.width, config, name="context")(context)
    return h + align(_vectors(module, "context_positions", config, context), h)


class _Transformer(nn.Module):
    features: int
    config: AttentionNet

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        given = _entering(self, self.config, context, x)
        places = _learned(self, self.config, x)
        tokens = _Tokens(self.features, self.config, name="tokens")
        return tokens.all(x, given, places, causal=False)


class CausalTokens(nn.Module):
    """The parameters of a `CausalTransformer`; `gain` is the variance of its outputs at first."""

    outputs: int
    config: CausalTransformer
    gain: float = 0.0

    @nn.compact
    def __call__(self, x: Array, context: Array | None) -> "TokenFunction":
        ndim = self.config.event_ndim
        x = x if ndim == 2 else x[..., None]
        features = x.shape[-1]
        tokens = _Tokens(features * self.outputs, self.config, self.gain, name="tokens")
        given = _entering(self, self.config, context, x)
        places = _learned(self, self.config, x)
        function = as_function(tokens, x, given, places, True, method="all")
        return TokenFunction(function, given, places, self.config, self.outputs, ndim)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenFunction(Causal):
    """A `CausalTransformer` bound to its weights and its context; positions are tokens.

    Attributes:
      function: of tokens (*batch, T, F), the context, places and whether it is causal.
      context: (*batch, 1, C), which every token is given, or (*batch, S, width), which they attend
        to, with axes of size 1 if there is one for all of a batch; or None.
      places: vectors of the places (T, width), or None.
      config: the transformer's.
      outputs: numbers for each number of a token.
      event_ndim: 2, or 1 where tokens are numbers.
    """

    function: Partial
    context: Array | None
    places: Array | None
    config: AttentionNet = field(metadata={"static": True})
    outputs: int = field(metadata={"static": True})
    event_ndim: int = field(metadata={"static": True})  # type: ignore[misc]

    def __call__(self, u: Array) -> Array:
        return self._params(self.function(self._before(u), self.context, self.places, True))

    def careful(self, u: Array) -> Array:
        return self(_bounded(u))

    def without_dropout(self) -> "TokenFunction":
        return replace(self, function=without_dropout(self.function))

    def start(self, like: Array) -> tuple[Any, Step]:
        memory, several = self._start(like)

        def step(memory: Any, i: Array, before: Array) -> Any:
            x = before[..., None, :] if self.event_ndim == 2 else before[..., None, None]
            memory, found = several(memory, i, x)
            return memory, jnp.squeeze(self._params(found), axis=-1 - self.event_ndim)

        return memory, step

    def start_blocks(self, like: Array, size: int) -> tuple[Any, BlockStep]:
        memory, several = self._start(like)

        def step(memory: Any, i: Array, u: Array) -> Any:
            x = lax.dynamic_slice_in_dim(self._before(_bounded(u)), i, size, axis=-2)
            memory, found = several(memory, i, x)
            return memory, self._params(found)

        return memory, step

    def _start(self, like: Array) -> tuple[Any, Callable[[Any, Array, Array], Any]]:
        """No keys and values, and what adds those of a few tokens: of (memory, i, tokens)."""
        config, tokens = self.config, like if self.event_ndim == 2 else like[..., None]
        run = other_method(self.function, "step")
        dtype, _ = config.of(like)
        *batch, count, _ = tokens.shape
        width = config.width // config.heads
        empty = jnp.zeros((config.layers, *batch, config.heads, count, width), dtype)
        given = other_method(self.function, "in_layers")(self.context)

        def several(memory: tuple[Array, Array], i: Array, x: Array) -> Any:
            places = self.places
            if places is not None:
                places = lax.dynamic_slice_in_dim(places, i, x.shape[-2])
            found, left = run(x, self.context, places, given, memory, i)
            write = partial(lax.dynamic_update_slice_in_dim, start_index=i, axis=-2)
            return tuple(write(m, n) for m, n in zip(memory, left, strict=True)), found

        return (empty, empty), several

    def _before(self, u: Array) -> Array:
        """Of each position, the token before; zeros first."""
        u = u if self.event_ndim == 2 else u[..., None]
        return jnp.concatenate([jnp.zeros_like(u[..., :1, :]), u[..., :-1, :]], axis=-2)

    def _params(self, found: Array) -> Array:
        """(*, F * outputs) as (*, F, outputs), parameter by parameter; (*, outputs) of vectors."""
        features = found.shape[-1] // self.outputs
        parts = found.reshape(*found.shape[:-1], self.outputs, features)
        parts = jnp.swapaxes(parts, -1, -2)
        return parts if self.event_ndim == 2 else parts[..., 0, :]


def _bounded(u: Array) -> Array:
    """So that no square overflows: what is infinite would touch tokens before, times zero."""
    return jnp.clip(u, -1e15, 1e15)
