"""Flows for tables."""

from typing import Any

from jflow.data import Table
from jflow.distributions import Flow
from jflow.flows.nsf import nsf


def tabular(table: Table, **options: Any) -> Flow:
    """A flow for a table: autoregressive splines, which fit tables best.

    Args:
      table: what `jflow.data.table` gives.
      options: of `nsf`; `autoregressive` is True unless told otherwise.

    Raises:
      TypeError: an unknown option.
    """
    options = {"autoregressive": True} | options
    return nsf(table.features, context_shape=table.context_shape, **options)
