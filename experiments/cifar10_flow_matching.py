"""Flow matching on CIFAR-10 by a U-Net; bits/dim over its 3072 numbers.

Reads it by TensorFlow Datasets, or a file: --dataset cifar10.npz (x_train, y_train, x_test,
y_test). Training images are mirrored at random.
Published for flow matching: 2.99 bits/dim (Lipman et al., 2023, table 1: optimal transport paths).
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours but of a small
one on a subset (docs/continuous.md): 4.26 bits/dim after 24 minutes on one CPU core.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="cifar10_flow_matching",
    recipe="flow_matching",
    arguments={
        "hidden": 128,
        "levels": 3,
        "blocks": 2,
        "heads": 4,
        "dropout": 0.1,
        "tolerance": 1e-4,
    },
    dataset="cifar10",
    shape=(32, 32, 3),
    steps=200_000,
    batch_size=128,
    learning_rate=5e-4,
    warmup_steps=5000,
    clip_norm=1.0,
    ema_decay=0.9999,
    evaluate_every=5000,
    patience=None,
    samples_every=5,
    test_samples=1,
    flips=True,
)
