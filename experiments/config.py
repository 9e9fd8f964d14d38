"""What an experiment is: everything that decides its result."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jflow import Flow, data, flows

# Arguments that make a recipe's model small without changing its shape.
_SMALL: dict[str, dict[str, Any]] = {
    "nice": {"layers": 2, "hidden": (8,)},
    "real_nvp": {"hidden": 4, "blocks": 1},
    "glow": {"steps": 1, "hidden": 4},
    "residual_flow": {"layers": 1, "hidden": 4},
    "ffjord": {"hidden": (8,), "steps": 2, "tolerance": 1e-2},
    "flow_matching": {"hidden": (8,), "tolerance": 1e-2},
    "nsf": {"layers": 2, "hidden": (8,)},
    "maf": {"layers": 2, "hidden": (8,)},
    "transformer_af": {"layers": 2, "depth": 1, "width": 8, "heads": 2},
}
_SMALL_IMAGES: dict[str, dict[str, Any]] = {
    **_SMALL,
    "rnode": {"levels": 1, "hidden": 4, "steps": 2, "tolerance": 1e-2},
    "flow_matching": {"hidden": 4, "levels": 2, "blocks": 1, "heads": 0, "tolerance": 1e-2},
    "tarflow": {"blocks": 2, "layers": 1, "width": 8, "heads": 2, "within": 2},
    "flow_pp": {"hidden": 4, "blocks": 1, "heads": 2, "components": 2},
    "vflow": {"hidden": 4, "blocks": 1, "heads": 2, "components": 2},
    "dense_flow": {"steps": (1, 1), "hidden": 4, "layers": 1, "width": 4},
    "jet": {"couplings": 3, "depth": 1, "width": 8, "heads": 2, "channel_couplings": 1},
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A flow fitted to data, and tested.

    Attributes:
      name: of the folder in runs/.
      recipe: of `jflow.flows`.
      arguments: of the recipe, besides those that follow from the data.
      seed: of parameters, order and noise. The split does not depend on it.
      steps: parameter updates, at most.
      batch_size: examples for each.
      learning_rate: of Adam, where it is highest.
      final_rate: share of the learning rate that a cosine leaves at the end.
      warmup_steps: with a growing learning rate.
      clip_norm: largest global norm of gradients.
      ema_decay: of the average of parameters that is validated and kept.
      evaluate_every: steps between validations.
      checkpoint_every: steps between checkpoints; None for `evaluate_every`.
      patience: validations without a better one before stopping.
      max_skipped: steps in a row that may be skipped, their loss or gradient not being finite.
      fsdp: over how many devices parameters are split; see `jflow.train.make_mesh`.
    """

    name: str
    recipe: str
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    final_rate: float = 0.05
    warmup_steps: int = 50
    clip_norm: float = 50.0
    ema_decay: float = 0.99
    evaluate_every: int = 100
    checkpoint_every: int | None = None
    patience: int | None = 8
    max_skipped: int = 10
    fsdp: int = 1

    def smoke(self) -> Any:
        """The same in small, on noise in place of data that are not here: two steps in seconds."""
        sizes = _SMALL_IMAGES if isinstance(self, ImageExperiment) else _SMALL
        arguments = {**self.arguments, **sizes[self.recipe]}
        if "checkerboards" in arguments:
            arguments["checkerboards"] = 1
        small = {"steps": 2, "evaluate_every": 1, "batch_size": 8, "checkpoint_every": None}
        return replace(self, arguments=arguments, **small)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class ImageExperiment(Experiment):
    """A flow fitted to grey-level images and reported in bits per dimension.

    Attributes:
      dataset: what `jflow.data.images` reads: "digits", a path, or a name of TensorFlow Datasets;
        "noise" for random images.
      shape: (height, width, channels) of its images.
      height: images are padded to this height, with zeros; None for their own.
      width: images are padded to this width, with zeros; None for their own.
      bits: grey levels are cut to so many bits.
      flat: images are vectors to the flow.
      flips: training images are mirrored at random.
      shifts: share of training images that are moved by up to a pixel.
      classes: how many there are, if the flow is given that of each image; None if it is not.
      stream: training images are read as they are needed.
      workers: processes that read them.
      test_samples: draws of the dequantization noise for each test image.
      samples_every: validations between pictures of samples; None for none.
      baselines: whether to fit the Gaussian mixture and the kernel density.
    """

    dataset: str = "digits"
    shape: tuple[int, int, int] = (8, 8, 1)
    height: int | None = None
    width: int | None = None
    bits: int = 8
    flat: bool = False
    flips: bool = False
    shifts: float = 0.0
    classes: int | None = None
    stream: bool = False
    workers: int = 0
    test_samples: int = 16
    samples_every: int | None = 10
    baselines: bool = False

    def load(self) -> data.Splits:
        """The data, as they are."""
        if self.dataset == "noise":
            rng = np.random.default_rng(0)
            parts = (rng.integers(0, 2**self.bits, (n, *self.shape)) for n in (40, 16, 16))
            labelled = (data.Labelled(y.astype(np.uint8), np.zeros(len(y), int)) for y in parts)
            return data.Splits(*labelled, values=2**self.bits)
        if self.classes is not None and self.stream:
            raise ValueError("classes are of images in memory; leave out these, or stream")
        splits = data.images(self.dataset, bits=self.bits, stream=self.stream)
        found = splits.test.y.shape[1:]
        if found != self.shape:
            raise ValueError(f"{self.dataset} has images of {found}; the config says {self.shape}")
        return splits

    def seen(self, images: np.ndarray) -> np.ndarray:
        """Images (..., height, width, channels) as the flow sees them."""
        padded = data.pad(images, self.height or self.shape[0], self.width or self.shape[1])
        return padded.reshape(*padded.shape[:-3], -1) if self.flat else padded

    def shown(self, y: Any) -> np.ndarray:
        """What the flow sees, as images."""
        height, width = self.height or self.shape[0], self.width or self.shape[1]
        return np.asarray(y).reshape(-1, height, width, self.shape[2])

    def context(self, labels: Any) -> np.ndarray | None:
        """What the flow is given of images with these labels: one-hot classes, or nothing."""
        return None if self.classes is None else np.eye(self.classes, dtype=np.float32)[labels]

    def context_of(self, count: int) -> np.ndarray | None:
        """The same of so many samples, class by class."""
        return self.context(np.arange(count) * (self.classes or 1) // count)

    def flow(self, splits: data.Splits) -> Flow:
        """The flow for such data."""
        shape = self.seen(splits.test.y[:1]).shape[1:]
        sizes: dict[str, Any] = {"features": shape[0]} if self.flat else {"image_shape": shape}
        if self.classes is not None:
            sizes["context_shape"] = self.classes
        build = getattr(flows, self.recipe)
        return build(**sizes, values=splits.values, **self.arguments)

    def augment(self) -> Any:
        """What is done to training batches; None for nothing."""
        if not (self.flips or self.shifts):
            return None
        if self.flat:
            raise ValueError("flips and shifts are of images; leave out these, or flat")
        if self.flips and self.shifts:
            raise ValueError("training images are mirrored or moved; leave out flips or shifts")
        return data.flip_left_right if self.flips else partial(data.shift, share=self.shifts)

    def smoke(self) -> "ImageExperiment":
        small = super().smoke()
        dataset = self.dataset if self.dataset == "digits" else "noise"
        less = {"test_samples": 1, "samples_every": 1, "baselines": False, "stream": False}
        return replace(small, dataset=dataset, **less)


@dataclass(frozen=True, kw_only=True)
class TableExperiment(Experiment):
    """A flow fitted to a table and reported in nats, for standardised columns.

    Attributes:
      dataset: the path of a .csv, .npy or .parquet file that `jflow.data.table` reads;
        "breast_cancer" or "diabetes" of scikit-learn; "noise" for random rows.
      validation: the share of rows to choose by.
      test: the share of rows to report on.
    """

    dataset: str = "breast_cancer"
    validation: float = 0.1
    test: float = 0.1

    def load(self) -> data.Table:
        """The table."""
        source: Any = self.dataset
        if source == "noise":
            source = np.random.default_rng(0).normal(size=(80, 5))
        elif source in ("breast_cancer", "diabetes"):
            from sklearn import datasets

            source = getattr(datasets, f"load_{source}")().data
        return data.table(
            source, validation=self.validation, test=self.test, discrete="drop", bend=False
        )

    def flow(self, table: data.Table) -> Flow:
        """The flow for such data."""
        return getattr(flows, self.recipe)(features=table.train.shape[1], **self.arguments)

    def smoke(self) -> "TableExperiment":
        return replace(super().smoke(), dataset="noise")


def mesh(config: Experiment) -> Any:
    """All devices, if there are several."""
    from jflow import train

    return train.make_mesh(fsdp=config.fsdp) if len(jax.devices()) > 1 else None
