"""The commands that fit flows to a table."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

if TYPE_CHECKING:
    from jflow.data import Table

Source = Annotated[str, tyro.conf.Positional]
Recipe = Literal["nsf", "maf", "real_nvp", "naf", "sos"]


@dataclass(frozen=True, kw_only=True)
class _OfTable:
    """What commands share that fit flows to a table."""

    source: Source
    """A .csv, .tsv, .csv.gz, .parquet, .npy or .npz file."""
    out: Path
    """The directory of the model; some rows are kept there, too, for `jflow report`."""
    columns: tuple[str, ...] = ()
    """Kinds that are not to be found: NAME=KIND, such as "hour=circular(24)"."""
    given: tuple[str, ...] = ()
    """Columns that the density is conditional on."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    conditionals: bool = False
    """Whether every part of a row is learned given any other, as it is if cells are missing."""
    steps: int = 2000
    """Parameter updates of a fit."""
    patience: int = 5
    """A fit ends after so many validations, one each 100 steps, without a better one."""
    validation: float = 0.1
    """The share of rows to choose by."""
    test: float = 0.1
    """The share of rows to report on and to calibrate by."""
    seed: int = 0
    """Of the split, the parameters and the noise."""
    overwrite: bool = False
    """Whether a model that is there already may be replaced."""

    def table(self) -> "Table":
        """The table, once it is clear that the model may be written."""
        if (self.out.expanduser() / "table.json").exists() and not self.overwrite:
            raise FileExistsError(f"{self.out} holds a model; give --overwrite, or another --out")
        import jflow.report  # so that it is told before time is spent if something is missing

        options: dict[str, Any] = {"conditionals": True} if self.conditionals else {}
        table = jflow.data.table(
            self.source, columns=pairs("--columns", self.columns), given=self.given,
            ignore=self.ignore, validation=self.validation, test=self.test, seed=self.seed,
            **options,
        )  # fmt: skip
        print(table, file=sys.stderr)
        return table

    def fit(self, table: "Table", recipe: str, callback: Any = None) -> tuple[Any, Any]:
        """The density and its history."""
        import jflow

        if recipe == "nsf":
            flow = jflow.flows.tabular(table)
        else:
            build = getattr(jflow.flows, recipe)
            flow = build(table.features, context_shape=table.context_shape)
        return jflow.fit(
            flow, table, key=self.seed, steps=self.steps, patience=self.patience, callback=callback
        )

    def save(self, table: "Table", density: Any, history: Any) -> None:
        """Writes the model, and says how good it is."""
        from jflow.report import Evidence

        density.save(self.out)
        Evidence.of(table, history, Path(self.source).name).save(self.out.expanduser())
        test = density.log_prob_of(table.rows[2])
        error = float(np.std(test) / np.sqrt(len(test)))
        kind = "at least " if table.schema.is_bound else ""
        print(f"test log-likelihood, {kind}{np.mean(test):.3f} +- {error:.3f} nats a row "
              f"({len(test)} rows; step {history.best_step}); saved in {self.out}",
              file=sys.stderr)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fit(_OfTable):
    """Fits a flow to a table, and saves the density of its raw columns.

    jflow fit penguins.csv --out penguins
    jflow fit trips.parquet --out trips --columns "hour=circular(24)" fare=positive --given city
    """

    recipe: Recipe = "nsf"
    """The flow; nsf is autoregressive."""

    def __call__(self) -> None:
        table = self.table()
        self.save(table, *self.fit(table, self.recipe))


@dataclass(frozen=True, kw_only=True)
class Compare(_OfTable):
    """Fits several flows in a given time, and saves the one that does best on validation rows.

    jflow compare penguins.csv --out penguins --minutes 5
    jflow compare trips.parquet --out trips --recipes nsf maf
    """

    recipes: tuple[Recipe, ...] = ("nsf", "maf", "real_nvp")
    """The flows."""
    minutes: float = 10.0
    """For all of them; each has an equal share of what is left, and one validation at least."""

    def __call__(self) -> None:
        if not self.recipes or not self.minutes > 0:
            raise ValueError(
                f"--recipes and --minutes must be some; got {self.recipes}, {self.minutes}"
            )
        from jflow.train import NonFiniteLossError

        table, end = self.table(), time.monotonic() + 60 * self.minutes
        fits = {}
        for place, recipe in enumerate(self.recipes):
            now = time.monotonic()
            until = now + max(0.0, end - now) / (len(self.recipes) - place)
            stop = lambda density, row, until=until: "stop" if time.monotonic() > until else None  # noqa: E731
            try:
                density, history = self.fit(table, recipe, stop)
            except (ValueError, NonFiniteLossError) as error:
                print(f"{recipe}: left out: {error}", file=sys.stderr)
                continue
            if history.rows:
                best = min(row["validation_nll"] for row in history.rows)
                fits[recipe] = best, density, history, time.monotonic() - now
            if history.ended == "interrupted":
                break
        if not fits:
            raise ValueError(f"none of {list(self.recipes)} could be fitted")
        for recipe, (best, _, history, seconds) in sorted(fits.items(), key=lambda f: f[1][0]):
            print(f"{recipe}: {-best:.3f} nats a row on validation rows (step {history.best_step}, "
                  f"{seconds:.0f} s, {history.ended})", file=sys.stderr)  # fmt: skip
        chosen = min(fits, key=lambda recipe: fits[recipe][0])
        print(f"chosen: {chosen}", file=sys.stderr)
        self.save(table, *fits[chosen][1:3])


def pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """Names and values of an option, as NAME=VALUE."""
    pairs = dict(text.split("=", 1) for text in given if "=" in text)
    if len(pairs) != len(given):
        raise ValueError(f"{option} must be of the form NAME=VALUE; got {list(given)}")
    return pairs
