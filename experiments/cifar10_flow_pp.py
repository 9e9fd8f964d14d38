"""Flow++ on CIFAR-10, of the size and with the learned noise of the paper: 30.6 M parameters.

Reads it by TensorFlow Datasets, or a file: --dataset cifar10.npz (x_train, y_train, x_test,
y_test). Training images are mirrored at random.
Published for Flow++: 3.08 bits/dim (Ho et al., 2019), weighted by importance over 4,096 draws.
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="cifar10_flow_pp",
    recipe="flow_pp",
    arguments={"dequantization": "variational", "memory": "remat"},
    dataset="cifar10",
    shape=(32, 32, 3),
    flips=True,
    steps=500_000,
    learning_rate=3e-4,
    clip_norm=1.0,
    ema_decay=0.999,
    evaluate_every=5_000,
    patience=None,
    test_samples=4,
    warmup_steps=2_000,
)
