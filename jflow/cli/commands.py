"""The commands, each a dataclass of its arguments. JAX is imported when one runs."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from jflow.cli.files import Part, read_parts, writer
from jflow.cli.fitting import Compare, Fit, Source, pairs

if TYPE_CHECKING:
    from jflow.data import TableDensity

Model = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class _OfRows:
    """What commands share that write something for the rows of a table."""

    model: Model
    """The directory of a model."""
    source: Source
    """A .csv, .tsv, .parquet, .npy or .npz file, or - for standard input."""
    out: str = "-"
    """A .csv file, or - for standard output."""
    seed: int = 0
    """Of noise and draws."""

    def __call__(self) -> None:
        density = _load(self.model)
        with writer(self.out) as rows:
            for number, part in enumerate(read_parts(self.source, density.schema.order)):
                rows.write(self.of_part(density, part, number))

    def of_part(self, density: "TableDensity", part: Part, number: int) -> Part:
        """Columns to be written, of some rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class Score(_OfRows):
    """Writes log p of rows, and p-values of how usual they are.

    jflow score penguins new.csv --out scores.csv
    cat new.csv | jflow score penguins - | head
    """

    contributions: bool = False
    """Whether to add how surprising each cell is, given the others in its row, in nats."""

    def of_part(self, density: "TableDensity", part: Part, number: int) -> Part:
        from jflow.data.anomalies import p_values

        found = {"log_prob": density.log_prob(part, key=self.seed)}
        if density.calibration is not None:
            found["p_value"] = p_values(density.calibration, found["log_prob"], tails=2)
        if self.contributions:
            each = density.contributions(part, key=self.seed)
            found |= {f"surprise_{name}": values for name, values in each.items()}
        return found


@dataclass(frozen=True)
class Sample:
    """Writes rows that the density draws.

    jflow sample penguins 1000 --out more.csv
    jflow sample penguins 5 --given species=Gentoo
    """

    model: Model
    """The directory of a model."""
    count: Annotated[int, tyro.conf.Positional]
    """How many rows."""
    out: str = "-"
    """A .csv file, or - for standard output."""
    given: tuple[str, ...] = ()
    """NAME=CELL of the columns that the density is conditional on."""
    seed: int = 0
    """Equal seeds give equal rows."""

    def __call__(self) -> None:
        density = _as_dicts(_load(self.model))
        given = {name: np.asarray([cell]) for name, cell in pairs("--given", self.given).items()}
        with writer(self.out) as rows:
            for number, first in enumerate(range(0, self.count, 10_000)):
                count = min(10_000, self.count - first)
                rows.write(density.sample(count, given or None, key=_key(self.seed, number)))


@dataclass(frozen=True)
class Impute(_OfRows):
    """Writes rows with their missing cells filled in.

    jflow impute penguins holes.csv --out whole.csv
    """

    draw: bool = False
    """Whether to draw the missing cells of a row together, rather than write the median of each."""

    def of_part(self, density: "TableDensity", part: Part, number: int) -> Part:
        key = _key(self.seed, number)
        if self.draw:
            return density.impute(part, samples=1, key=key)[0]
        return density.impute(part, key=key)


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
        density = _load(self.model)
        schema = density.schema
        recipe = density.density.flow.recipe
        calibrated = 0 if density.calibration is None else len(density.calibration)
        columns = {c.name: str(c) for c in schema.columns}
        given = {c.name: str(c) for c in schema.given}
        if self.as_json:
            print(json.dumps({"columns": columns, "given": given, "recipe": recipe and recipe.name,
                              "conditionals": schema.conditionals, "is_bound": schema.is_bound,
                              "calibration_rows": calibrated}))  # fmt: skip
            return
        for name, kind in columns.items():
            print(f"{name}: {kind}")
        for name, kind in given.items():
            print(f"{name}: {kind}, given")
        print(f"flow: {recipe.name if recipe else 'of its own'}; log p is "
              f"{'a bound' if schema.is_bound else 'exact'}; calibrated by {calibrated} rows"
              f"{'; cells may be missing' if schema.conditionals else ''}")  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Writes a page about a model: likelihood, samples, calibration, the strangest rows.

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
        from jflow.report import Evidence, report

        out = self.out or self.model / "report.html"
        density = _load(self.model)
        report(density, Evidence.load(self.model.expanduser()), out, seed=self.seed)
        print(f"saved in {out}", file=sys.stderr)


COMMANDS = {
    "fit": Fit, "compare": Compare, "score": Score, "sample": Sample, "report": Report,
    "impute": Impute, "info": Info,
}  # fmt: skip


def _load(model: Path) -> "TableDensity":
    from jflow.data import TableDensity

    return TableDensity.load(model)


def _as_dicts(density: "TableDensity") -> "TableDensity":
    from dataclasses import replace

    return replace(density, schema=replace(density.schema, frame="dict"))


def _key(seed: int, number: int) -> Any:
    """Of a part of the rows."""
    import jax

    return jax.random.fold_in(jax.random.key(seed), number)
