"""NICE on ImageNet at 32x32, pixels as a vector; bits/dim over its 3072 numbers.

Reads downsampled ImageNet by TensorFlow Datasets, one batch after the other; its validation
images are the test set. Or a folder with the folders train and test: --dataset FOLDER.
Nothing published by this protocol is known to us.
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="imagenet32_nice",
    recipe="nice",
    arguments={"layers": 4, "hidden": (1000,) * 5},
    dataset="downsampled_imagenet/32x32",
    shape=(32, 32, 3),
    flat=True,
    steps=200_000,
    batch_size=128,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
    stream=True,
    workers=4,
)
