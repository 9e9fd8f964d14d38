"""Images as sequences of patches, and pairs of these."""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_number, no_log_det, permute
from jflow.functional.supports import Supports, mixed


class Patchify(Bijector):
    """Cuts images into patches: data (H, W, C) to base (H W / p^2, p p C), tokens. log_det is 0.

    Tokens are in the order of reading, as are the pixels of each. Integers stay such.

        inverse   x[i W / p + j, (a p + b) C + c] = y[i p + a, j p + b, c]

    Attributes:
      image_shape: (H, W, C): of tokens alone one cannot tell.
      size: p, how many pixels along each side are a patch.

    Raises:
      ValueError: sizes that are not whole numbers, or `size` does not divide the height and width.

    Reference: Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929
    """

    image_shape: tuple[int, int, int]
    size: int = 2

    def __post_init__(self) -> None:
        given: Any = self.image_shape
        shape = tuple(given) if isinstance(given, Iterable) else ()
        check_counts("Patchify", size=self.size)
        if len(shape) != 3:
            raise ValueError(
                f"Patchify: image_shape must be (height, width, channels); got {given!r}"
            )
        height, width, channels = shape
        check_counts("Patchify", height=height, width=width, channels=channels)
        if height % self.size or width % self.size:
            raise ValueError(
                f"Patchify: size must divide the height and the width of {shape}; got {self.size}"
            )
        object.__setattr__(self, "image_shape", tuple(int(n) for n in shape))
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x, (height, width, channels), p = as_number(x), self.image_shape, self.size
        self.data_shape(x.shape[-2:])
        batch = x.shape[:-2]
        x = x.reshape(*batch, height // p, width // p, p, p, channels)
        y = jnp.swapaxes(x, -4, -3).reshape(*batch, *self.image_shape)
        return y, no_log_det(y, 3)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y, (height, width, channels), p = as_number(y), self.image_shape, self.size
        tokens, batch = self.latent_shape(y.shape[-3:]), y.shape[:-3]
        y = y.reshape(*batch, height // p, p, width // p, p, channels)
        x = jnp.swapaxes(y, -4, -3).reshape(*batch, *tokens)
        return x, no_log_det(x, 2)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        if event_shape != self.image_shape:
            raise ValueError(
                f"Patchify: the event shape must be {self.image_shape}; got {event_shape}"
            )
        return self._tokens

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        if latent_shape != self._tokens:
            raise ValueError(
                f"Patchify: tokens of images {self.image_shape} must be {self._tokens}; got "
                f"{latent_shape}"
            )
        return self.image_shape

    @property
    def _tokens(self) -> tuple[int, int]:
        height, width, channels = self.image_shape
        return height * width // self.size**2, self.size**2 * channels

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return mixed("Patchify", support)


class PairTokens(Bijector):
    """Joins tokens two by two: data (T, F) to base (T / 2, 2 F). log_det is 0.

    The pairs are drawn when the parameters are initialised, and kept in the collection "constants";
    in `Repeat`, each layer draws its own. A coupling of the last axis then is one of tokens: half
    of them are transformed, given the other half. Integers stay such.

        inverse   x[i] = (y[o[i]], y[o[i + T / 2]]),  o a permutation

    Raises:
      ValueError: an odd number of tokens, or (base side) an odd number of features.

    Reference: Kolesnikov, Pinto, Tschannen, Jet, 2024, https://arxiv.org/abs/2412.15129
    """

    event_ndim = 2

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_number(x)
        self.data_shape(x.shape[-2:])
        order = self._order(2 * x.shape[-2])
        y = jnp.concatenate(jnp.split(x, 2, axis=-1), axis=-2)
        return permute(y, jnp.argsort(order), axis=-2), no_log_det(x, 2)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_number(y)
        self.latent_shape(y.shape[-2:])
        x = permute(y, self._order(y.shape[-2]), axis=-2)
        return jnp.concatenate(jnp.split(x, 2, axis=-2), axis=-1), no_log_det(y, 2)

    @nn.compact
    def _order(self, tokens: int) -> Array:
        draw = lambda: jax.random.permutation(self.make_rng(), tokens)  # noqa: E731
        return self.variable("constants", "order", draw).value

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        tokens, features = event_shape
        if tokens % 2:
            raise ValueError(f"PairTokens: needs an even number of tokens; got {event_shape}")
        return tokens // 2, 2 * features

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(latent_shape)
        tokens, features = latent_shape
        if features % 2:
            raise ValueError(
                f"PairTokens: forward needs an even number of features; got {latent_shape}"
            )
        return 2 * tokens, features // 2

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return mixed("PairTokens", support)
