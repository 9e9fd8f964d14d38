"""Glow on ImageNet at 64x64; bits/dim over its 12288 numbers.

Reads downsampled ImageNet by TensorFlow Datasets, one batch after the other; its validation
images are the test set. Or a folder with the folders train and test: --dataset FOLDER.
Published for Glow: 3.81 bits/dim (Kingma and Dhariwal, 2018, table 2).
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="imagenet64_glow",
    recipe="glow",
    arguments={"levels": 4, "steps": 48, "hidden": 512},
    dataset="downsampled_imagenet/64x64",
    shape=(64, 64, 3),
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
