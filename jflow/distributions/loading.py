"""Densities from the files that `Density.save` wrote."""

import os

from jflow.distributions import saving
from jflow.distributions.contractions import check_norms
from jflow.distributions.density import Density
from jflow.distributions.flow import Flow
from jflow.distributions.witness import check_witness


def load(path: str | os.PathLike[str], *, flow: Flow | None = None, check: bool = True) -> Density:
    """Reads a density that `Density.save` wrote. Runs no code from the file.

    Args:
      path: the directory.
      flow: the architecture, for flows that no recipe built.
      check: whether to compute log_prob at the four points that were saved with it, as a change in
        what computes it would go unseen otherwise. It takes a compilation.

    Raises:
      FileNotFoundError: there is no saved density at `path`.
      ValueError: the files are damaged, foreign, of a newer format, or do not fit the flow; or
        networks that must contract do not, as measured; or log_prob is not what it was.
    """
    flow, variables, found = saving.load(path, flow)
    if "lipschitz" in variables:
        check_norms(flow, variables, str(path))
    if check:
        check_witness(str(path), flow, variables, found)
    return Density(flow, variables)
