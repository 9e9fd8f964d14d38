"""A causal transformer on CIFAR-10; bits/dim over its 3072 numbers.

TarFlow of mixtures of logistics, numbers of a patch given those before in it and the patches next
to it.
Reads it by TensorFlow Datasets, or a file: --dataset cifar10.npz (x_train, y_train, x_test,
y_test). Training images are mirrored at random.
Nothing published of such flows is known to us; Flow++ has 3.08 by learned noise (Ho et al., 2019).
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours but of a small
one on a subset (docs/transformers.md): 3.66 bits/dim after half an hour on one CPU core.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="cifar10_tarflow",
    recipe="tarflow",
    dataset="cifar10",
    shape=(32, 32, 3),
    arguments={
        "blocks": 4,
        "layers": 6,
        "width": 384,
        "heads": 6,
        "components": 8,
        "dropout": 0.2,
        "dtype": "bfloat16",
    },
    flips=True,
    steps=200_000,
    learning_rate=3e-4,
    batch_size=128,
    clip_norm=1.0,
    ema_decay=0.999,
    evaluate_every=2000,
    patience=None,
    warmup_steps=1000,
    samples_every=5,
    test_samples=4,
)
