"""The commands, each a dataclass of its arguments. JAX is imported when one runs."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from jflow.cli.files import Part, read_parts, writer

if TYPE_CHECKING:
    from jflow.data import TableDensity

Model = Annotated[Path, tyro.conf.Positional]
Source = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class Fit:
    """Fits a flow to a table, and saves the density of its raw columns.

    jflow fit penguins.csv --out penguins
    jflow fit trips.parquet --out trips --columns "hour=circular(24)" fare=positive --given city
    """

    source: Source
    """A .csv, .tsv, .csv.gz, .parquet or .npy file."""
    out: Path
    """The directory of the model."""
    columns: tuple[str, ...] = ()
    """Kinds that are not to be found: NAME=KIND, such as "hour=circular(24)"."""
    given: tuple[str, ...] = ()
    """Columns that the density is conditional on."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    conditionals: bool = False
    """Whether every part of a row is learned given any other, as it is if cells are missing."""
    recipe: Literal["nsf", "maf", "real_nvp", "naf", "sos"] = "nsf"
    """The flow; nsf is autoregressive."""
    steps: int = 2000
    """Parameter updates."""
    patience: int = 5
    """Stop after so many validations, one each 100 steps, without a better one."""
    validation: float = 0.1
    """The share of rows to choose by."""
    test: float = 0.1
    """The share of rows to report on and to calibrate by."""
    seed: int = 0
    """Of the split, the parameters and the noise."""
    overwrite: bool = False
    """Whether a model that is there already may be replaced."""

    def __call__(self) -> None:
        if (self.out.expanduser() / "table.json").exists() and not self.overwrite:
            raise FileExistsError(f"{self.out} holds a model; give --overwrite, or another --out")
        import jflow

        options: dict[str, Any] = {"conditionals": True} if self.conditionals else {}
        table = jflow.data.table(
            self.source, columns=_pairs("--columns", self.columns), given=self.given,
            ignore=self.ignore, validation=self.validation, test=self.test, seed=self.seed,
            **options,
        )  # fmt: skip
        print(table, file=sys.stderr)
        if self.recipe == "nsf":
            flow = jflow.flows.tabular(table)
        else:
            build = getattr(jflow.flows, self.recipe)
            flow = build(table.features, context_shape=table.context_shape)
        density: Any
        density, history = jflow.fit(
            flow, table, key=self.seed, steps=self.steps, patience=self.patience
        )
        density.save(self.out)
        test = density.log_prob_of(table.rows[2])
        error = float(np.std(test) / np.sqrt(len(test)))
        kind = "at least " if table.schema.is_bound else ""
        print(f"test log-likelihood, {kind}{np.mean(test):.3f} +- {error:.3f} nats a row "
              f"({len(test)} rows; step {history.best_step}); saved in {self.out}",
              file=sys.stderr)  # fmt: skip


@dataclass(frozen=True)
class _OfRows:
    """What commands share that write something for the rows of a table."""

    model: Model
    """The directory of a model."""
    source: Source
    """A .csv, .tsv, .parquet or .npy file, or - for standard input."""
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
        given = {name: np.asarray([cell]) for name, cell in _pairs("--given", self.given).items()}
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


COMMANDS = {"fit": Fit, "score": Score, "sample": Sample, "impute": Impute, "info": Info}


def _load(model: Path) -> "TableDensity":
    from jflow.data import TableDensity

    return TableDensity.load(model)


def _as_dicts(density: "TableDensity") -> "TableDensity":
    from dataclasses import replace

    return replace(density, schema=replace(density.schema, frame="dict"))


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(text.split("=", 1) for text in given if "=" in text)
    if len(pairs) != len(given):
        raise ValueError(f"{option} must be of the form NAME=VALUE; got {list(given)}")
    return pairs


def _key(seed: int, number: int) -> Any:
    """Of a part of the rows."""
    import jax

    return jax.random.fold_in(jax.random.key(seed), number)
