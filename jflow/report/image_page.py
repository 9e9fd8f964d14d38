"""What the page on the density of images holds."""

from typing import Any

import jax
import numpy as np

import jflow
from jflow.data import ImageDensity, Splits
from jflow.data.image_scores import fingerprints
from jflow.report import checks, figures, image_checks
from jflow.report.course import of_course
from jflow.report.evidence import ImageEvidence

DATA, KEPT, TEMPLATE = Splits, ImageEvidence, "images.html"
# Generated images; images in grids, and in their rows; pairs of neighbours; rows between images.
_MANY, _SHOWN, _COLUMNS, _PAIRS, _BETWEEN = 500, 48, 16, 16, 6
_COOLER, _SURE = 0.7, 0.01
# A share of generated images nearer to training images than 99 % of test images are.
_TOO_NEAR = 0.05


def check(density: ImageDensity, evidence: ImageEvidence) -> None:
    """Refuses evidence of something else.

    Raises:
      ValueError: it is of other images.
    """
    other = not isinstance(evidence, ImageEvidence) or evidence.parts[0].shape[1:] != density.shape
    trained = density.trained
    if not other and trained is not None:
        other = not np.isin(fingerprints(evidence.parts[0]), trained).all()
    if other:
        raise ValueError("evidence must be of the images that the density was fitted to")


def findings(density: ImageDensity, evidence: ImageEvidence, seed: int) -> dict[str, Any]:
    """What the template is given."""
    train, validation, test = evidence.parts
    order = np.random.default_rng(seed).permutation(len(test))
    drawn = density.sample(_MANY, key=seed)
    real = test[order[:_MANY]]
    calibration = None
    if density.calibration is not None and len(validation) >= checks.FEW:
        calibration = checks.uniform(density.p_value(validation))
    score = density.score(test)
    flow = density.density.flow.recipe
    found = {
        "version": jflow.__version__, "evidence": evidence, "density": density,
        "flow": flow.name if flow else "of its own",
        "parameters": sum(a.size for a in jax.tree.leaves(density.density.variables["params"])),
        "course": figures.course(
            evidence.history, evidence.best_step, "bits_per_dim", "bits per dimension"
        ),
        "bits": image_checks.bits(density, evidence.parts, seed),
        "pair": image_checks.told_apart(real, drawn[: len(real)], train),
        "components": image_checks.COMPONENTS,
        "neighbours": image_checks.neighbours(drawn, train, test),
        "calibration": calibration,
        "p_values": calibration and figures.uniform(calibration, "p-value", "p-values"),
    }  # fmt: skip
    found |= _grids(density, evidence, found["neighbours"], drawn, order, score, seed)
    return found | {"warnings": _warnings(density, evidence, found)}


def _grids(
    density: ImageDensity, evidence: ImageEvidence, neighbours: image_checks.Neighbours,
    drawn: np.ndarray, order: np.ndarray, score: np.ndarray, seed: int,
) -> dict[str, figures.Picture | None]:  # fmt: skip
    train, _, test = evidence.parts

    def grid(images: np.ndarray, says: str, columns: int = _COLUMNS) -> figures.Picture:
        return figures.grid(images, density.levels, columns, says)

    some = np.random.default_rng(seed).permutation(len(train))[:_SHOWN]
    near = np.argsort(neighbours.distances)[:_PAIRS]
    pairs = np.concatenate([drawn[near], train[neighbours.nearest[near]]])
    ends = test[order[: 2 * (min(2 * _BETWEEN, len(test)) // 2)]]
    rows = [density.interpolate(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    cooler = density.sample(_SHOWN, temperature=_COOLER, key=seed + 1)
    return {
        "training_images": grid(train[some], f"{len(some)} training images, drawn by chance"),
        "real_images": grid(test[order[:_SHOWN]], f"{_SHOWN} test images or fewer, by chance"),
        "samples": grid(drawn[:_SHOWN], f"{_SHOWN} generated images, as they came"),
        "cooler": grid(cooler, f"{_SHOWN} generated images of temperature {_COOLER}"),
        "nearest": grid(pairs,
                        f"{len(near)} generated images, each beside its nearest training image"),
        "between": None if not rows else grid(
            np.concatenate(rows),
            f"{len(rows)} rows of 8 images, each from one test image to another", 8),
        "strangest": grid(test[np.argsort(score)[:_COLUMNS]],
                          f"the {min(_COLUMNS, len(test))} least usual test images"),
    }  # fmt: skip


def _warnings(
    density: ImageDensity, evidence: ImageEvidence, found: dict[str, Any]
) -> list[str]:  # fmt: skip
    said = of_course(evidence, "bits_per_dim", "bits per dimension")
    if (count := evidence.counts[2]) < 100:
        said.append(f"There are {count} test images: all figures that rest on them are uncertain.")
    train, _, test = evidence.parts
    known = fingerprints(train) if density.trained is None else density.trained
    shared = float(np.isin(fingerprints(test), known).mean())
    if shared > 0.01:
        said.append(f"{shared:.0%} of the test images are among the training images, too.")
    for name, (gain, error) in found["bits"].gains.items():
        if gain < -error:
            said.append(f"The test images take {-gain:.2f} bits per dimension less by: {name}.")
    if found["pair"] and found["pair"].accuracy > 0.75:
        said.append("Generated images are easily told from real ones.")
    if (found["neighbours"].too_near or 0.0) >= _TOO_NEAR:
        said.append("Many generated images are close to training images: see Memory.")
    if density.calibration is None:
        said.append("The density is not calibrated: there are no p-values.")
    if found["calibration"] and found["calibration"].p_value < _SURE:
        said.append("p-values of validation images are not uniform.")
    return said
