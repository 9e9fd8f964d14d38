"""TarFlow on ImageNet 64x64, of the paper's size: 460 M parameters.

Affine transforms, as published. Reads downsampled ImageNet by TensorFlow Datasets, one batch after
the other; its validation images are the test set. Training images are mirrored at random.
Published for TarFlow: 2.99 bits/dim (Zhai et al., 2024), uniform noise.
Sized for a machine of several GPUs; it has not been run yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="imagenet64_tarflow",
    recipe="tarflow",
    arguments={
        "blocks": 8,
        "layers": 8,
        "width": 768,
        "heads": 12,
        "within": None,
        "transformer": "affine",
        "alpha": None,
        "memory": "remat",
        "dtype": "bfloat16",
    },
    dataset="downsampled_imagenet/64x64",
    shape=(64, 64, 3),
    stream=True,
    workers=4,
    flips=True,
    steps=500_000,
    batch_size=256,
    learning_rate=1e-4,
    clip_norm=1.0,
    ema_decay=0.9999,
    evaluate_every=5_000,
    patience=None,
    test_samples=4,
    warmup_steps=5_000,
    samples_every=None,
)
