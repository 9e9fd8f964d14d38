"""The commands that fit flows to tables and images."""

import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jflow.cli.models import Source
from jflow.cli.pictures import holds_images

if TYPE_CHECKING:
    from jflow.data import Splits, Table

Recipe = Literal["nsf", "maf", "real_nvp", "naf", "sos", "glow"]
_OF_IMAGES = ("glow", "real_nvp")
# Options that say nothing of the other kind of data.
_TABLES_ALONE = ("columns", "given", "ignore", "conditionals", "test")
_IMAGES_ALONE = ("size", "grey", "large")
# Sizes that CPUs can train, in place of those of the papers.
_SMALL = {"glow": {"steps": 8, "hidden": 64}, "real_nvp": {"hidden": 32, "blocks": 2}}


@dataclass(frozen=True, kw_only=True)
class _OfData:
    """What commands share that fit flows."""

    source: Source
    """A table: a .csv, .tsv, .csv.gz, .parquet, .npy or .npz file. Or images: a folder of them, or
    a .npz file of 8-bit ones."""
    out: Path
    """The directory of the model; some of the data are kept there, too, for `jflow report`."""
    columns: tuple[str, ...] = ()
    """Kinds that are not to be found: NAME=KIND, such as "hour=circular(24)"."""
    given: tuple[str, ...] = ()
    """Columns that the density is conditional on."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    conditionals: bool = False
    """Whether every part of a row is learned given any other, as it is if cells are missing."""
    size: tuple[int, int] | None = None
    """Height and width that the images of a folder are cut and resized to."""
    grey: bool = False
    """Whether images are read as greys, though there are colours."""
    large: bool = False
    """Whether flows of images have the sizes of their papers, for which a GPU is needed."""
    steps: int = 2000
    """Parameter updates of a fit."""
    batch_size: int | None = None
    """Rows or images for each; by default 256 rows, or 64 images."""
    patience: int = 5
    """A fit ends after so many validations, one each 100 steps, without a better one."""
    validation: float = 0.1
    """The share of rows or images to choose by."""
    test: float = 0.1
    """The share of rows to report on and to calibrate by; of images as many as to choose by, if
    there are no test images."""
    seed: int = 0
    """Of the split, the parameters and the noise."""
    overwrite: bool = False
    """Whether a model that is there already may be replaced."""

    def data(self) -> "Table | Splits":
        """The data, once it is clear that the model may be written."""
        if not Path(self.source).expanduser().exists():
            raise FileNotFoundError(f"no file or folder {self.source}")
        there = [name for name in ("table", "images") if (self._out / f"{name}.json").exists()]
        if there and not self.overwrite:
            raise FileExistsError(f"{self.out} holds a model; give --overwrite, or another --out")
        if there and there != ["images" if holds_images(self.source) else "table"]:
            raise FileExistsError(f"{self.out} holds a model of {there[0]}; give another --out")
        import jflow.report  # so that it is told before time is spent if something is missing

        if holds_images(self.source):
            self._refuse(_TABLES_ALONE, "a table")
            images = jflow.data.images(
                self.source, validation=self.validation, seed=self.seed, size=self.size,
                grey=self.grey or None,
            )  # fmt: skip
            print(images, file=sys.stderr)
            return images
        self._refuse(_IMAGES_ALONE, "images")
        options: dict[str, Any] = {"conditionals": True} if self.conditionals else {}
        table = jflow.data.table(
            self.source, columns=pairs("--columns", self.columns), given=self.given,
            ignore=self.ignore, validation=self.validation, test=self.test, seed=self.seed,
            **options,
        )  # fmt: skip
        print(table, file=sys.stderr)
        return table

    @property
    def _out(self) -> Path:
        return self.out.expanduser()

    def _refuse(self, names: tuple[str, ...], kind: str) -> None:
        usual = {field.name: field.default for field in fields(self)}
        if given := [f"--{name}" for name in names if getattr(self, name) != usual[name]]:
            raise ValueError(f"{', '.join(given)}: only of {kind}, which {self.source} is not")

    def fit(self, data: Any, recipe: str | None, callback: Any = None) -> tuple[Any, Any]:
        """The density and its history."""
        import jflow

        images = isinstance(data, jflow.data.Splits)
        flow = of_images(data, recipe, self.large) if images else of_table(data, recipe)
        return jflow.fit(
            flow, data, key=self.seed, steps=self.steps, patience=self.patience,
            callback=callback, batch_size=self.batch_size or (64 if images else 256),
        )  # fmt: skip

    def save(self, data: Any, density: Any, history: Any) -> None:
        """Writes the model, and says how good it is."""
        import jflow
        from jflow.data.parts import all_over
        from jflow.report import Evidence, ImageEvidence

        density.save(self.out)
        kind, source = f"step {history.best_step}", Path(self.source).name
        if isinstance(data, jflow.data.Splits):
            ImageEvidence.of(data, history, source).save(self._out)
            found = jflow.evaluate(
                density.density, data.test.y[all_over(len(data.test), 1_000)], key=self.seed
            )
            print(f"test images: at most {found.mean:.3f} +- {found.standard_error:.3f} bits per "
                  f"dimension ({len(found.examples)} images; {kind}); saved in {self.out}",
                  file=sys.stderr)  # fmt: skip
            return
        Evidence.of(data, history, source).save(self._out)
        test = density.log_prob_of(data.rows[2])
        error = float(np.std(test) / np.sqrt(len(test)))
        bound = "at least " if data.schema.is_bound else ""
        print(f"test log-likelihood, {bound}{np.mean(test):.3f} +- {error:.3f} nats a row "
              f"({len(test)} rows; {kind}); saved in {self.out}", file=sys.stderr)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fit(_OfData):
    """Fits a flow to a table or to images, and saves the density of its raw data.

    jflow fit penguins.csv --out penguins
    jflow fit trips.parquet --out trips --columns "hour=circular(24)" fare=positive --given city
    jflow fit scans/ --out scans --size 32 32 --minutes 30
    """

    recipe: Recipe | None = None
    """The flow; by default nsf, autoregressive, or, of images, glow."""
    minutes: float | None = None
    """The fit ends at the first validation after so many."""

    def __call__(self) -> None:
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"--minutes must be above 0; got {self.minutes}")
        data = self.data()
        until = None if self.minutes is None else time.monotonic() + 60 * self.minutes
        self.save(data, *self.fit(data, self.recipe, until and _stop(until)))


@dataclass(frozen=True, kw_only=True)
class Compare(_OfData):
    """Fits several flows in a given time, and saves the one that does best in validation.

    jflow compare penguins.csv --out penguins --minutes 5
    jflow compare trips.parquet --out trips --recipes nsf maf
    """

    recipes: tuple[Recipe, ...] | None = None
    """The flows; by default nsf, maf and real_nvp, or, of images, glow and real_nvp."""
    minutes: float = 10.0
    """For all of them; each has an equal share of what is left, and one validation at least."""

    def __call__(self) -> None:
        if self.recipes == () or not self.minutes > 0:
            raise ValueError(
                f"--recipes and --minutes must be some; got {self.recipes}, {self.minutes}"
            )
        from jflow.train import NonFiniteLossError

        data, end = self.data(), time.monotonic() + 60 * self.minutes
        usual = _OF_IMAGES if holds_images(self.source) else ("nsf", "maf", "real_nvp")
        recipes, fits = self.recipes or usual, {}
        for place, recipe in enumerate(recipes):
            now = time.monotonic()
            until = now + max(0.0, end - now) / (len(recipes) - place)
            try:
                density, history = self.fit(data, recipe, _stop(until))
            except (ValueError, NonFiniteLossError) as error:
                print(f"{recipe}: left out: {error}", file=sys.stderr)
                continue
            if history.rows:
                best = min(row[f"validation_{history.unit}"] for row in history.rows)
                fits[recipe] = best, density, history, time.monotonic() - now
            if history.ended == "interrupted":
                break
        if not fits:
            raise ValueError(f"none of {list(recipes)} could be fitted")
        for recipe, (best, _, history, seconds) in sorted(fits.items(), key=lambda f: f[1][0]):
            table = history.unit == "nll"
            value = f"{-best:.3f} nats a row" if table else f"{best:.3f} bits per dimension"
            print(f"{recipe}: {value} in validation (step {history.best_step}, {seconds:.0f} s, "
                  f"{history.ended})", file=sys.stderr)  # fmt: skip
        chosen = min(fits, key=lambda recipe: fits[recipe][0])
        print(f"chosen: {chosen}", file=sys.stderr)
        self.save(data, *fits[chosen][1:3])


def of_table(table: "Table", recipe: str | None) -> Any:
    """A flow for a table."""
    import jflow

    if recipe in (None, "nsf"):
        return jflow.flows.tabular(table)
    if recipe == "glow":
        raise ValueError("--recipe: glow is of images; for a table choose nsf, maf or real_nvp")
    return getattr(jflow.flows, recipe)(table.features, context_shape=table.context_shape)


def of_images(images: "Splits", recipe: str | None, large: bool = False) -> Any:
    """A flow for images."""
    import jflow

    recipe = recipe or "glow"
    if recipe not in _OF_IMAGES:
        raise ValueError(f"--recipe: {recipe} is of tables; for images choose from {_OF_IMAGES}")
    if any(size % 2 for size in images.shape[:2]):
        raise ValueError(
            f"height and width of images must be even; they are {images.shape[:2]}. Give --size, "
            "such as 32 32, for images of a folder"
        )
    sizes = {} if large else _SMALL[recipe]
    return getattr(jflow.flows, recipe)(image_shape=images.shape, values=images.values, **sizes)


def _stop(until: float) -> Any:
    """A callback that ends a fit."""
    return lambda density, row: "stop" if time.monotonic() > until else None


def pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """Names and values of an option, as NAME=VALUE."""
    pairs = dict(text.split("=", 1) for text in given if "=" in text)
    if len(pairs) != len(given):
        raise ValueError(f"{option} must be of the form NAME=VALUE; got {list(given)}")
    return pairs
