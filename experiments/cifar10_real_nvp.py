"""Real NVP on CIFAR-10; bits/dim over its 3072 numbers.

Reads it by TensorFlow Datasets, or a file: --dataset cifar10.npz (x_train, y_train, x_test,
y_test). Training images are mirrored at random.
Published for Real NVP: 3.49 bits/dim (Dinh et al., 2017, table 1).
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="cifar10_real_nvp",
    recipe="real_nvp",
    arguments={"levels": 2, "hidden": 64, "blocks": 8},
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
