"""Residual Flow on MNIST, 28x28 as it is, with a logit; bits/dim over the 784 pixels.

Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test). Published: 0.970 bits/dim by this protocol (Chen et al., 2019, table 1), with 512 channels
and 16 blocks a level. (i-ResNet's 1.06 is of images padded to 32x32, without a logit.) This config
is sized for one GPU. A small one (`arguments={"levels": 3, "layers": 4, "hidden": 32}`) reaches
1.43 on a CPU core in 12 minutes: 900 steps of 64 images, at a learning rate of 2e-3.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_residual_flow",
    recipe="residual_flow",
    arguments={"levels": 3, "layers": 16, "hidden": 256},
    dataset="mnist",
    shape=(28, 28, 1),
    steps=50_000,
    batch_size=64,
    learning_rate=1e-3,
    warmup_steps=1000,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
)
