"""What an experiment on images is: everything that decides its result."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jflow import Flow, data, flows


@dataclass(frozen=True)
class ImageExperiment:
    """A flow fitted to grey-level images and reported in bits per dimension.

    Attributes:
      name: of the folder in runs/.
      recipe: of `jflow.flows`.
      arguments: of the recipe, besides image_shape and values.
      dataset: "digits", a path to a .npz file, or the name of a TensorFlow Datasets data set.
      height: images are padded to this height, with zeros; None for their own.
      width: images are padded to this width, with zeros; None for their own.
      seed: of parameters, order and noise. The test split does not depend on it.
      steps: parameter updates, at most.
      batch_size: examples for each.
      learning_rate: of Adam, where it is highest.
      final_rate: share of the learning rate that a cosine leaves at the end.
      warmup_steps: with a growing learning rate.
      clip_norm: largest global norm of gradients.
      ema_decay: of the average of parameters that is validated and kept.
      evaluate_every: steps between validations.
      patience: validations without a better one before stopping.
      test_samples: draws of the dequantization noise for each test image.
      baselines: whether to fit the Gaussian mixture and the kernel density.
    """

    name: str
    recipe: str
    arguments: dict[str, Any] = field(default_factory=dict)
    dataset: str = "digits"
    height: int | None = None
    width: int | None = None
    seed: int = 0
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    final_rate: float = 0.05
    warmup_steps: int = 50
    clip_norm: float = 50.0
    ema_decay: float = 0.99
    evaluate_every: int = 100
    patience: int | None = 8
    test_samples: int = 16
    baselines: bool = False

    def load(self) -> data.Splits:
        """The data, not padded."""
        return data.images(self.dataset)

    def pad(self, images: np.ndarray) -> np.ndarray:
        """Images as the flow sees them."""
        return data.pad(images, self.height or images.shape[1], self.width or images.shape[2])

    def flow(self, splits: data.Splits) -> Flow:
        """The flow for such data."""
        image_shape = self.pad(splits.train.y[:1]).shape[1:]
        build = getattr(flows, self.recipe)
        return build(image_shape=image_shape, values=splits.values, **self.arguments)
