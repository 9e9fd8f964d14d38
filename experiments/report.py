"""Pictures and the closing lines of an experiment on images."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax import Array

from experiments.config import ImageExperiment
from jflow import Density, data
from jflow.data.image_scores import slerp
from jflow.train import History

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEMPERATURES = (0.7, 1.0)
GUIDANCES = (1.0, 2.0)


def draw_pictures(
    config: ImageExperiment,
    density: Density,
    history: History,
    test: data.Labelled,
    directory: Path,
) -> None:
    """Writes samples.png, interpolations.png (between test images) and curve.png."""
    _draw_samples(config, density, directory / "samples.png")
    _draw_interpolations(config, density, test, directory / "interpolations.png")
    _draw_curve(history, directory / "curve.png")


def interpolate(
    density: Density, first: Array, last: Array, context: Any = None, count: int = 8
) -> Array:
    """Images between `first` and `last`, (count, *event), along the sphere of their latents.

    A straight line would pass nearer to the origin than latents of real images lie.
    """
    a, b = (np.asarray(density.latents(y, context, key=i)) for i, y in enumerate((first, last)))
    return density.from_latents(slerp(a, b, np.linspace(0, 1, count)), context)


def tile(images: Any, rows: int, levels: int) -> np.ndarray:
    """(rows * columns, H, W, C) images of grey levels as one in [0, 1], with gaps between them."""
    images = np.clip(np.asarray(images) / (levels - 1), 0, 1)
    return data.tile(images, len(images) // rows)


def show(axes: Any, image: np.ndarray, title: str = "") -> None:
    """One tiled image in a pair of axes, without ticks."""
    image = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title)
    axes.axis("off")


def print_result(result: dict[str, Any], directory: Path) -> None:
    """The table that ends a run."""
    images = "test_bits_per_dim" in result
    name = "test_bits_per_dim" if images else "test_nll"
    rows = [("flow", f"{result[name]:.3f} +- {result['standard_error']:.3f}")]
    if (weighted := result.get(f"{name}_importance_weighted")) is not None:
        rows += [("  importance-weighted", f"{weighted:.3f}")]
    others = result.get("baselines", {}).items()
    rows += [(other.replace("_", " "), f"{bits:.3f}") for other, bits in others]
    if (accuracy := result.get("test_accuracy")) is not None:
        rows += [("accuracy of classes", f"{accuracy:.3f}")]
    print("test bits/dim" if images else "test -log p, nats")
    for label, text in rows:
        print(f"  {label:22s} {text}")
    print(f"{result['seconds']:.0f} s; written to {directory}/")


def _draw_samples(config: ImageExperiment, density: Density, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained")
    given = config.context_of(100)
    if "guidance" in config.arguments:
        ways = [(f"guidance {w}", density.with_guidance(w), 1.0) for w in GUIDANCES]
    else:
        ways = [(f"temperature {t}", density, t) for t in TEMPERATURES]
    for ax, (title, law, temperature) in zip(axes, ways, strict=True):
        samples = law.sample(jax.random.key(0), 100, given, temperature)
        show(ax, tile(config.shown(samples), 10, _levels(density)), title)
    _write(figure, path)


def _draw_interpolations(
    config: ImageExperiment, density: Density, test: data.Labelled, path: Path
) -> None:
    rows = []
    for i in range(8):
        other, context = 8 + i, None
        if config.classes is not None:  # between two of one class, if there are two
            context = config.context(test.labels[i])
            other = 8 + int(np.argmax(test.labels[8:] == test.labels[i]))
        rows.append(interpolate(density, test.y[i], test.y[other], context))
    figure, ax = plt.subplots(figsize=(6, 6.2), layout="constrained")
    images = config.shown(jnp.concatenate(rows))
    show(ax, tile(images, 8, _levels(density)), "test images (left, right) and points between")
    _write(figure, path)


def _levels(density: Density) -> int:
    """How many grey levels images have."""
    integers = density.flow.integers
    if integers is None:
        raise ValueError("pictures are of flows of grey levels; build the flow with values=k")
    return int(integers.high) + 1


def _draw_curve(history: History, path: Path) -> None:
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for part in ("train", "validation"):
        ax.plot(*history.column(f"{part}_{history.unit}"), label=part)
    ax.axvline(history.best_step, color="gray", linestyle=":", label="kept")
    ax.set(xlabel="step", ylabel=history.unit.replace("_", " "))
    ax.legend()
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    """Of several processes, the first writes."""
    if jax.process_index() == 0:
        figure.savefig(path, dpi=100)
    plt.close(figure)
