"""What is minimised for tables, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.data.batches import Arrays
from jflow.data.schema import Schema
from jflow.data.table_density import TableDensity
from jflow.data.tables import Table
from jflow.data.told import Layout, seen
from jflow.distributions import Flow
from jflow.distributions.description import describe
from jflow.train.objectives import MaximumLikelihood, Moving, OfExamples, OfFlow

# The collection of what a table's programs are given.
_NUMBERS = "table"
# Parts with fewer rows are filled up to a power of two.
_FILLED = 2**16


def of_table(flow: Flow, table: Table, batch_size: int) -> tuple[Arrays, Arrays]:
    """What to train on and what to validate on, of a table.

    Raises:
      ValueError: the flow does not fit the table.
    """
    wanted = ((table.features,), table.context_shape)
    shape = flow.context_shape
    if (flow.event_shape, shape[0] if isinstance(shape, tuple) else shape) != wanted:
        raise ValueError(
            f"the flow must have {table.features} features and context_shape="
            f"{table.context_shape}, as this table does (flows.tabular(table) builds one); got "
            f"event_shape {flow.event_shape} and context_shape {shape}"
        )
    if flow.integers is not None:
        raise ValueError("a table needs a flow of real numbers; leave out values=")
    return _arrays(table, 0, batch_size), _arrays(table, 1, batch_size)


def _arrays(table: Table, part: int, batch_size: int) -> Arrays:
    """One part of a table, filled up so that parts of about one length share a program."""
    rows, weights = table.rows[part], table.weights[part] if table.weights else None
    count = len(rows.values)
    more = 0 if count > _FILLED else (1 << max(0, count - 1).bit_length()) - count
    fill = lambda array: np.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1))  # noqa: E731
    values = jax.tree.map(fill, (rows.values, rows.given))
    return Arrays(
        values, batch_size, None if weights is None else fill(weights),
        np.arange(count, dtype=np.int32),
    )  # fmt: skip


@dataclass(frozen=True)
class OfTable(OfFlow):
    """An objective of the rows of a table: -log p in their own units, nats; or flow matching.

    If any columns may be given any others, half of the rows in training have all their cells asked
    for; of the others random shares are given, or missing (as Li et al., 2020, do,
    https://arxiv.org/abs/1909.06319).

    The loop is compiled for the layout, and has the numbers of the schema among its variables.

    Attributes:
      objective: of the numbers that rows are made into.
      layout: of the table.
      schema: of the table.
      samples: draws of the noise of columns in validation.
    """

    objective: OfExamples
    layout: Layout
    schema: Schema = field(compare=False)
    samples: int = 1

    @property
    def unit(self) -> str:  # type: ignore[override]
        """That of the objective."""
        return self.objective.unit

    def init(self, key: Array, batch: Any) -> Mapping[str, Any]:
        """The flow's variables, from rows as it will see them, and the numbers of the schema."""
        (values, given), numbers = batch, self.schema.numbers
        whole, own = jnp.ones(values.shape, bool), jax.random.fold_in(key, 4)
        y, context, _ = _seen(self.layout, numbers, values, given, whole, own)
        return self.with_numbers(super().init(key, (y, context)))

    def with_numbers(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Variables of the flow, and the numbers of the schema."""
        return {**variables, _NUMBERS: jax.tree.map(jnp.array, self.schema.numbers)}

    def fingerprint(self) -> Any:
        """What a run may not be resumed without: the schema, too."""
        return [super().fingerprint(), describe(self.schema)]

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """See `Objective.losses`; the batch is (values, given)."""
        variables, numbers = _apart(variables)
        (values, given), asked = batch, jnp.ones(batch[0].shape, bool)
        first, second, third = jax.random.split(key, 3)
        if training and self.layout.conditionals:
            values, asked = _asked(values, third)

        def once(first: Array) -> tuple[Array, Moving]:
            y, context, log_det = seen(self.layout, numbers, values, given, asked, first)
            losses, moved = self.objective.losses(
                variables, (y, context), second, training=training
            )
            of_cells = isinstance(self.objective, MaximumLikelihood)
            return (losses - log_det if of_cells else losses), moved

        if training or self.samples == 1:
            return once(first)
        return lax.map(lambda k: once(k)[0], jax.random.split(first, self.samples)).mean(0), {}

    def finish(self, variables: Mapping[str, Any]) -> Any:
        """The density of the raw columns."""
        return TableDensity(self.schema, super().finish(_apart(variables)[0]))

    def view(self, variables: Mapping[str, Any]) -> Any:
        """The same as it is then."""
        return TableDensity(self.schema, super().view(_apart(variables)[0]))


_seen = jax.jit(seen, static_argnums=0)


def _apart(variables: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The variables of the flow, and the numbers of the schema."""
    return {n: v for n, v in variables.items() if n != _NUMBERS}, variables[_NUMBERS]


def _asked(values: Array, key: Array) -> tuple[Array, Array]:
    """Values with more cells missing, and which of the others are asked for."""
    keys = jax.random.split(key, 6)
    each = (*values.shape[:-1], 1)
    whole = jax.random.bernoulli(keys[0], 0.5, each)
    known = jax.random.uniform(keys[1], values.shape) < jax.random.uniform(keys[2], each)
    share = jnp.where(
        jax.random.bernoulli(keys[4], 0.5, each), jax.random.uniform(keys[3], each), 0
    )
    lost = jax.random.uniform(keys[5], values.shape) < share
    return jnp.where(lost & ~whole, jnp.nan, values), whole | ~known
