"""Images of another kind, by a density of usual ones: areas under the ROC curve.

    python -m benchmarks.image_anomalies USUAL.npz OTHER.npz ARRAY [STEPS [SEED]]

USUAL.npz is what `jflow.data.images` takes; ARRAY of OTHER.npz has images (N, height, width, 1 or
3) of the same shape. `flows.glow` with its defaults is fitted to usual images, and to the same with
mutated pixels as the background, each for STEPS steps of 64 images; 2,000 of the usual test images
are told from 2,000 of the others. Beside it: one Gaussian of all pixels, and file sizes. No choice
was made by these figures. Prints a row of a Markdown table for each score.
"""

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

import jflow
from jflow.data import ImageDensity

_MANY = 2_000


def gaussian(train: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """log p of a Gaussian of all pixels, with a little added to its variances."""
    x, y = (a.reshape(len(a), -1) / 255.0 for a in (train, scored))
    mean, covariance = x.mean(0), np.cov(x.T) + 1e-3 * np.eye(x.shape[1])
    white = np.linalg.solve(np.linalg.cholesky(covariance), (y - mean).T)
    return -0.5 * (white**2).sum(0)


def main(usual: str, other: str, array: str, steps: str = "2000", seed: str = "0") -> None:
    """Fits and scores."""
    import jax
    from sklearn.metrics import roc_auc_score

    images = jflow.data.images(usual, validation=300)
    with np.load(other) as arrays:
        strange = arrays[array]
    rng = np.random.default_rng(0)
    strange = strange[rng.permutation(len(strange))[:_MANY]]
    both = np.concatenate([images.test.y[-_MANY:], strange])
    labels = np.repeat([0, 1], [_MANY, len(strange)])
    flow = jflow.flows.glow(images.shape, values=images.values)
    options: dict[str, Any] = {
        "key": int(seed),
        "steps": int(steps),
        "batch_size": 64,
        "progress": "log",
    }
    start = time.perf_counter()
    found: Any = jflow.fit(flow, images, **options)[0]
    held = jflow.data.mutate(jax.random.key(0), images.validation.y)
    background, _ = jflow.fit(
        flow, images.train.y, validation=held, augment=jflow.data.mutate, **options
    )
    print(f"fitted in {(time.perf_counter() - start) / 60:.1f} minutes", file=sys.stderr)
    plain = ImageDensity(found.density)
    log_p = plain.log_prob(both)
    scores = {
        "log p": log_p,
        "complexity": replace(plain, correction="complexity").score(both),
        "background": replace(plain, correction="background", background=background).score(both),
        "one Gaussian": gaussian(images.train.y, both),
        "size of the file": -jflow.data.complexity(both),
    }  # fmt: skip
    print("| score | AUROC |\n|---|---|")
    for name, score in scores.items():
        print(f"| {name} | {roc_auc_score(labels, -score):.3f} |")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
