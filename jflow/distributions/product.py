"""Different bases for different features."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jflow.distributions.base import (
    Base,
    build,
    draw,
    own_batch,
    reparameterized,
    support_of,
    tempered,
)
from jflow.functional.supports import Supports, entries, joined


class Product(nn.Module):
    """Independent bases side by side, for events that are vectors.

        log p(x) = log p_1(x_1) + log p_2(x_2) + ...      x = (x_1, x_2, ...)

    Outside the support of one part the whole is -inf, with gradient zero.

    Attributes:
      bases: one for each group of features; modules and plain callables may be mixed.
      sizes: how many features each group has; None for one each.

    Raises:
      ValueError: no bases, a module given twice, `sizes` that do not match the bases, or (on
        call) an event that is not a vector of sum(sizes) features.
    """

    bases: tuple[Base, ...]
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bases", tuple(self.bases))
        if not self.bases:
            raise ValueError("Product: bases must hold one base or more; got none")
        modules = [base for base in self.bases if isinstance(base, nn.Module)]
        if len({id(base) for base in modules}) < len(modules):
            raise ValueError(
                "Product: one instance is given twice and would share its parameters; build it "
                "anew, or give it one group of more features with sizes"
            )
        if self.sizes is not None:
            object.__setattr__(self, "sizes", tuple(self.sizes))
            if len(self.sizes) != len(self.bases) or min(self.sizes) < 1:
                raise ValueError(
                    f"Product: sizes must hold {len(self.bases)} positive numbers, one for each "
                    f"base; got {self.sizes}"
                )
        super().__post_init__()

    @property
    def reparameterized(self) -> bool:
        """Whether the samples of all parts are differentiable with respect to all parameters."""
        return all(map(reparameterized, self.bases))

    @nn.nowrap
    def support(self, event_shape: tuple[int, ...]) -> Supports:
        """Those of the bases, side by side."""
        each = zip(self.bases, self._sizes(event_shape), strict=True)
        return joined(part for base, n in each for part in entries(support_of(base, (n,)), n))

    def _sizes(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = self.sizes or (1,) * len(self.bases)
        if event_shape != (sum(sizes),):
            raise ValueError(
                f"Product: the event shape must be ({sum(sizes)},), as sizes are {sizes}; got "
                f"{event_shape}"
            )
        return sizes

    def __call__(
        self, event_shape: tuple[int, ...], dtype: DTypeLike, context: Array | None = None
    ) -> Any:
        """The distribution of vectors of sum(sizes) features."""
        sizes = self._sizes(event_shape)
        parts = tuple(
            build(base, (size,), dtype, context)
            for base, size in zip(self.bases, sizes, strict=True)
        )
        return _Product(parts, sizes)


@dataclass(frozen=True)
class _Product:
    """Distributions of vectors, side by side."""

    parts: tuple[Any, ...]
    sizes: tuple[int, ...]

    @property
    def batch(self) -> tuple[int, ...]:
        """That of the parts which depend on a batch of contexts; () if none does."""
        each = zip(self.parts, self.sizes, strict=True)
        return max((own_batch(part, (size,)) for part, size in each), key=len)

    def sample(self, *, seed: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        keys, shape = jax.random.split(seed, len(self.parts)), (*sample_shape, *self.batch)
        each = zip(self.parts, self.sizes, keys, strict=True)
        return jnp.concatenate([draw(part, key, shape, (n,)) for part, n, key in each], axis=-1)

    def log_prob(self, x: Array) -> Array:
        pieces = jnp.split(x, list(accumulate(self.sizes))[:-1], axis=-1)
        each = zip(self.parts, pieces, strict=True)
        total = sum(part.log_prob(piece) for part, piece in each)
        return jnp.where(jnp.isneginf(total), -jnp.inf, total)

    def mean(self) -> Array:
        each = zip(self.parts, self.sizes, strict=True)
        means = [jnp.broadcast_to(part.mean(), (*self.batch, n)) for part, n in each]
        return jnp.concatenate(means, axis=-1)

    def tempered(self, temperature: float | Array) -> "_Product":
        """Each part by itself."""
        return _Product(tuple(tempered(part, temperature) for part in self.parts), self.sizes)
