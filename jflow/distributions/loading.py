"""Densities from the files that `Density.save` wrote."""

import os

from jflow.distributions import saving
from jflow.distributions.contractions import check_norms
from jflow.distributions.density import Density
from jflow.distributions.flow import Flow


def load(path: str | os.PathLike[str], *, flow: Flow | None = None) -> Density:
    """Reads a density that `Density.save` wrote. Runs no code from the file.

    Args:
      path: the directory.
      flow: the architecture, for flows that no recipe built.

    Raises:
      FileNotFoundError: there is no saved density at `path`.
      ValueError: the files are damaged, foreign, of a newer format, or do not fit the flow; or
        networks that must contract do not, as measured.
    """
    flow, variables = saving.load(path, flow)
    if "lipschitz" in variables:
        check_norms(flow, variables, str(path))
    return Density(flow, variables)
