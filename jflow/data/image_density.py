"""The density of images of grey levels or colours, as files have them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from jflow.data import anomalies, image_scores, keeping
from jflow.data.calibrated import Calibrated
from jflow.data.complexity import complexity
from jflow.data.image_edits import ImageEdits
from jflow.data.image_scores import check_images_flow, fingerprints
from jflow.data.parts import in_parts
from jflow.distributions import Density
from jflow.functional.arguments import as_key, check_counts
from jflow.functional.dequantization import NO_INTEGER, check_integers

Correction = Literal["complexity", "background"]
# Images at once.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False, repr=False)
class ImageDensity(ImageEdits, Calibrated):
    """The density of images of whole numbers, such as 8-bit grey levels: what `fit` gives of them.

    Images are integers (N, height, width, channels), or (N, height, width) of one channel. Their
    likelihood alone does not tell what is strange: simple images of another kind are often more
    likely than those that the flow was fitted to. So p-values are of a corrected score.

    Attributes:
      density: of the levels.
      correction: what `score` is corrected by: "complexity", "background" or None.
      background: the density of other images, for "background".
      calibration: (n,), scores of held-out images, sorted; None if it is not calibrated.
      trained: fingerprints of the images that it was fitted on.
    """

    density: Density
    correction: Correction | None = None
    background: Density | None = None
    calibration: np.ndarray | None = None
    trained: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_images_flow(self.density.flow)
        if self.correction not in (None, "complexity", "background"):
            raise ValueError(
                'correction must be "complexity", "background" or None; got '
                f"{self.correction!r:.60}"
            )
        if (self.correction == "background") != (self.background is not None):
            raise ValueError('correction="background" and background= need each other')
        if self.correction == "complexity" and (self.levels > 256 or self.shape[-1] not in (1, 3)):
            raise ValueError(
                'correction="complexity" is of images of 8 bits, of 1 or 3 channels; these are '
                f"{self.shape} of {self.levels} levels. Choose another correction"
            )
        if self.background is not None:
            check_images_flow(self.background.flow)
            own, other = self.density.flow, self.background.flow
            if (own.event_shape, own.integers) != (other.event_shape, other.integers):
                raise ValueError(
                    f"background must be a density of images {self.shape} of {own.integers}; its "
                    f"are {other.event_shape} of {other.integers}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.density.flow.event_shape
        return height, width, channels

    @property
    def levels(self) -> int:
        """How many grey levels there are."""
        integers: Any = self.density.flow.integers
        return int(integers.high) + 1

    def log_prob(
        self, images: Any, *, draws: int = 1, key: Array | int = 0, batch_size: int = _AT_ONCE
    ) -> np.ndarray:
        """log p of images, in nats, (N,), float64; for dequantized levels a bound from below.

        It is log of the mean of p over draws of noise, which depend on the image and the key alone.
        In bits per dimension it is -log_prob / (log(2) height width channels).

        Args:
          images: integers.
          draws: of noise: with their number the bound tends to log p (Burda et al., 2016,
            https://arxiv.org/abs/1509.00519).
          key: for noise.
          batch_size: images at a time; memory does not grow with their number.

        Raises:
          TypeError, ValueError: they are not such images, or beyond the levels.
        """
        check_counts("log_prob", draws=draws, batch_size=batch_size)
        y = self._images(images)
        return image_scores.log_prob(self.density, y, as_key("log_prob", key), draws, batch_size)

    def score(self, raw: Any, *, key: Array | int = 0) -> np.ndarray:
        """What p-values compare, (N,), nats: log_prob, with what the correction adds.

            log p(x)              None
            log p(x) + L(x)       "complexity": L is the size of the image as a file without loss
            log p(x) - log q(x)   "background": q is the density of other images

        With either, what makes any image likely, such as large empty areas, cancels, and what is of
        these images alone remains (Serra et al., 2020, https://arxiv.org/abs/1909.11480; Ren et
        al., 2019, https://arxiv.org/abs/1906.02845).
        """
        y = self._images(raw)
        return self.corrected(y, self.log_prob(y, key=key), key=key)

    def corrected(
        self, images: Any, log_prob: np.ndarray, *, key: Array | int = 0
    ) -> np.ndarray:  # fmt: skip
        """The `score` of images whose `log_prob` is known, (N,)."""
        y, found = self._images(images), log_prob
        if self.correction == "complexity":
            return found + complexity(y.astype(np.uint8))
        if self.background is not None:
            return found - image_scores.log_prob(
                self.background, y, as_key("score", key), 1, _AT_ONCE
            )
        return found

    def calibrate(
        self, held_out: Any, *, correction: Correction | None = "complexity",
        background: "ImageDensity | Density | None" = None, key: Array | int = 0,
    ) -> "ImageDensity":  # fmt: skip
        """This density with p-values that refer to images it was not fitted on.

        Args:
          held_out: images of the same law, that neither fitted nor chose it.
          correction: of the score; see `score`.
          background: for "background": a density of other images of this shape, such as of all
            kinds, or of these with their pixels mutated (`jflow.data.mutate`).
          key: for noise.

        Raises:
          ImportError: sizes of files need Pillow, with WebP.
          ValueError: it was fitted on more than a fifth of them (of streams this is not known),
            there are fewer than 20, or their log_prob is NaN.
        """
        if isinstance(background, ImageDensity):
            background = background.density
        y = self._images(held_out)
        anomalies.check_apart("images", len(y), fingerprints(y), self.trained)
        found = replace(self, correction=correction, background=background, calibration=None)
        return replace(found, calibration=anomalies.as_calibration(found.score(y, key=key)))

    def sample(
        self, count: int, *, temperature: float = 1.0, key: Array | int = 0
    ) -> np.ndarray:  # fmt: skip
        """Images that the density draws, (count, height, width, channels).

        Args:
          count: how many.
          temperature: scales the spread of the latents; below 1 images are more usual, and less
            varied.
          key: a JAX random key or a whole number.
        """
        check_counts("sample", count=count)
        key, found = as_key("sample", key), []
        for index, end in in_parts(count, _AT_ONCE):
            own = jax.random.fold_in(key, index[0])
            y = self.density.sample(own, len(index), temperature=temperature)
            found.append(self._as_levels(y)[: end - index[0]])
        return np.concatenate(found)

    def latents(self, images: Any, *, key: Array | int = 0) -> np.ndarray:
        """The latents of images, (N, *latent); of levels, of a point in their cell."""
        return image_scores.latents(
            self.density, self._images(images), as_key("latents", key), _AT_ONCE
        )

    def from_latents(self, z: Any) -> np.ndarray:
        """The images of latents, (N, height, width, channels)."""
        z, found = np.asarray(z), []
        for index, end in in_parts(len(z), _AT_ONCE):
            found.append(self._as_levels(self.density.from_latents(z[index]))[: end - index[0]])
        return np.concatenate(found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the directory `path`: the densities, and images.json.

        Raises:
          FileExistsError: `path` holds something else.
        """
        densities = {"density": self.density, "background": self.background}
        arrays = {"calibration": self.calibration, "trained": self.trained}
        keeping.save(Path(path).expanduser(), "images", {"correction": self.correction},
                     {n: d for n, d in densities.items() if d is not None}, arrays)  # fmt: skip

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ImageDensity":
        """Reads what `save` wrote.

        Raises:
          FileNotFoundError, ValueError: nothing is there, or it is damaged.
        """
        folder = Path(path).expanduser()
        said, densities, arrays = keeping.load(folder, "images", ("density", "background"))
        if "density" not in densities or "correction" not in said:
            raise keeping.damaged(folder, "images")
        return cls(correction=said["correction"], **densities, **arrays)  # type: ignore[arg-type]

    def _told(self) -> str:
        corrected = f", corrected by {self.correction}" if self.correction else ""
        return f"{'x'.join(map(str, self.shape))}, {self.levels} levels{corrected}"

    def _images(self, images: Any) -> np.ndarray:
        """(N, *shape), checked."""
        y = np.asarray(images)
        if y.shape[1:] == self.shape[:2] and self.shape[-1] == 1:
            y = y[..., None]
        if y.shape[1:] != self.shape or not len(y):
            raise ValueError(
                f"images must be (N, {str(self.shape)[1:]}; got {y.shape}"
                f"{'; for a single one, give image[None]' if y.shape == self.shape else ''}"
            )
        check_integers("images", y, self.density.flow.integers)  # type: ignore[arg-type]
        return y

    def _as_levels(self, y: Array) -> np.ndarray:
        if np.any(y == NO_INTEGER):
            raise FloatingPointError("images are not numbers (NaN): the flow did not converge")
        return np.asarray(y).astype(np.uint8 if self.levels <= 256 else np.int32)
