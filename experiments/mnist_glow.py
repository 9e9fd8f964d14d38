"""Glow on MNIST, padded from 28x28 to 32x32; bits/dim over the 784 real pixels.

Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test). Published for Glow: 1.05 bits/dim (Residual Flow, Chen et al., 2019, table 1). This
config is sized for one GPU, and has not been run to its end. A small one (`arguments={"levels":
3, "steps": 8, "hidden": 64}`, batches of 64) reaches 1.916 +- 0.004 after 4,500 steps on two CPU
cores, where its validation still falls by 0.02 in 500 steps.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_glow",
    recipe="glow",
    arguments={"levels": 3, "steps": 16, "hidden": 256},
    dataset="mnist",
    shape=(28, 28, 1),
    height=32,
    width=32,
    steps=50_000,
    batch_size=128,
    learning_rate=1e-3,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
)
