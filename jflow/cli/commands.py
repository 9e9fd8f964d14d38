"""The commands, each a dataclass of its arguments. JAX is imported when one runs."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from jflow.cli.edits import Edit, Restore
from jflow.cli.files import Part, read_parts, writer
from jflow.cli.fitting import Compare, Fit, pairs
from jflow.cli.models import Model, Source, load, load_table
from jflow.cli.pictures import check_out, read_images, write_images

if TYPE_CHECKING:
    from jflow.data import ImageDensity, TableDensity


@dataclass(frozen=True)
class Score:
    """Writes log p of rows or images, and p-values of how usual they are.

    jflow score penguins new.csv --out scores.csv
    cat new.csv | jflow score penguins - | head
    jflow score scans new_scans/
    """

    model: Model
    """The directory of a model."""
    source: Source
    """Of a table a .csv, .tsv, .parquet, .npy or .npz file, or - for standard input; of images a
    folder, an image or a .npz file."""
    out: str = "-"
    """A .csv file, or - for standard output."""
    contributions: bool = False
    """Whether to add how surprising each cell is, given the others in its row, in nats."""
    resize: bool = False
    """Whether images of other sizes are resized, as those of `fit --size` were."""
    seed: int = 0
    """Of noise."""

    def __call__(self) -> None:
        from jflow.data import ImageDensity

        density = load(self.model)
        if isinstance(density, ImageDensity):
            if self.contributions:
                raise ValueError(f"--contributions are of tables; {self.model} is of images")
            parts = self._of_images(density)
        else:
            if self.resize:
                raise ValueError(f"--resize is of images; {self.model} is of a table")
            parts = self._of_rows(density)
        with writer(self.out) as rows:
            for part in parts:
                rows.write(part)

    def _of_rows(self, density: "TableDensity") -> Iterator[Part]:
        from jflow.data.anomalies import p_values

        for part in read_parts(self.source, density.schema.order):
            found = {"log_prob": density.log_prob(part, key=self.seed)}
            if density.calibration is not None:
                found["p_value"] = p_values(density.calibration, found["log_prob"], tails=2)
            if self.contributions:
                each = density.contributions(part, key=self.seed)
                found |= {f"surprise_{name}": values for name, values in each.items()}
            yield found

    def _of_images(self, density: "ImageDensity") -> Iterator[Part]:
        from jflow.data.anomalies import p_values

        parts = read_images(self.source, density.shape, density.levels, self.resize)
        for names, images in parts:
            log_prob = density.log_prob(images, key=self.seed)
            bits = -log_prob / (math.log(2) * math.prod(density.shape))
            found = {"image": np.asarray(names), "log_prob": log_prob, "bits_per_dim": bits}
            if density.calibration is not None:
                score = density.corrected(images, log_prob, key=self.seed)
                found["p_value"] = p_values(density.calibration, score, tails=2)
            yield found


@dataclass(frozen=True)
class Sample:
    """Writes rows or images that the density draws.

    jflow sample penguins 1000 --out more.csv
    jflow sample penguins 5 --given species=Gentoo
    jflow sample scans 64 --out samples.png --temperature 0.8
    """

    model: Model
    """The directory of a model."""
    count: Annotated[int, tyro.conf.Positional]
    """How many."""
    out: str = "-"
    """Of a table a .csv file, or - for standard output; of images a .png file for one picture of
    all, a .npz file, or a folder of .png files."""
    given: tuple[str, ...] = ()
    """NAME=CELL of the columns that the density is conditional on."""
    temperature: float = 1.0
    """Of images: below 1 they are more usual, and less varied."""
    seed: int = 0
    """Equal seeds give equal samples."""

    def __call__(self) -> None:
        from jflow.data import ImageDensity

        density = load(self.model)
        if isinstance(density, ImageDensity):
            if self.given or self.out == "-":
                raise ValueError(f"{self.model} is of images: give --out, and leave out --given")
            check_out(Path(self.out))
            images = density.sample(self.count, temperature=self.temperature, key=self.seed)
            write_images(Path(self.out), images, density.levels)
            return
        if self.temperature != 1.0:
            raise ValueError(f"--temperature is of images; {self.model} is of a table")
        density = _as_dicts(density)
        given = {name: np.asarray([cell]) for name, cell in pairs("--given", self.given).items()}
        with writer(self.out) as rows:
            for number, first in enumerate(range(0, self.count, 10_000)):
                count = min(10_000, self.count - first)
                rows.write(density.sample(count, given or None, key=_key(self.seed, number)))


@dataclass(frozen=True)
class Impute:
    """Writes rows with their missing cells filled in.

    jflow impute penguins holes.csv --out whole.csv
    """

    model: Model
    """The directory of a model of a table."""
    source: Source
    """A .csv, .tsv, .parquet, .npy or .npz file, or - for standard input."""
    out: str = "-"
    """A .csv file, or - for standard output."""
    draw: bool = False
    """Whether to draw the missing cells of a row together, rather than write the median of each."""
    seed: int = 0
    """Of draws."""

    def __call__(self) -> None:
        density = load_table("impute", self.model)
        samples = 1 if self.draw else None
        with writer(self.out) as rows:
            for number, part in enumerate(read_parts(self.source, density.schema.order)):
                found = density.impute(part, samples=samples, key=_key(self.seed, number))
                rows.write(found[0] if self.draw else found)


@dataclass(frozen=True)
class Info:
    """Says what a model is.

    jflow info penguins
    """

    model: Model
    """The directory of a model."""
    as_json: bool = False
    """Whether to write JSON."""

    def __call__(self) -> None:
        from jflow.data import ImageDensity

        density = load(self.model)
        told = _of_images(density) if isinstance(density, ImageDensity) else _of_table(density)
        calibration, recipe = density.calibration, density.density.flow.recipe
        told |= {
            "recipe": recipe and recipe.name,
            "calibration_rows": 0 if calibration is None else len(calibration),
        }
        if self.as_json:
            print(json.dumps(told))
            return
        for name, kind in told.pop("columns", {}).items():
            print(f"{name}: {kind}")
        for name, kind in told.pop("given", {}).items():
            print(f"{name}: {kind}, given")
        for name, value in told.items():
            print(f"{name}: {str(value).lower() if value in (None, True, False) else value}")


def _of_table(density: "TableDensity") -> dict[str, Any]:
    schema = density.schema
    return {
        "columns": {c.name: str(c) for c in schema.columns},
        "given": {c.name: str(c) for c in schema.given},
        "conditionals": schema.conditionals,
        "is_bound": schema.is_bound,
    }


def _of_images(density: "ImageDensity") -> dict[str, Any]:
    return {
        "shape": list(density.shape), "levels": density.levels, "correction": density.correction
    }  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Writes a page about a model: likelihood, samples, calibration, what is strangest.

    jflow report penguins
    jflow report penguins --out penguins.html
    """

    model: Model
    """The directory of a model."""
    out: Path | None = None
    """An .html file; by default report.html in the model's directory."""
    seed: int = 0
    """Of samples."""

    def __call__(self) -> None:
        from jflow.data import ImageDensity
        from jflow.report import Evidence, ImageEvidence, report

        out, density = self.out or self.model / "report.html", load(self.model)
        kept = ImageEvidence if isinstance(density, ImageDensity) else Evidence
        report(density, kept.load(self.model.expanduser()), out, seed=self.seed)
        print(f"saved in {out}", file=sys.stderr)


COMMANDS = {
    "fit": Fit, "compare": Compare, "score": Score, "sample": Sample, "report": Report,
    "impute": Impute, "edit": Edit, "restore": Restore, "info": Info,
}  # fmt: skip


def _as_dicts(density: "TableDensity") -> "TableDensity":
    from dataclasses import replace

    return replace(density, schema=replace(density.schema, frame="dict"))


def _key(seed: int, number: int) -> Any:
    """Of a part of the rows."""
    import jax

    return jax.random.fold_in(jax.random.key(seed), number)
