"""A causal transformer on MNIST, 28x28 as it is; bits/dim over the 784 pixels.

TarFlow with mixtures of logistics, each token a patch of 2x2 pixels.
Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test). Sized for one GPU; it
has not been run to its end yet, so there is no figure of ours.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_tarflow",
    recipe="tarflow",
    arguments={"blocks": 2, "layers": 4, "width": 128, "components": 8, "dropout": 0.1},
    dataset="mnist",
    shape=(28, 28, 1),
    steps=40_000,
    batch_size=128,
    learning_rate=1e-3,
    warmup_steps=1000,
    clip_norm=1.0,
    ema_decay=0.999,
    evaluate_every=2000,
    patience=None,
    samples_every=5,
    test_samples=4,
)
