"""DenseFlow on the 8x8 digits of scikit-learn: 17 grey levels, 1,297 training images.

Half of the training images are moved by up to a pixel.
Expected: test 2.026 bits/dim, standard error 0.013, 1.948 weighted by importance over 8 draws,
after 16 minutes on one hyperthread beside other jobs; validation has 2.030, and is still falling.
It is the first configuration that was tried. Published for CIFAR-10: 2.98.
"""

from experiments.config import ImageExperiment

CONFIG = ImageExperiment(
    name="digits_dense_flow",
    recipe="dense_flow",
    arguments={"hidden": 32, "dropout": 0.2},
    dataset="digits",
    shifts=0.5,
    steps=1800,
    learning_rate=2e-3,
    clip_norm=1.0,
    ema_decay=0.995,
    evaluate_every=200,
    patience=None,
    samples_every=3,
    test_samples=8,
)
