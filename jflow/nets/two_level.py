"""Causal networks in two levels: attention of tokens, and a masked network of what is in one."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial

from jflow.functional.arguments import check_counts
from jflow.functional.autoregressive import BlockStep, Causal, Step
from jflow.functional.masked_steps import MaskedFunction, set_rows
from jflow.nets.functions import as_function, without_dropout
from jflow.nets.made import MADE
from jflow.nets.transformer import CausalTokens, CausalTransformer, TokenFunction


@dataclass(frozen=True)
class TwoLevel:
    """Makes causal networks of vectors (D,), taken `size` numbers at a time, for
    `MaskedAutoregressive`.

    A causal transformer sums up the tokens before each; a masked network makes parameters of each
    number, of that summary and of the numbers before it in its token:

        h_j = outer(token_0, ..., token_j-1, context)
        p_i = inner(the numbers of token_j before i; h_j),    j = i / size

    So all numbers depend on all before, as if each were a token, and attention is of D / size.
    Images are such vectors after `Patchify` and `Reshape`. A step of the slow direction computes
    one number; the transformer runs in the first step of each token alone.

    Attributes:
      outer: the transformer, of tokens. The context enters here.
      inner: the masked network, of `size` numbers; with direct connections, its outputs are those
        of the transformer where it has learned nothing else.
      size: numbers of a token; it divides D.

    Raises:
      ValueError: a size below 1, or (on call) one that does not divide D; a transformer of vectors.
      TypeError: outer or inner are no such networks.

    Reference: Yu et al., MEGABYTE, 2023, https://arxiv.org/abs/2305.07185
    """

    outer: CausalTransformer = field(default_factory=CausalTransformer)
    inner: MADE = field(default_factory=lambda: MADE((128,), direct=True))
    size: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        check_counts("TwoLevel", size=self.size)
        for name, kind in (("outer", CausalTransformer), ("inner", MADE)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"TwoLevel: {name} must be a nets.{kind.__name__}; got {getattr(self, name)!r}"
                )
        if self.outer.event_ndim != 2:
            raise ValueError(
                "TwoLevel: outer must be a CausalTransformer of tokens (event_ndim=2); got one of "
                "vectors"
            )

    @property
    def context_ndim(self) -> int:
        """How many axes a context has: those of the transformer's."""
        return self.outer.context_ndim

    def __call__(self, outputs: int) -> nn.Module:
        """The network with that many outputs for each number of a vector."""
        return _TwoLevel(outputs, self)


