"""Changes of an event's shape."""

import math
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.bijectors.base import Bijector, Direction
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_number, as_wide, no_log_det
from jflow.functional.supports import Supports, mixed


class Squeeze(Bijector):
    """Trades resolution for channels: data (H, W, C) to base (H/f, W/f, f f C). log_det is 0.

    Integers stay such.

    inverse   x[i, j, (a f + b) C + c] = y[i f + a, j f + b, c]

    Attributes:
      factor: f, how many pixels along each side become one.

    Raises:
      ValueError: `factor` below 2, or a height or width that it does not divide.

    Reference: Real NVP, section 3.6, https://arxiv.org/abs/1605.08803
    """

    event_ndim = 3
    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"Squeeze: factor must be 2 or more; got {self.factor}")
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_number(x)
        f, batch, shape = self.factor, x.shape[:-3], self.data_shape(x.shape[-3:])
        x = x.reshape(*batch, *x.shape[-3:-1], f, f, shape[-1])
        y = jnp.swapaxes(x, -4, -3).reshape(*batch, *shape)
        return y, no_log_det(y, 3)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_number(y)
        height, width, channels = self.latent_shape(y.shape[-3:])
        f, batch = self.factor, y.shape[:-3]
        y = y.reshape(*batch, height, f, width, f, y.shape[-1])
        x = jnp.swapaxes(y, -4, -3).reshape(*batch, height, width, channels)
        return x, no_log_det(x, 3)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        height, width, channels = event_shape
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Squeeze: height and width must be multiples of {self.factor}; got "
                f"{event_shape}. Pad the images, or use fewer levels"
            )
        return (height // self.factor, width // self.factor, channels * self.factor**2)

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(latent_shape)
        height, width, channels = latent_shape
        if channels % self.factor**2:
            raise ValueError(
                f"Squeeze: forward needs channels that {self.factor**2} divides; got {latent_shape}"
            )
        return (height * self.factor, width * self.factor, channels // self.factor**2)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return mixed("Squeeze", support)


class CheckerboardSqueeze(Bijector):
    """Joins neighbours in a row: data (H, W, C) to base (H, W/2, 2 C). log_det is 0.

    The first C channels are of the pixels whose i + j is even, the last ones of the others, as the
    colours of a checkerboard; a coupling of mask "channel" then is one of a checkerboard, whose
    network computes nothing but what is needed. Integers stay such.

        inverse   x[i, j] = (y[i, 2 j + s], y[i, 2 j + 1 - s]),  s = i mod 2

    Raises:
      ValueError: an odd width, or (base side) an odd number of channels.

    Reference: Dinh et al., Real NVP, 2017, section 3.4, https://arxiv.org/abs/1605.08803
    """

    event_ndim = 3

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_number(x)
        batch, (height, width, channels) = x.shape[:-3], self.data_shape(x.shape[-3:])
        y = _turned(x.reshape(*batch, height, width // 2, 2, channels))
        return y.reshape(*batch, height, width, channels), no_log_det(x, 3)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_number(y)
        batch, (height, half, channels) = y.shape[:-3], self.latent_shape(y.shape[-3:])
        x = _turned(y.reshape(*batch, height, half, 2, channels // 2))
        return x.reshape(*batch, height, half, channels), no_log_det(y, 3)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        height, width, channels = event_shape
        if width % 2:
            raise ValueError(f"CheckerboardSqueeze: the width must be even; got {event_shape}")
        return height, width // 2, 2 * channels

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(latent_shape)
        height, width, channels = latent_shape
        if channels % 2:
            raise ValueError(
                f"CheckerboardSqueeze: forward needs an even number of channels; got {latent_shape}"
            )
        return height, 2 * width, channels // 2

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return mixed("CheckerboardSqueeze", support)


def _turned(pairs: Array) -> Array:
    """Pairs (*batch, H, W/2, 2, C), in odd rows in the other order."""
    rows = lax.broadcasted_iota(np.int32, pairs.shape, pairs.ndim - 4)
    return jnp.where(rows % 2 == 1, jnp.flip(pairs, axis=-2), pairs)


class HaarSqueeze(Squeeze):
    """`Squeeze` by 2, with the four pixels of a block turned into Haar wavelets. log_det is 0.

    inverse   with pixels a, b above c, d:  (a + b + c + d, a - b + c - d, a + b - c - d,
    a - b - c + d) / 2, in this order along the channels: the mean first, so a `MultiScale` whose
    level ends here keeps the coarse image.

    The map of a block is orthonormal and its own inverse.

    Raises:
      ValueError: a factor other than 2, or an odd height or width.

    Reference: Ardizzone et al., 2019, appendix, https://arxiv.org/abs/1907.02392
    """

    def __post_init__(self) -> None:
        if self.factor != 2:
            raise ValueError(f"HaarSqueeze: factor must be 2; got {self.factor}")
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return super().forward_and_log_det(_wavelets(as_wide(x)))

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        x, log_det = super().inverse_and_log_det(y)
        return _wavelets(x), log_det

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return Bijector._support(self, direction, support, event_shape)


def _wavelets(x: Array) -> Array:
    """Mixes four equal parts of the channels."""
    if x.shape[-1] % 4:
        raise ValueError(f"HaarSqueeze: forward needs channels that 4 divides; got {x.shape}")
    a, b, c, d = jnp.split(x, 4, axis=-1)
    sums = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
    return jnp.concatenate(sums, axis=-1) / 2


class Reshape(Bijector):
    """Arranges the numbers of an event in other axes, in the order of reading. log_det is 0.

        forward   y = x as an array of event_shape
        inverse   x = y as an array of latent

    Integers stay such. Features of vectors are pixels of images after it, or tokens:
    Reshape((8, 8, 1), (64,)).

    Attributes:
      event_shape: of data.
      latent: the shape of an event on the base side; of as many numbers.

    Raises:
      ValueError: a shape of other than whole numbers, 1 or more; or of another size.
    """

    event_shape: tuple[int, ...]
    latent: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("event_shape", "latent"):
            given: Any = getattr(self, name)
            shape = tuple(given) if isinstance(given, Iterable) else ()
            if not shape:
                raise ValueError(f"Reshape: {name} must be a shape, as (8, 8, 1); got {given!r}")
            check_counts("Reshape", **{f"{name}[{i}]": n for i, n in enumerate(shape)})
            object.__setattr__(self, name, tuple(int(n) for n in shape))
        if math.prod(self.event_shape) != math.prod(self.latent):
            raise ValueError(
                "Reshape: event_shape and latent must be of as many numbers; got "
                f"{self.event_shape} and {self.latent}"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x, axes = as_number(x), len(self.latent)
        self.data_shape(x.shape[-axes:])
        y = x.reshape(*x.shape[:-axes], *self.event_shape)
        return y, no_log_det(y, len(self.event_shape))

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y, axes = as_number(y), len(self.event_shape)
        self.latent_shape(y.shape[-axes:])
        x = y.reshape(*y.shape[:-axes], *self.latent)
        return x, no_log_det(x, len(self.latent))

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        if event_shape != self.event_shape:
            raise ValueError(
                f"Reshape: the event shape must be {self.event_shape}; got {event_shape}"
            )
        return self.latent

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        if latent_shape != self.latent:
            raise ValueError(f"Reshape: latents must be {self.latent}; got {latent_shape}")
        return self.event_shape

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return mixed("Reshape", support)
