"""Jet on ImageNet 64x64, the smaller one of the paper: 32 couplings of depth 2, 207 M parameters.

Reads downsampled ImageNet by TensorFlow Datasets, one batch after the other; its validation images
are the test set. Training images are mirrored at random.
Published for Jet of this size: 3.72 bits/dim (Kolesnikov et al., 2024), uniform noise.
Sized for a machine of several GPUs; it has not been run yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="imagenet64_jet",
    recipe="jet",
    arguments={"memory": "remat", "dtype": "bfloat16"},
    dataset="downsampled_imagenet/64x64",
    shape=(64, 64, 3),
    stream=True,
    workers=4,
    flips=True,
    steps=250_000,
    batch_size=1_024,
    learning_rate=3e-4,
    clip_norm=1.0,
    ema_decay=0.9999,
    evaluate_every=5_000,
    patience=None,
    test_samples=4,
    warmup_steps=5_000,
)