class _TwoLevel(nn.Module):
    outputs: int
    config: TwoLevel

    @nn.compact
    def __call__(self, x: Array, context: Array | None) -> "TwoLevelFunction":
        size = self.config.size
        if x.shape[-1] % size:
            raise ValueError(
                f"TwoLevel: size must divide the {x.shape[-1]} numbers of an event; got {size}"
            )
        x = _tokens(x, size)
        # A summary of `width` numbers, or just above: for each number of a token so many.
        parts = -(-self.config.outer.width // size)
        # Not zero at the start, as the last layer of `inner` is: nothing would be learned of both.
        outer = CausalTokens(parts, self.config.outer, gain=1.0, name="outer")(x, context)
        h = jnp.zeros((*x.shape[:-1], parts * size), x.dtype)
        inner = as_function(self.config.inner(self.outputs).copy(name="inner"), x, h)
        return TwoLevelFunction(outer, inner, size, parts)


class _Cache(NamedTuple):
    """What the steps before have left.

    Attributes:
      outer: of the transformer.
      numbers: those before, (*batch, D).
      given: what h adds to the masked network, of the tokens so far, which lead.
      inner: of the masked network, of the tokens so far, which lead.
    """

    outer: Any
    numbers: Array
    given: Any
    inner: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TwoLevelFunction(Causal):
    """A `TwoLevel` bound to its weights and its context; positions are numbers of vectors.

    Attributes:
      outer: of tokens (*batch, T, size): their summaries, for each number a part.
      inner: of tokens and summaries (*batch, C): the `MaskedFunction` of these.
      size: numbers of a token.
      parts: of a summary, for each number of a token.
    """

    outer: TokenFunction
    inner: Partial
    size: int = field(metadata={"static": True})
    parts: int = field(metadata={"static": True})

    def __call__(self, u: Array) -> Array:
        tokens = _tokens(u, self.size)
        return self._flat(self._bound(tokens, self.outer(tokens))(tokens))

    def careful(self, u: Array) -> Array:
        tokens = _tokens(u, self.size)
        return self._flat(self._bound(tokens, self.outer.careful(tokens)).careful(tokens))

    def without_dropout(self) -> "TwoLevelFunction":
        outer, inner = self.outer.without_dropout(), without_dropout(self.inner)
        return replace(self, outer=outer, inner=inner)

    def start(self, like: Array) -> tuple[Any, Step]:
        tokens, size = _tokens(like, self.size), self.size
        nothing = jnp.zeros_like(tokens[..., 0, :])
        outer, next_token = self.outer.start(tokens)
        sum_up = partial(self._sum_up, next_token, nothing)
        _, empty = jax.eval_shape(sum_up, outer, like, jnp.zeros((), jnp.int32))
        empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), empty)
        plain = self._bound(nothing, jnp.zeros((*nothing.shape, self.parts), nothing.dtype))
        one, _ = _given_that(plain, empty).start(nothing)

        def step(cache: _Cache, i: Array, before: Array) -> Any:
            j, k = i // size, i % size
            at = jnp.maximum(i - 1, 0)
            numbers = lax.dynamic_update_slice_in_dim(cache.numbers, before[..., None], at, axis=-1)
            at_j = partial(jax.tree.map, lambda a: a[j])
            set_j = partial(jax.tree.map, lambda a, b: set_rows(a, b[None], j))
            outer, given = lax.cond(
                k == 0,
                lambda: sum_up(cache.outer, numbers, j),
                lambda: (cache.outer, at_j(cache.given)),
            )
            _, next_number = _given_that(plain, given).start(nothing)
            mine, params = next_number(at_j(cache.inner), k, jnp.where(k > 0, before, 0))
            inner, given = set_j(cache.inner, mine), set_j(cache.given, given)
            return _Cache(outer, numbers, given, inner), params

        count = tokens.shape[-2]
        given, inner = (
            jax.tree.map(lambda a: jnp.zeros((count, *a.shape), a.dtype), tree)
            for tree in (empty, one)
        )
        return _Cache(outer, jnp.zeros_like(like), given, inner), step

    def start_blocks(self, like: Array, size: int) -> tuple[Any, BlockStep]:
        if size % self.size:
            raise ValueError(
                f"Jacobi: block must be a multiple of the {self.size} numbers of a token; got "
                f"{size}"
            )
        outer, next_tokens = self.outer.start_blocks(_tokens(like, self.size), size // self.size)

        def step(outer: Any, i: Array, u: Array) -> Any:
            outer, h = next_tokens(outer, i // self.size, _tokens(u, self.size))
            tokens = _tokens(lax.dynamic_slice_in_dim(u, i, size, axis=-1), self.size)
            return outer, self._flat(self._bound(tokens, h).careful(tokens))

        return outer, step

    def _sum_up(
        self, next_token: Step, nothing: Array, outer: Any, numbers: Array, j: Array
    ) -> tuple[Any, Any]:
        """A step of the transformer, to token j, and what its summary adds to the inner network."""
        start = jnp.maximum(j - 1, 0) * self.size
        token = lax.dynamic_slice_in_dim(numbers, start, self.size, axis=-1)
        outer, h = next_token(outer, j, jnp.where(j > 0, token, 0))
        weights = self._bound(nothing, h).weights
        return outer, (weights.context, weights.direct_context)

    def _bound(self, tokens: Array, summaries: Array) -> MaskedFunction:
        """The masked network of tokens (*batch, size), given (*batch, size, parts) of each."""
        *batch, size, parts = summaries.shape
        return self.inner(tokens, summaries.reshape(*batch, size * parts))

    def _flat(self, params: Array) -> Array:
        *batch, count, size, outputs = params.shape
        return params.reshape(*batch, count * size, outputs)


def _given_that(plain: MaskedFunction, given: tuple[Array, Array | None]) -> MaskedFunction:
    """The network with what a summary adds to it."""
    context, direct = given
    weights = plain.weights._replace(context=context, direct_context=direct)
    return replace(plain, weights=weights)


def _tokens(x: Array, size: int) -> Array:
    return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)
