"""What flows have to beat: two classical densities, fitted by scikit-learn on the same split."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from jflow.data import Splits


def fit_baselines(splits: Splits, samples: int, seed: int = 0) -> dict[str, float]:
    """Test bits per dimension of the best Gaussian mixture and the best kernel density.

    Both see four dequantized copies (y + u) / k of each training image, are chosen on the
    validation images, and scored on the test images with `samples` draws of u, as the flow is.
    """
    rng = np.random.default_rng(seed)
    k = splits.values

    def dequantized(images: np.ndarray, copies: int) -> np.ndarray:
        images = np.repeat(images, copies, axis=0).reshape(copies * len(images), -1)
        return (images + rng.random(images.shape)) / k

    train = dequantized(splits.train.y, 4)
    validation = dequantized(splits.validation.y, 4)
    test = dequantized(splits.test.y, samples)

    def bits(model: Any, images: np.ndarray) -> float:
        return math.log2(k) - model.score_samples(images).mean() / (images.shape[1] * math.log(2))

    def best(fit: Callable[[Any], Any], choices: Iterable[Any]) -> float:
        models = [fit(choice) for choice in choices]
        return float(bits(min(models, key=lambda model: bits(model, validation)), test))

    def mixture(choice: tuple[int, float]) -> GaussianMixture:
        components, floor = choice
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return GaussianMixture(components, reg_covar=floor, random_state=seed).fit(train)

    def kernel(width: float) -> KernelDensity:
        return KernelDensity(bandwidth=width).fit(train)

    grid = [(n, floor) for n in (5, 8, 10, 15) for floor in (5e-4, 7e-4, 1e-3)]
    widths = np.geomspace(0.02, 0.3, 12)
    return {
        "gaussian_mixture": best(mixture, grid),
        "kernel_density": best(kernel, widths),
    }
