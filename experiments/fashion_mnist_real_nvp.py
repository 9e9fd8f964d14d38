"""Real NVP on Fashion-MNIST, 28x28; bits/dim over the 784 real pixels.

Reads it by TensorFlow Datasets, or a file: --dataset fashion.npz (x_train, y_train, x_test,
y_test).
Nothing published by this protocol is known to us.
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="fashion_mnist_real_nvp",
    recipe="real_nvp",
    arguments={"levels": 2, "hidden": 64, "blocks": 4},
    dataset="fashion_mnist",
    shape=(28, 28, 1),
    steps=50_000,
    batch_size=128,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
)
