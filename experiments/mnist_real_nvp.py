"""Real NVP on MNIST, 28x28, two scales.

Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test). Published for Real NVP: 1.06 bits/dim (Residual Flow, Chen et al., 2019, table 1). This
config is sized for one GPU; on a CPU, shrink it: --steps 2000 --batch-size 32.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_real_nvp",
    recipe="real_nvp",
    arguments={"levels": 2, "hidden": 64, "blocks": 4},
    dataset="mnist",
    shape=(28, 28, 1),
    steps=50_000,
    batch_size=128,
    learning_rate=1e-3,
    warmup_steps=500,
    ema_decay=0.999,
    evaluate_every=1000,
    patience=None,
    test_samples=4,
)
