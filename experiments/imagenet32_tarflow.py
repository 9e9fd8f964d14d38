"""A causal transformer on ImageNet at 32x32; bits/dim over its 3072 numbers.

TarFlow of mixtures of logistics, numbers of a patch given those before in it.
Reads downsampled ImageNet by TensorFlow Datasets, one batch after the other; its
validation images are the test set. Or a folder with the folders train and test: --dataset FOLDER.
Nothing published of such flows is known to us; Flow++ has 3.86 by learned noise (Ho et al., 2019).
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="imagenet32_tarflow",
    recipe="tarflow",
    dataset="downsampled_imagenet/32x32",
    shape=(32, 32, 3),
    arguments={
        "blocks": 4,
        "layers": 8,
        "width": 512,
        "heads": 8,
        "components": 8,
        "memory": "remat",
        "dtype": "bfloat16",
    },
    flips=True,
    stream=True,
    workers=4,
    steps=300_000,
    learning_rate=2e-4,
    batch_size=128,
    clip_norm=1.0,
    ema_decay=0.999,
    evaluate_every=2000,
    patience=None,
    warmup_steps=1000,
    samples_every=5,
    test_samples=4,
)
