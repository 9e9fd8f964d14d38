"""Pictures of a report, each for a light and a dark page."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from jflow.data.column import Column
from jflow.data.image_files import tile
from jflow.report.checks import Uniform

# Colours that the colour-blind tell apart, of real rows and generated ones, on either page.
_REAL, _DRAWN = "#3b82c4", "#d9772b"
_INK = {"light": "#30343a", "dark": "#d5d9e0"}
_FEWEST, _BINS, _WORDS, _DOTS, _PAIRS = 8, 30, 12, 400, 4
_SMALL = (3.3, 2.3)
# Pixels of grids, and of their images, that they are enlarged to, at most.
_WIDTH, _LARGEST = 1_000, 64
Draw = Callable[[Figure], None]


class Picture(NamedTuple):
    """A picture as PNG in base64.

    Attributes:
      light: for a light page.
      dark: for a dark one.
      says: what is to be seen, in words.
    """

    light: str
    dark: str
    says: str


def picture(draw: Draw, size: tuple[float, float], says: str) -> Picture:
    """What `draw` draws."""
    found = {}
    for name, ink in _INK.items():
        inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
        style: Any = dict.fromkeys(inks, ink) | {
            "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
            "legend.frameon": False,
        }  # fmt: skip
        with mpl.rc_context(style):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            written = io.BytesIO()
            figure.savefig(written, format="png", dpi=120, transparent=True)
        found[name] = base64.b64encode(written.getvalue()).decode()
    return Picture(found["light"], found["dark"], says)


def course(
    history: Sequence[dict[str, float]],
    best_step: int,
    unit: str = "nll",
    what: str = "-log p, nats",
) -> Picture:
    """Losses while training."""
    steps = [row["step"] for row in history]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, colour in ((f"train_{unit}", _REAL), (f"validation_{unit}", _DRAWN)):
            values = [row.get(name, np.nan) for row in history]
            axes.plot(steps, values, color=colour, marker=".", label=name.split("_")[0])
        axes.axvline(best_step, color="grey", linewidth=1, linestyle=":", label="kept")
        axes.set(xlabel="step", ylabel=what)
        axes.legend()

    last = history[-1].get(f"validation_{unit}", np.nan)
    says = (f"{what} in training and validation over {steps[-1]:.0f} steps; the parameters of step "
            f"{best_step} were kept; validation ends at {last:.2f}")  # fmt: skip
    return picture(draw, (6.5, 3.0), says)


def grid(images: np.ndarray, levels: int, columns: int, says: str) -> Picture:
    """Images (N, height, width, channels) in rows."""
    from PIL import Image

    grey = np.round(np.asarray(images, np.float32) * (255 / (levels - 1))).astype(np.uint8)
    whole = tile(grey, columns, gap=128)
    image = Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    times = max(1, min(_WIDTH // image.width, _LARGEST // images.shape[1]))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    encoded = base64.b64encode(written.getvalue()).decode()
    return Picture(encoded, encoded, says)


def marginal(column: Column, real: np.ndarray, drawn: np.ndarray) -> Picture:
    """One column: t of rows and of generated ones, (N,) each."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _marginal(axes, column, real, drawn)
        axes.set_title(column.name)

    says = f"Histograms of {column.name}: shares of real cells and of generated ones"
    return picture(draw, _SMALL, says)


def _marginal(axes: Any, column: Column, real: np.ndarray, drawn: np.ndarray) -> None:
    cells = [numbers(column, t[np.isfinite(t)]) for t in (real, drawn)]
    if column.categories or column.kind == "boolean":
        words = column.categories[:_WORDS] or ("false", "true")
        for place, (some, colour) in enumerate(zip(cells, (_REAL, _DRAWN), strict=True)):
            shares = [np.mean(some == word) if len(some) else 0 for word in range(len(words))]
            axes.bar(np.arange(len(words)) + 0.4 * place - 0.2, shares, 0.4, color=colour)
        axes.set_xticks(range(len(words)), [word[:10] for word in words], rotation=30, ha="right")
        return
    both = np.concatenate(cells)
    low, high = np.quantile(both, [0.002, 0.998]) if len(both) else (0.0, 1.0)
    edges = _edges(column, low, high, len(real))
    for some, colour in zip(cells, (_REAL, _DRAWN), strict=True):
        weights = np.full(len(some), 1 / max(1, len(some)))
        axes.hist(some, edges, weights=weights, color=colour, alpha=0.55)
    if column.kind == "date":
        ticks = np.linspace(low, high, 3)
        days = np.datetime64("1970-01-01", "D") + ticks.astype("timedelta64[D]")
        axes.set_xticks(ticks, [str(day) for day in days], fontsize=7)


def _edges(column: Column, low: float, high: float, rows: int) -> np.ndarray:
    """Of bins that rows can fill; of a grid of few cells, these."""
    count = int(np.clip(np.sqrt(rows), _FEWEST, _BINS))
    if column.step and (high - low) / column.step < count:
        cells = round((high - low) / column.step) + 1
        return low - column.step / 2 + column.step * np.arange(cells + 1)
    return np.linspace(low, high if high > low else low + 1, count + 1)


def numbers(column: Column, t: np.ndarray) -> np.ndarray:
    """Raw numbers of t: of categories their places, of dates days since 1970."""
    x = column.offset + column.unit * t
    return np.round(x) if column.categories or column.kind == "boolean" else x


def pairs(columns: Sequence[Column], real: np.ndarray, drawn: np.ndarray) -> list[Picture]:
    """Pairs of the columns of numbers that depend on each other most."""
    order = [d for d, c in enumerate(columns) if not c.categories and c.kind != "boolean"]
    whole = np.isfinite(real[:, order]).all(1)
    if len(order) < 2 or whole.sum() < 3:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        related = np.nan_to_num(np.abs(np.corrcoef(real[whole][:, order].T)))
    found = [(related[i, j], order[i], order[j]) for i in range(len(order)) for j in range(i)]
    found = sorted(found, reverse=True)[:_PAIRS]
    return [_pair(columns, real, drawn, first, second) for _, second, first in found]


def _pair(
    columns: Sequence[Column], real: np.ndarray, drawn: np.ndarray, first: int, second: int
) -> Picture:
    names = columns[first].name, columns[second].name

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for t, colour in ((drawn, _DRAWN), (real, _REAL)):
            x, y = (numbers(columns[d], t[:_DOTS, d]) for d in (first, second))
            axes.scatter(x, y, s=8, color=colour, alpha=0.6, linewidths=0)
        axes.set(xlabel=names[0], ylabel=names[1])

    says = f"{names[1]} against {names[0]}: real rows and generated ones as dots of two colours"
    return picture(draw, _SMALL, says)


def uniform(found: Uniform, name: str, what: str) -> Picture:
    """The histogram of numbers that should be uniform."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.hist(found.values, bins=10, range=(0.0, 1.0), color=_REAL)
        axes.axhline(len(found.values) / 10, color="grey", linestyle=":")
        axes.set_title(name)

    says = (f"Histogram of {what}, flat where they are calibrated; the Kolmogorov-Smirnov test has "
            f"p = {found.p_value:.2g}")  # fmt: skip
    return picture(draw, _SMALL, says)
