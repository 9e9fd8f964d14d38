"""NICE on CIFAR-10, pixels as a vector; bits/dim over its 3072 numbers.

Reads it by TensorFlow Datasets, or a file: --dataset cifar10.npz (x_train, y_train, x_test,
y_test).
The paper's figure is of other preprocessing, and does not compare.
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="cifar10_nice",
    recipe="nice",
    arguments={"layers": 4, "hidden": (1000,) * 5},
    dataset="cifar10",
    shape=(32, 32, 3),
    flat=True,
    steps=50_000,
    batch_size=128,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
)
