"""Trained flows of zuko, nflows and normflows, from their state dicts; they need not be installed.

    density = from_zuko(flow)                                         # the module, or its state:
    density = from_zuko(torch.load("flow.pt"), check=(y, log_prob))   # names to arrays
    density.log_prob(y)                                               # the same as before
    jflow.fit(density.flow, more, key=0, variables=density.variables)      # trains on

The module, or `check`, is compared with what was read; a warning says where nothing was. A state
alone does not tell activations, bounds of splines and smallest slopes, which you give where they
are not the library's defaults; nor of which kind a spline is, nor what has no arrays: such
transforms and embeddings.
"""

from jflow.interop.weights.nflows import from_nflows
from jflow.interop.weights.normflows import from_normflows
from jflow.interop.weights.zuko import from_zuko

__all__ = ["from_nflows", "from_normflows", "from_zuko"]
