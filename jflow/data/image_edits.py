"""What people do with images and a density of them: mix, edit, complete, clean and enlarge."""

import math
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.data import restoring
from jflow.data.image_scores import slerp
from jflow.data.parts import in_parts
from jflow.data.restoring import Effort, Normal, Restored
from jflow.functional.arguments import as_key, check_counts

# Images at once, of so many numbers; larger ones, fewer.
_AT_ONCE, _NUMBERS = 16, 1024
# Numbers in an image; of 3,072 a matrix of the normal law takes 38 MB, and of these a few.
_LARGEST = 4096
# Drawn, for the normal law that posteriors start from.
_LAW = 1000


class ImageEdits:
    """The methods of an `ImageDensity` that edit images."""

    density: Any
    shape: Any
    levels: Any
    latents: Any
    from_latents: Any
    sample: Any
    _images: Any

    def interpolate(
        self, first: Any, last: Any, count: int = 8, *, kind: Literal["slerp", "linear"] = "slerp"
    ) -> np.ndarray:
        """Images between two, (count, height, width, channels), by their latents.

        A straight line passes nearer to the origin than latents of real images lie, where images
        are blurred; "slerp" goes along a circle about it (White, 2016,
        https://arxiv.org/abs/1609.04468).

        Args:
          first: an image, (height, width, channels).
          last: another.
          count: how many, these two with them.
          kind: "slerp", or "linear" for the straight line.

        Raises:
          ValueError: another kind, or images of other shapes.
        """
        check_counts("interpolate", count=count)
        if kind not in ("slerp", "linear"):
            raise ValueError(f'interpolate: kind must be "slerp" or "linear"; got {kind!r}')
        a, b = self.latents(np.stack([self._images([first])[0], self._images([last])[0]]))
        t = np.linspace(0, 1, count)
        if kind == "slerp":
            return self.from_latents(slerp(a, b, t))
        t = t.reshape(-1, *(1,) * a.ndim).astype(a.dtype)
        return self.from_latents((1 - t) * a[None] + t * b[None])

    def attribute(self, positives: Any, negatives: Any) -> np.ndarray:
        """The way in latents, (*latent), from images without something to those with it.

        The difference of the means of their latents (Kingma and Dhariwal, 2018,
        https://arxiv.org/abs/1807.03039, section 6.3); see `edit`.
        """
        return self.latents(positives).mean(axis=0) - self.latents(negatives).mean(axis=0)

    def edit(self, images: Any, attribute: np.ndarray, strength: float = 1.0) -> np.ndarray:
        """Images with more of an attribute, (N, height, width, channels), or less, if negative.

        Raises:
          ValueError: the attribute is not one of this density's latents.
        """
        z = self.latents(images)
        if np.shape(attribute) != z.shape[1:]:
            raise ValueError(
                f"attribute must have the shape of latents, {z.shape[1:]}; got "
                f"{np.shape(attribute)}. `density.attribute(positives, negatives)` gives one"
            )
        return self.from_latents(z + strength * attribute)

    def inpaint(
        self, images: Any, missing: Any, *, method: Literal["posterior", "ascent"] = "posterior",
        particles: int = 8, warm: int = 30, steps: int = 30, key: Array | int = 0,
    ) -> Restored:  # fmt: skip
        """Images whose missing pixels are drawn given the others; the others stay as they are.

        Args:
          images: levels; what is at missing pixels does not matter.
          missing: (N, height, width, 1 or channels), or without N, or (height, width): True where
            a pixel is missing.
          method: "posterior" draws from p(missing | others), by annealed importance sampling and
            Hamiltonian moves; "ascent" climbs log p with a little noise, in `steps` steps, to a
            mode (Dinh et al., 2015, https://arxiv.org/abs/1410.8516, section 5.2).
          particles: draws of each image.
          warm: temperatures on the way to the posterior.
          steps: moves after that; the more, the nearer `mean` is to that of the posterior.
          key: a JAX random key or a whole number.

        Raises:
          TypeError, ValueError: they are not such images, `missing` has another shape, or the flow
            does not begin with `Dequantize`.
        """
        if method not in ("posterior", "ascent"):
            raise ValueError(f'inpaint: method must be "posterior" or "ascent"; got {method!r}')
        holes = np.asarray(missing)
        if holes.dtype != bool and not np.isin(holes, (0, 1)).all():
            raise ValueError("inpaint: missing must be True where a pixel is missing, or 1 and 0")
        if holes.shape == self.shape[:2]:
            holes = holes[..., None]
        y = np.asarray(images)
        y = y[..., None] if y.shape[1:] == self.shape[:2] and self.shape[-1] == 1 else y
        try:
            holes = np.broadcast_to(holes.astype(bool), (len(y), *self.shape))
        except ValueError:
            raise ValueError(
                f"inpaint: missing must be {self.shape[:2]}, or {(len(y), *self.shape)} with 1 "
                f"channel or all; got {np.shape(missing)}"
            ) from None
        middle = np.asarray((self.levels - 1) // 2, y.dtype)
        y = self._images(np.where(holes, middle, y) if y.shape == holes.shape else y)
        effort = _effort("inpaint", particles, warm, steps, method == "ascent")

        def some(rows: np.ndarray, key: Array) -> Any:
            values, given = self.levels, (jnp.asarray(y[rows]), jnp.asarray(holes[rows]))
            return restoring.of_seen_pixels(self._numbers, self._law, *given, key, values, effort)

        found = self._restored(len(y), some, as_key("inpaint", key))
        draws = np.where(holes[:, None], found.draws, y[:, None])
        return Restored(np.where(holes, found.mean, y), draws, found.accepted)

    def denoise(
        self, images: Any, noise: float, *, particles: int = 8, warm: int = 30, steps: int = 30,
        key: Array | int = 0,
    ) -> Restored:  # fmt: skip
        """Images behind normal noise that was added to their levels.

        Args:
          images: (N, height, width, channels), numbers.
          noise: its standard deviation, in levels.
          particles: draws of each image.
          warm: temperatures on the way to the posterior.
          steps: moves after that.
          key: a JAX random key or a whole number.

        Raises:
          ValueError: other shapes, or noise that is not positive.
        """
        told = self._as_numbers("denoise", images, self.shape, noise)
        return self._measured("denoise", told, self._pixels(), noise,
                              _effort("denoise", particles, warm, steps, False), key)  # fmt: skip

    def enlarge(
        self, images: Any, factor: int, *, noise: float = 0.5, particles: int = 8, warm: int = 30,
        steps: int = 30, key: Array | int = 0,
    ) -> Restored:  # fmt: skip
        """Images whose blocks of factor x factor pixels have these means (super-resolution).

        Args:
          images: (N, height / factor, width / factor, channels), numbers, in levels.
          factor: by how much height and width grow.
          noise: how far means may be off, in levels, as a standard deviation.
          particles: draws of each image.
          warm: temperatures on the way to the posterior.
          steps: moves after that.
          key: a JAX random key or a whole number.

        Raises:
          ValueError: other shapes, a factor that does not divide height and width, or noise that is
            not positive.
        """
        check_counts("enlarge", factor=factor)
        height, width, channels = self.shape
        if height % factor or width % factor:
            raise ValueError(
                f"enlarge: factor must divide height and width, {self.shape[:2]}; got {factor}"
            )
        small = (height // factor, width // factor, channels)
        told = self._as_numbers("enlarge", images, small, noise)
        pixels = self._pixels().reshape(-1, small[0], factor, small[1], factor, channels)
        means = pixels.mean(axis=(2, 4)).reshape(-1, math.prod(small)).T
        return self._measured("enlarge", told, means, noise,
                              _effort("enlarge", particles, warm, steps, False), key)  # fmt: skip

    def _as_numbers(
        self, owner: str, images: Any, shape: tuple[int, ...], noise: float
    ) -> np.ndarray:
        """Numbers (N, *shape), checked."""
        told = np.asarray(images, np.float64)
        if told.shape[1:] == shape[:2] and shape[-1] == 1:
            told = told[..., None]
        if told.shape[1:] != shape or not len(told):
            raise ValueError(f"{owner}: images must be (N, {str(shape)[1:]}; got {told.shape}")
        if not np.isfinite(told).all():
            raise ValueError(f"{owner}: images hold NaN or infinities")
        if not (math.isfinite(noise) and noise > 0):
            raise ValueError(f"{owner}: noise must be a positive number of levels; got {noise}")
        return told.reshape(len(told), -1)

    def _measured(
        self, owner: str, told: np.ndarray, measure: np.ndarray, noise: float, effort: Effort,
        key: Array | int,
    ) -> Restored:  # fmt: skip
        how = jnp.asarray(measure, float), jnp.asarray(noise, float)

        def some(rows: np.ndarray, key: Array) -> Any:
            given = self._numbers, self._law, jnp.asarray(told[rows], float), *how
            return restoring.of_measured(*given, key, self.levels, effort)

        return self._restored(len(told), some, as_key(owner, key))

    def _restored(self, count: int, some: Any, key: Array) -> Restored:
        """What `some` finds of rows and a key, a few at a time, in levels."""
        most = max(1, min(_AT_ONCE, int(_AT_ONCE * (_NUMBERS / math.prod(self.shape)) ** 2)))
        parts = []
        for rows, end in in_parts(count, most):
            mean, x, accepted = some(rows, jax.random.fold_in(key, rows[0]))
            draws = np.clip(np.floor(np.asarray(x) * self.levels), 0, self.levels - 1)
            kept = slice(0, end - rows[0])
            mean = np.clip(np.asarray(mean) * self.levels - 0.5, 0, self.levels - 1)
            kind = np.uint8 if self.levels <= 256 else np.int32
            parts.append((mean[kept], draws.astype(kind)[kept], np.asarray(accepted)[kept]))
        return Restored(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _pixels(self) -> np.ndarray:
        """Each number by itself, as what is measured, (D, D)."""
        return np.eye(len(self._law.mean))

    @cached_property
    def _numbers(self) -> Any:
        return restoring.continuous(self.density)[0]

    @cached_property
    def _law(self) -> Normal:
        """The normal law of logits, of images that the density draws.

        Raises:
          ValueError: it would be of too many numbers.
        """
        if (size := math.prod(self.shape)) > _LARGEST:
            raise ValueError(
                f"images of {self.shape} have {size:,} numbers; to restore them takes memory of "
                f"the square of that, and time of its cube: {_LARGEST:,} are the most"
            )
        drawn = self.sample(_LAW, key=0)
        place = np.random.default_rng(0).uniform(0.01, 0.99, drawn.shape)
        return restoring.as_normal((drawn + place) / self.levels)


def _effort(owner: str, particles: int, warm: int, steps: int, ascend: bool) -> Effort:
    check_counts(owner, particles=particles, warm=warm, steps=steps)
    return Effort(particles, warm, steps, ascend)
