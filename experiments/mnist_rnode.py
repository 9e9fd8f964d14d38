"""RNODE on MNIST, 28x28 as it is; bits/dim over the 784 pixels.

Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test). Published: 0.97 bits/dim (Finlay et al., 2020, table 1), of FFJORD 0.99 (Grathwohl et al.,
2019). Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_rnode",
    recipe="rnode",
    arguments={
        "levels": 2,
        "layers": 2,
        "hidden": 64,
        "steps": 4,
        "kinetic": 1e-3,
        "jacobian": 1e-3,
        "tolerance": 1e-4,
    },
    dataset="mnist",
    shape=(28, 28, 1),
    steps=30_000,
    batch_size=200,
    learning_rate=3e-3,
    warmup_steps=500,
    clip_norm=1.0,
    ema_decay=0.999,
    evaluate_every=2000,
    patience=None,
    samples_every=5,
    test_samples=1,
)
