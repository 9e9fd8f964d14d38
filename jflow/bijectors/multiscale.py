"""The multi-scale architecture of Real NVP and Glow."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.bijectors.base import Bijector
from jflow.functional.arrays import as_wide


class MultiScale(Bijector):
    """Runs levels of bijectors, and after each sets half of the channels aside.

    From the data: the first level acts on the image, the second half of the channels of its
    result becomes latent, and the first half goes on to the next level, and so forth; the last
    level's result is latent whole. The latents of all levels are joined into one flat vector
    of the image's size, the finest level first.

    This bijector only splits. A learned prior for the half set aside is the last coupling of
    its level, with mask "channel": it transforms that half, given the half that goes on.

    Attributes:
      levels: one bijector each, the nearest to the data first. Each usually begins with
        `Squeeze`.
      image_shape: (height, width, channels) on the data side.

    Raises:
      ValueError: no levels, or a level that cannot act on what the one before leaves it.

    Reference: Real NVP, section 3.6, https://arxiv.org/abs/1605.08803
    """

    levels: tuple[Bijector, ...]
    image_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        if not self.levels:
            raise ValueError("MultiScale: levels must hold one bijector or more; got none")
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        latents = self.latent_levels(as_wide(x))
        y, log_det = self.levels[-1].forward_and_log_det(latents[-1], context)
        for level, latent in zip(self.levels[-2::-1], latents[-2::-1], strict=True):
            joined = jnp.concatenate([y, latent], axis=-1)
            y, level_log_det = level.forward_and_log_det(joined, context)
            log_det = log_det + level_log_det
        return y, log_det

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        self.latent_shape(y.shape[-3:])
        kept, log_det = self.levels[0].inverse_and_log_det(as_wide(y), context)
        latents = []
        for level in self.levels[1:]:
            kept, latent = jnp.split(kept, 2, axis=-1)
            latents.append(latent)
            kept, level_log_det = level.inverse_and_log_det(kept, context)
            log_det = log_det + level_log_det
        flat = [a.reshape(*y.shape[:-3], math.prod(a.shape[-3:])) for a in (*latents, kept)]
        return jnp.concatenate(flat, axis=-1), log_det

    @property
    def parts(self) -> tuple[Bijector, ...]:
        return self.levels

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(event_shape) != self.image_shape:
            raise ValueError(
                f"MultiScale: built for images of {self.image_shape}; got {tuple(event_shape)}"
            )
        return (sum(math.prod(shape) for shape in self.level_shapes()),)

    @nn.nowrap
    def level_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each level's latent, the finest first."""
        shapes, shape = [], self.image_shape
        for i, level in enumerate(self.levels, start=1):
            shape = level.latent_shape(shape)
            if i < len(self.levels):
                if shape[-1] % 2:
                    raise ValueError(
                        f"MultiScale: level {i} of {len(self.levels)} must leave an even number "
                        f"of channels to halve; got {shape}"
                    )
                shape = (*shape[:-1], shape[-1] // 2)
            shapes.append(shape)
        return tuple(shapes)

    @nn.nowrap
    def latent_levels(self, x: Array) -> tuple[Array, ...]:
        latents, start = [], 0
        for shape in self.level_shapes():
            stop = start + math.prod(shape)
            latents.append(x[..., start:stop].reshape(*x.shape[:-1], *shape))
            start = stop
        return tuple(latents)
