"""NICE on MNIST, pixels as a vector; bits/dim over the 784 real pixels.

Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test).
Published for NICE: 1980.5 nats (Dinh et al., 2015, table 3), which is 4.36 bits/dim.
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_nice",
    recipe="nice",
    arguments={"layers": 4, "hidden": (1000,) * 5},
    dataset="mnist",
    shape=(28, 28, 1),
    flat=True,
    steps=50_000,
    batch_size=128,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
)
