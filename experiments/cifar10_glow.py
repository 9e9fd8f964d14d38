"""Glow on CIFAR-10; bits/dim over its 3072 numbers.

Reads it by TensorFlow Datasets, or a file: --dataset cifar10.npz (x_train, y_train, x_test,
y_test). Training images are mirrored at random.
Published for Glow: 3.35 bits/dim (Kingma and Dhariwal, 2018, table 2).
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="cifar10_glow",
    recipe="glow",
    arguments={"levels": 3, "steps": 32, "hidden": 512},
    dataset="cifar10",
    shape=(32, 32, 3),
    steps=50_000,
    batch_size=128,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
    flips=True,
)
