"""A causal transformer on Fashion-MNIST, 28x28 as it is; bits/dim over the 784 pixels.

TarFlow of mixtures of logistics, numbers of a patch given those before in it.
Reads it by TensorFlow Datasets, or a file: --dataset fashion.npz (x_train, y_train, x_test,
y_test).
Nothing published by this protocol is known to us.
Sized for one GPU; it has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="fashion_mnist_tarflow",
    recipe="tarflow",
    dataset="fashion_mnist",
    shape=(28, 28, 1),
    arguments={"blocks": 2, "layers": 4, "width": 192, "patch": 4, "components": 8, "dropout": 0.1},
    steps=40_000,
    learning_rate=5e-4,
    batch_size=128,
    clip_norm=1.0,
    ema_decay=0.999,
    evaluate_every=2000,
    patience=None,
    warmup_steps=1000,
    samples_every=5,
    test_samples=4,
)
