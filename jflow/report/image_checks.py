"""What a report on images finds out: bits beside baselines, memorised images, two samples."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from jflow.data import ImageDensity, complexity
from jflow.report.checks import TwoSample, two_sample

# Images that baselines are fitted on, and that are scored; the largest event that has a Gaussian.
_FITTED, _SCORED, _LARGEST = 5_000, 500, 4_096
# Numbers that baselines are fitted on, at most; test images that a hundredth of can be told.
_NUMBERS, _ENOUGH = 2**24, 100
COMPONENTS = 30


@dataclass(frozen=True)
class Bits:
    """Mean bits per dimension of test images, by method: (mean, standard error of the mean).

    Attributes:
      each: "flow" first; lower is better.
      gains: by how much the flow is better, in the same images, with standard errors.
      images: how many.
    """

    each: dict[str, tuple[float, float]]
    gains: dict[str, tuple[float, float]]
    images: int


def bits(
    density: ImageDensity, parts: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int
) -> Bits:  # fmt: skip
    """The flow beside a Gaussian, a kernel estimate, files without loss, and no model at all."""
    train, validation, test = parts
    test = test[:_SCORED]
    unit = math.log(2) * math.prod(density.shape)
    found = {"flow": -density.log_prob(test) / unit}
    rng, fitted = np.random.default_rng(seed), min(_FITTED, _NUMBERS // math.prod(density.shape))
    seen = [_dequantized(y, density.levels, rng) for y in (train[:fitted], validation, test)]
    for name, score in _baselines(seen[0], seen[1]).items():
        found[name] = math.log2(density.levels) - score(seen[2]) / unit
    if density.levels <= 256 and density.shape[-1] in (1, 3):
        with contextlib.suppress(ImportError):  # of a Pillow without WebP
            found["file without loss"] = complexity(test) / unit
    found["no model"] = np.full(len(test), math.log2(density.levels))
    gains = {name: _mean(found[name] - found["flow"]) for name in found if name != "flow"}
    return Bits({name: _mean(f) for name, f in found.items()}, gains, len(test))


def _dequantized(y: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """(N, D) in (0, 1)."""
    flat = y.reshape(len(y), -1)
    return (flat + rng.random(flat.shape)) / levels


def _baselines(
    train: np.ndarray, validation: np.ndarray
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Log densities, by name, fitted to rows (N, D); what they leave open is chosen."""
    best = lambda options: max(options, key=lambda score: score(validation).mean())  # noqa: E731
    found = {}
    if train.shape[1] <= _LARGEST:
        mean, centred = train.mean(0), train - train.mean(0)
        covariance = centred.T @ centred / len(train)
        found["one Gaussian"] = best(
            [_gaussian(mean, covariance, share) for share in (0.001, 0.01, 0.05, 0.2)]
        )
    found["kernel estimate"] = best([_kernels(train, float(w)) for w in np.geomspace(0.02, 0.5, 8)])
    return found


def _gaussian(
    mean: np.ndarray, covariance: np.ndarray, share: float
) -> Callable[[np.ndarray], np.ndarray]:
    """With a share of the mean variance on its diagonal, without which it has no density."""
    size = len(mean)
    common = np.trace(covariance) / size
    lower = np.linalg.cholesky((1 - share) * covariance + share * common * np.eye(size))
    constant = -0.5 * size * math.log(2 * math.pi) - np.log(np.diag(lower)).sum()

    def score(y: np.ndarray) -> np.ndarray:
        white = solve_triangular(lower, (y - mean).T, lower=True)
        return constant - 0.5 * np.square(white).sum(0)

    return score


def _kernels(train: np.ndarray, width: float) -> Callable[[np.ndarray], np.ndarray]:
    """Normals of one width around all training images."""
    size = train.shape[1]
    constant = -size * math.log(width * math.sqrt(2 * math.pi)) - math.log(len(train))

    def score(y: np.ndarray) -> np.ndarray:
        each = -0.5 * squared_distances(y, train) / width**2
        return constant + np.logaddexp.reduce(each, axis=1)

    return score


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between all rows, (N, D) and (M, D): (N, M)."""
    lengths = np.square(first).sum(1)[:, None] + np.square(second).sum(1)
    return np.maximum(lengths - 2 * first @ second.T, 0)


@dataclass(frozen=True)
class Neighbours:
    """How near generated images and test images are to training images.

    Attributes:
      nearest: of each generated image, the place of the nearest training image, (N,).
      distances: of generated images to these: root mean square of differences of levels, (N,).
      usual: the same of test images, (M,).
      searched: in how many training images.
    """

    nearest: np.ndarray
    distances: np.ndarray
    usual: np.ndarray
    searched: int

    @property
    def too_near(self) -> float | None:
        """The share of generated images that are nearer than 99 % of test images are; 1 % is usual.

        A flow that draws training images from memory has many. None of fewer than 100 test images.
        """
        if len(self.usual) < _ENOUGH:
            return None
        return float(np.mean(self.distances < np.quantile(self.usual, 0.01)))


def neighbours(drawn: np.ndarray, train: np.ndarray, test: np.ndarray) -> Neighbours:
    """Of generated images, their nearest training images."""
    flat = [y.reshape(len(y), -1).astype(np.float32) for y in (drawn, train, test)]
    found = []
    for y in (flat[0], flat[2]):
        squared = np.concatenate([squared_distances(part, flat[1]) for part in _some(y)])
        nearest = squared.argmin(1)
        found.append((nearest, np.sqrt(squared[np.arange(len(y)), nearest] / y.shape[1])))
    return Neighbours(*found[0], usual=found[1][1], searched=len(train))


def _some(y: np.ndarray) -> list[np.ndarray]:
    return [y[first : first + 100] for first in range(0, len(y), 100)]


def told_apart(real: np.ndarray, drawn: np.ndarray, train: np.ndarray) -> TwoSample | None:
    """The classifier two-sample test, by the principal components of training images."""
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, len(train), math.prod(train.shape[1:]))
    few = train[:_FITTED].reshape(len(train[:_FITTED]), -1).astype(np.float32)
    components = PCA(count, random_state=0).fit(few)
    seen = [components.transform(y.reshape(len(y), -1).astype(np.float32)) for y in (real, drawn)]
    return two_sample(seen[0], seen[1])


def _mean(each: np.ndarray) -> tuple[float, float]:
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else math.nan
    return float(each.mean()), error
