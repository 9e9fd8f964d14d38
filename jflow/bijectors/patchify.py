"""Images as sequences of patches."""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector, Direction
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_number, no_log_det
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
