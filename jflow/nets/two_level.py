"""Causal networks in two levels: attention of tokens, and a masked network of what is in one."""

from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial

from jflow.functional.arguments import check_counts, check_numbers
from jflow.functional.autoregressive import BlockStep, Causal, Step
from jflow.functional.masked_steps import MaskedFunction, set_rows
from jflow.nets.functions import as_function, without_dropout
from jflow.nets.made import MADE
from jflow.nets.transformer import CausalTokens, CausalTransformer, TokenFunction

# Of networks without `far`, tokens that are near count no further from zero than about this.
_NEAR_FAR = 8.0


@dataclass(frozen=True)
class TwoLevel:
    """Makes causal networks of vectors (D,), taken `size` numbers at a time, for
    `MaskedAutoregressive`.

    A causal transformer sums up the tokens before each; a masked network makes parameters of each
    number, of that summary and of the numbers before it in its token:

        h_j = outer(token_0, ..., token_j-1, context)
        p_i = inner(the numbers of token_j before i; h_j, n_j),    j = i / size

    So all numbers depend on all before, as if each were a token, and attention is of D / size.
    Images are such vectors after `Patchify` and `Reshape`. With `row`, n_j are the tokens before j
    that are next to it in the image: of what is near, attention would have to learn where it is.
    With `far`, both networks see a number x as far * tanh(x / far): beyond what data have, a masked
    network would go on along lines, and samples run away.
    A step of the slow direction computes one number; the transformer runs in the first step of each
    token alone.

    Attributes:
      outer: the transformer, of tokens. The context enters here.
      inner: the masked network, of `size` numbers; with direct connections, its outputs are those
        of the transformer where it has learned nothing else.
      size: numbers of a token; it divides D.
      row: how many tokens a row of the image has; None for tokens of something else, whose n_j is
        empty. The layer's order must be "natural" or "reversed" for n_j to be near.
      reach: how many rows and columns around j belong to n_j, if there is a row.
      far: no number counts further from zero than this. Some of the data should be about as far, so
        that little that samples can be is new to the networks: 3 where numbers have about unit
        variance. None for no bound, but one of 8 for n_j.

    Raises:
      ValueError: a size, row or reach below 1, a far that is not above 0, or (on call) a size that
        does not divide D, or a row that does not divide D / size; a transformer of vectors.
      TypeError: outer or inner are no such networks.

    Reference: Yu et al., MEGABYTE, 2023, https://arxiv.org/abs/2305.07185
    """

    makes: ClassVar[str] = "causal functions"

    outer: CausalTransformer = field(default_factory=CausalTransformer)
    inner: MADE = field(default_factory=lambda: MADE((128,), direct=True))
    size: int = field(default=4, kw_only=True)
    row: int | None = field(default=None, kw_only=True)
    reach: int = field(default=1, kw_only=True)
    far: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        row = 1 if self.row is None else self.row
        check_counts("TwoLevel", size=self.size, row=row, reach=self.reach)
        if self.far is not None:
            check_numbers("TwoLevel", above=0, far=self.far)
            object.__setattr__(self, "far", float(self.far))
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
        if x.shape[-2] % (self.config.row or 1):
            raise ValueError(
                f"TwoLevel: row must divide the {x.shape[-2]} tokens of an event; got "
                f"{self.config.row}"
            )
        # A summary of `width` numbers, or just above: for each number of a token so many.
        parts = -(-self.config.outer.width // size)
        # Not zero at the start, as the last layer of `inner` is: nothing would be learned of both.
        outer = CausalTokens(parts, self.config.outer, gain=1.0, name="outer")(x, context)
        row, reach, far = self.config.row, self.config.reach, self.config.far
        grid = None if row is None else (row, reach, _NEAR_FAR if far is None else None)
        h = jnp.zeros((*x.shape[:-1], parts * size), x.dtype)
        given = jnp.concatenate([h, _near(x, grid)], axis=-1)
        inner = as_function(self.config.inner(self.outputs).copy(name="inner"), x, given)
        return TwoLevelFunction(outer, inner, size, parts, grid, far)


class _Cache(NamedTuple):
    """What the steps before have left.

    Attributes:
      outer: of the transformer.
      numbers: those before, (*batch, D).
      given: what h and n add to the masked network, of the tokens so far, which lead.
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
      inner: of tokens and of what is known of each (*batch, C), its summary and the tokens near
        it: the `MaskedFunction` of these.
      size: numbers of a token.
      parts: of a summary, for each number of a token.
      grid: how many tokens a row has, how many rows and columns around are near, and how far from
        zero these count if that is not said by far; or None.
      far: how far from zero numbers count; or None.
    """

    outer: TokenFunction
    inner: Partial
    size: int = field(metadata={"static": True})
    parts: int = field(metadata={"static": True})
    grid: tuple[int, int, float | None] | None = field(metadata={"static": True})
    far: float | None = field(metadata={"static": True})

    def __call__(self, u: Array) -> Array:
        tokens = self._tokens(u)
        near = _near(tokens, self.grid)
        return self._flat(self._bound(tokens, self.outer(tokens), near)(tokens))

    def careful(self, u: Array) -> Array:
        tokens = self._tokens(u)
        near = _near(tokens, self.grid)
        return self._flat(self._bound(tokens, self.outer.careful(tokens), near).careful(tokens))

    def without_dropout(self) -> "TwoLevelFunction":
        outer, inner = self.outer.without_dropout(), without_dropout(self.inner)
        return replace(self, outer=outer, inner=inner)

    def start(self, like: Array) -> tuple[Any, Step]:
        tokens, size = self._tokens(like), self.size
        nothing = jnp.zeros_like(tokens[..., 0, :])
        outer, next_token = self.outer.start(tokens)
        sum_up = partial(self._sum_up, next_token, nothing)
        _, empty = jax.eval_shape(sum_up, outer, like, jnp.zeros((), jnp.int32))
        empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), empty)
        no_summary = jnp.zeros((*nothing.shape, self.parts), nothing.dtype)
        plain = self._bound(nothing, no_summary, _near(tokens, self.grid, 0))
        one, _ = _given_that(plain, empty).start(nothing)

        def step(cache: _Cache, i: Array, before: Array) -> Any:
            j, k = i // size, i % size
            before = _seen(before, self.far)
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
        outer, next_tokens = self.outer.start_blocks(self._tokens(like), size // self.size)

        def step(outer: Any, i: Array, u: Array) -> Any:
            j, tokens = i // self.size, self._tokens(u)
            outer, h = next_tokens(outer, j, tokens)
            near = _near(tokens, self.grid, j + np.arange(size // self.size, dtype=np.int32))
            tokens = lax.dynamic_slice_in_dim(tokens, j, size // self.size, axis=-2)
            return outer, self._flat(self._bound(tokens, h, near).careful(tokens))

        return outer, step

    def _sum_up(
        self, next_token: Step, nothing: Array, outer: Any, numbers: Array, j: Array
    ) -> tuple[Any, Any]:
        """A step of the transformer; what is known of token j then adds to the inner network."""
        start = jnp.maximum(j - 1, 0) * self.size
        token = lax.dynamic_slice_in_dim(numbers, start, self.size, axis=-1)
        outer, h = next_token(outer, j, jnp.where(j > 0, token, 0))
        near = _near(_tokens(numbers, self.size), self.grid, j)
        weights = self._bound(nothing, h, near).weights
        return outer, (weights.context, weights.direct_context)

    def _bound(self, tokens: Array, summaries: Array, near: Array) -> MaskedFunction:
        """The masked network of tokens (*batch, size), their summaries and what is near."""
        *batch, size, parts = summaries.shape
        known = jnp.concatenate([summaries.reshape(*batch, size * parts), near], axis=-1)
        return self.inner(tokens, known)

    def _tokens(self, u: Array) -> Array:
        """Tokens of u as the networks see them."""
        return _seen(_tokens(u, self.size), self.far)

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


def _seen(x: Array, far: float | None) -> Array:
    return x if far is None else far * jnp.tanh(x / far)


def _near(tokens: Array, grid: tuple[int, int, float | None] | None, j: Any = slice(None)) -> Array:
    """Of each token (*batch, T, F), or of token j, those before that are near it: (..., F * count).

    Zeros where the image ends; an empty axis without a grid.
    """
    count, (*about, far) = tokens.shape[-2], grid or (1, 0, None)
    place = jnp.asarray(_neighbours(count, *about))[j]
    found = jnp.where(place[..., None] >= 0, jnp.take(tokens, jnp.maximum(place, 0), axis=-2), 0)
    found = _seen(found, far)
    return found.reshape(*found.shape[:-2], place.shape[-1] * tokens.shape[-1])


@cache
def _neighbours(count: int, row: int, reach: int) -> np.ndarray:
    """The places of those before each of so many tokens that are near it, -1 beyond the image."""
    token = np.arange(count, dtype=np.int32)
    column, most = token % row, min(reach, row - 1)
    beside = [(0, right) for right in range(-most, 0)]
    rows = range(1, min(reach, count // row - 1) + 1)
    above = [(up, right) for up in rows for right in range(-most, most + 1)]
    found = [
        np.where((column + right >= 0) & (column + right < row), token - up * row + right, -1)
        for up, right in beside + above
    ]
    return np.maximum(np.stack(found, axis=-1), -1) if found else np.zeros((count, 0), np.int32)
