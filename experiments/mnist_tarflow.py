"""A causal transformer on MNIST, 28x28 as it is; bits/dim over the 784 pixels.

TarFlow of mixtures of logistics; 4x4 patches, whose numbers see those before in the patch, too.
Reads MNIST by TensorFlow Datasets, or a file: --dataset mnist.npz (x_train, y_train, x_test,
y_test).
Expected: test 1.060 bits/dim, standard error 0.003, by one draw of the noise for each of the 10,000
images, after 44 minutes on one core of an AMD EPYC beside other jobs. Published for Glow: 1.05
(Kingma and Dhariwal, 2018).
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="mnist_tarflow",
    recipe="tarflow",
    arguments={
        "blocks": 2,
        "layers": 3,
        "width": 128,
        "patch": 4,
        "within": 24,
        "components": 8,
    },
    dataset="mnist",
    shape=(28, 28, 1),
    steps=8000,
    batch_size=32,
    learning_rate=1e-3,
    warmup_steps=200,
    clip_norm=1.0,
    ema_decay=0.998,
    evaluate_every=1000,
    patience=None,
    samples_every=4,
    test_samples=1,
)
