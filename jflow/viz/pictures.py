"""Pictures of images, densities, pairs of features, courses of training, and calibration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from jflow.data import tile
from jflow.data.parts import all_over
from jflow.distributions import Density, Flow
from jflow.distributions.contexts import leaves
from jflow.functional.arguments import check_counts
from jflow.train import History
from jflow.viz.figure import DRAWN, REAL, Picture, as_density, as_rows, panels

# Samples that tell where a density is, the share of them that is outside the picture, and its edge.
_SAMPLES, _OUTSIDE, _EDGE = 2_000, 0.01, 0.1
# The most features of pairs, the most dots.
_FEATURES, _DOTS = 8, 2_000
# Of the band that numbers are to stay in.
_SURE = 0.99


def grid(images: Any, *, columns: int | None = None, levels: int | None = None) -> Picture:
    """Images in rows.

    Args:
      images: (N, height, width, 1 or 3): integers, or numbers in [0, 1].
      columns: how many in a row; None for about as many as rows.
      levels: how many grey levels integers have; None for 256.

    Raises:
      ValueError: other shapes, or values out of range.
    """
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or not len(array):
        raise ValueError(f"images must be (N, height, width, 1 or 3); got {array.shape}")
    check_counts("grid", columns=1 if columns is None else columns)
    if levels is not None and levels < 2:
        raise ValueError(f"levels must be 2 or more; got {levels}")
    whole_numbers = array.dtype.kind in "iu"
    top = (levels or 256) - 1 if whole_numbers else 1
    array = array if whole_numbers else array.astype(np.float32)
    if not (array.min() >= 0 and array.max() <= top):
        raise ValueError(
            f"images must be numbers from 0 to {top}; got {array.min()} to {array.max()}. "
            "levels= says how many levels there are"
        )
    whole = tile(array / top, columns, gap=1)
    height, width = whole.shape[:2]
    longest = max(height, width)
    picture = Picture(figsize=(8 * width / longest, 8 * height / longest))
    axes: Any = picture.subplots()
    axes.imshow(whole[..., 0] if whole.shape[-1] == 1 else whole, cmap="gray", vmin=0, vmax=1)
    axes.axis("off")
    return picture


def density2d(
    density: Density, points: Any = None, context: Any = None, *, log: bool = False,
    resolution: int = 200,
) -> Picture:  # fmt: skip
    """p of two features as colours; or log p.

    Args:
      density: of two features, whose log_prob draws no noise.
      points: (N, 2), drawn on it, that decide where to look; None for where samples are.
      context: one context, of a conditional flow.
      log: whether colours are log p, down to 10 nats below the highest.
      resolution: pixels along each side.

    Raises:
      TypeError: it is no `Density`.
      ValueError: events are not of two features, log_prob draws noise, or the context does not fit.
    """
    check_counts("density2d", resolution=resolution)
    _check(as_density(density).flow, context)
    drawn = density.sample(0, _SAMPLES, context) if points is None else points
    rows = as_rows("points", drawn, 2).astype(np.float32)
    low, high = np.quantile(
        rows, [_OUTSIDE / 2, 1 - _OUTSIDE / 2] if points is None else [0, 1], axis=0
    )
    edge = _EDGE * (high - low)
    x, y = (np.linspace(low[i] - edge[i], high[i] + edge[i], resolution) for i in range(2))
    where = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    log_p = np.asarray(density.log_prob(where, context, batch_size=4096))
    log_p = log_p.reshape(resolution, resolution)
    shown = np.maximum(log_p, log_p.max() - 10) if log else np.exp(log_p)
    picture = Picture(figsize=(5.2, 4.4))
    axes: Any = picture.subplots()
    colours = axes.pcolormesh(x, y, shown, cmap="viridis", shading="nearest", rasterized=True)
    picture.colorbar(colours, ax=axes, label="log p" if log else "p")
    if points is not None:
        some = rows[all_over(len(rows), _DOTS)]
        axes.scatter(*some.T, s=3, color="white", alpha=0.5, linewidths=0)
    return picture


def _check(flow: Flow, context: Any) -> None:
    """Refuses what `density2d` cannot draw."""
    if flow.event_shape != (2,):
        raise ValueError(f"density must be of 2 features; its events are {flow.event_shape}")
    if flow.bijector.needs_key("inverse"):
        raise ValueError("density2d draws no noise, as log_prob of this density does")
    for part, shape, array in leaves(flow.context_shape, context, "context"):
        if array is None or np.shape(array) != shape:
            got = None if array is None else np.shape(array)
            raise ValueError(f"{part} must be one, for all points, of shape {shape}; got {got}")


def pairs(points: Any, samples: Any = None, names: Sequence[str] | None = None) -> Picture:
    """Each feature's histogram, and each pair of them as dots: points, and samples beside them.

    Args:
      points: (N, D), of which the first 8 features are shown, and 2,000 dots from all over; where a
        number is missing (NaN) there is no dot.
      samples: (M, D), in another colour; None for none.
      names: of the features.

    Raises:
      ValueError: shapes or names that do not fit.
    """
    real = as_rows("points", points, missing=True)
    features = real.shape[1]
    drawn = None if samples is None else as_rows("samples", samples, features, missing=True)
    names = [f"y{i}" for i in range(features)] if names is None else list(names)
    if len(names) != features:
        raise ValueError(f"names must be {features}, one for each feature; got {len(names)}")
    count = min(features, _FEATURES)
    picture = Picture(figsize=(1.8 * count, 1.8 * count))
    axes = picture.subplots(count, count, squeeze=False, sharex="col")
    both = [(rows, rows[all_over(len(rows), _DOTS)], colour)
            for rows, colour in ((drawn, DRAWN), (real, REAL)) if rows is not None]  # fmt: skip
    for i in range(count):
        there = [rows[np.isfinite(rows[:, i]), i] for rows, _, _ in both]
        edges = np.histogram_bin_edges(np.concatenate(there), 30)
        for values, (_, some, colour) in zip(there, both, strict=True):
            axes[i, i].hist(values, edges, density=True, color=colour, alpha=0.55)
            for j in range(i):
                axes[i, j].scatter(some[:, j], some[:, i], s=3, color=colour, alpha=0.5,
                                   linewidths=0)  # fmt: skip
        for j in range(i + 1, count):
            axes[i, j].axis("off")
        axes[i, 0].set_ylabel(names[i], fontsize=8)
        axes[-1, i].set_xlabel(names[i], fontsize=8)
    return picture


def curves(histories: History | Mapping[str, History]) -> Picture:
    """Losses in training, thin, and validation, thick, of one run or of several by name.

    Raises:
      TypeError, ValueError: there are none, or they have losses of different units.
    """
    runs = {"": histories} if isinstance(histories, History) else histories
    if not isinstance(runs, Mapping):
        raise TypeError(
            f"histories must be a History, or a dict of them by name; got {type(runs).__name__}"
        )
    units = {history.unit for history in runs.values()}
    if len(units) != 1:
        raise ValueError(f"histories must have one unit of losses; got {sorted(units)}")
    (unit,) = units
    picture = Picture(figsize=(6.0, 3.6))
    axes: Any = picture.subplots()
    for place, (name, history) in enumerate(runs.items()):
        thin: Any = {"color": f"C{place}", "linewidth": 0.7}
        for part, style in (("validation", {"color": f"C{place}"}), ("train", thin)):
            steps, losses = history.column(f"{part}_{unit}")
            if steps:
                axes.plot(steps, losses, label=f"{name} {part}".strip(), **style)
        if history.best:
            axes.axvline(history.best_step, linestyle=":", **thin)
    axes.set(xlabel="step", ylabel=unit.replace("_", " "))
    axes.legend(fontsize=8)
    return picture


def calibration(values: Any) -> Picture:
    """Numbers that should be uniform on (0, 1), such as p-values: histogram and distribution.

    Grey is where a bar of uniform numbers is in 99 of 100 cases, and where their whole distribution
    is in 99 of 100 cases (the band of Kolmogorov and Smirnov).

    Raises:
      ValueError: there are none, or some are not in [0, 1].
    """
    numbers = np.sort(np.asarray(values, np.float64).ravel())
    if not len(numbers) or not (numbers[0] >= 0 and numbers[-1] <= 1):
        raise ValueError(
            f"values must be 1 or more numbers in [0, 1]; got {len(numbers)}"
            f"{f', from {numbers[0]:.3g} to {numbers[-1]:.3g}' if len(numbers) else ''}"
        )
    count, bins = len(numbers), int(np.clip(math.sqrt(len(numbers)), 4, 20))
    picture, (left, right) = panels(2, 2, 3.2)
    band = stats.binom.ppf([(1 - _SURE) / 2, (1 + _SURE) / 2], count, 1 / bins)
    left.axhspan(*band, color="grey", alpha=0.25)
    left.hist(numbers, bins, range=(0.0, 1.0), color=REAL)
    off = stats.kstwo.ppf(_SURE, count)
    ends = np.asarray([0.0, 1.0])
    right.fill_between(ends, ends - off, ends + off, color="grey", alpha=0.25)
    right.step(numbers, np.arange(1, count + 1) / count, where="post", color=REAL)
    right.set(xlim=(0, 1), ylim=(0, 1))
    test: Any = stats.kstest(numbers, "uniform")
    right.set_title(f"Kolmogorov-Smirnov: p = {test.pvalue:.2g}", fontsize=8)
    left.set_title(f"{count:,} numbers", fontsize=8)
    return picture
