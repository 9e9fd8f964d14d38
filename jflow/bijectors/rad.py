"""Piecewise maps, several of whose points share an image."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction, DirectionKind
from jflow.functional.arrays import align, as_wide
from jflow.nets.layers import check_factory
from jflow.nets.mlp import MLP


class RAD(Bijector):
    """Folds the line of each feature in three, and learns which piece a point came from.

    inverse is a deterministic, piecewise linear f, shaped like an N: with u = y - c,

        x = r (u + b) + s b   for u < -b        (k = 0)
        x = -s u              for |u| <= b      (k = 1)
        x = r (u - b) - s b   for u > b         (k = 2)
        log_det = sum_i log|f_i'| + log p(k_i | x, context)

    Up to three points share an image, so f is no bijection: the density of y is that of x, times
    |f'|, times p(k | x), where p is zero for pieces that do not reach x. forward draws k from p and
    returns the point of that piece, with minus the log_det above; it needs the RNG stream "noise"
    (`Density.sample` gives it), and `forward_kind` is "random". So inverse(forward(x)) = x, but
    forward(inverse(y)) may be another y. Log-likelihoods are exact.

    The density jumps where pieces meet, unless training makes both sides agree.

    Attributes:
      net: makes the network of p's logits; see `jflow.nets`.

    Raises:
      TypeError: `net` is a network, where what makes them is wanted, or makes other ones.
      ValueError: forward without the stream "noise".

    Reference: Dinh et al., A RAD approach to deep mixture models, 2019, eqs. 4-7,
    https://arxiv.org/abs/1903.07714
    """

    event_ndim = 1
    net: Callable[[int], nn.Module] = MLP((32, 32))

    def __post_init__(self) -> None:
        check_factory("RAD", self.net, event_ndim=1)
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        if not (self.has_rng("noise") or self.is_initializing()):
            raise ValueError(
                "RAD: forward draws one of several points; use sample, or give apply "
                "rngs={'noise': key}"
            )
        return self._fold(x, context, inverse=False)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._fold(y, context, inverse=True)

    @nn.compact
    def _fold(self, x: Array, context: Array | None, *, inverse: bool) -> tuple[Array, Array]:
        x = as_wide(x)
        self.latent_shape(x.shape[-1:])

        def param(name: str) -> Array:
            return align(self.param(name, nn.initializers.zeros, x.shape[-1:], x.dtype), x)

        centre, half = param("centre"), jnp.exp(param("log_half"))
        outer, inner = param("log_outer"), param("log_inner")
        reach = half * jnp.exp(inner)
        u = x - centre
        piece = jnp.where(u > half, 2, jnp.where(u < -half, 0, 1)).astype(jnp.int32)
        side = jnp.where(piece == 2, half, -half)
        bent = jnp.exp(outer) * (u - side) - jnp.sign(side) * reach
        base = jnp.where(piece == 1, -jnp.exp(inner) * u, bent) if inverse else x
        # The piece that a point lies in reaches its image, whatever rounding says.
        known = piece[..., None] == jnp.arange(3, dtype=jnp.int32).reshape((1,) * x.ndim + (3,))
        log_share = self._log_shares(base, reach, known & inverse, context)
        if not inverse:
            piece = jax.random.categorical(self.make_rng("noise"), log_share).astype(jnp.int32)
        chosen = jnp.take_along_axis(log_share, piece[..., None], axis=-1)[..., 0]
        log_det = jnp.sum(jnp.where(piece == 1, inner, outer) + chosen, axis=-1)
        if inverse:
            return base, log_det
        side = jnp.where(piece == 2, half, -half)
        straight = (x + jnp.sign(side) * reach) * jnp.exp(-outer) + side
        return jnp.where(piece == 1, -x * jnp.exp(-inner), straight) + centre, -log_det

    @nn.nowrap
    def _log_shares(self, x: Array, reach: Array, known: Array, context: Array | None) -> Array:
        """log p(k | x, context), (*batch, D, 3)."""
        net: Any = self.net(3 * x.shape[-1]).copy(name="shares")
        logits = net(x, context).astype(x.dtype).reshape(*x.shape, 3)
        reached = jnp.stack([x <= reach, jnp.abs(x) <= reach, x >= -reach], axis=-1)
        return jax.nn.log_softmax(jnp.where(reached | known, logits, -math.inf), axis=-1)

    @property
    def forward_kind(self) -> DirectionKind:
        return "random"

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        return direction == "forward"
