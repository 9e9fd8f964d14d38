"""Densities of raw data that tell how usual something is, by held-out data of the same law."""

from typing import Any

import numpy as np
from jax import Array

from jflow.data import anomalies
from jflow.distributions import Density


class Calibrated:
    """What a `TableDensity` and an `ImageDensity` share: p-values by a score.

    Attributes:
      density: of what the flow sees.
      calibration: (n,), scores of held-out data, sorted; None if it is not calibrated.
    """

    density: Density
    calibration: np.ndarray | None

    def __repr__(self) -> str:
        flow, count = self.density.flow, self.calibration
        name = flow.recipe.name if flow.recipe else type(flow.bijector).__name__
        calibrated = "not calibrated" if count is None else f"calibrated by {len(count):,}"
        parameters = f"{name}, {self.density.num_params:,} parameters"
        return f"{type(self).__name__}({self._told()}; {parameters}; {calibrated})"

    def _repr_html_(self) -> str:
        summary = self.density.summary()
        return summary._replace(title=repr(self))._repr_html_()

    def _told(self) -> str:
        """What it is a density of."""
        raise NotImplementedError

    def score(self, raw: Any, *, key: Array | int = 0) -> np.ndarray:
        """What p-values compare, (N,): high where something is likely."""
        raise NotImplementedError

    def p_value(self, raw: Any, *, tails: int = 2, key: Array | int = 0) -> np.ndarray:
        """How often data of the density's own law are as far from its typical set, (N,).

            2 min(#{c: c <= s} + 1, #{c: c >= s} + 1) / (n + 1), at most 1

        where s is the `score` of a row or an image and c are those of the n that it was calibrated
        by. A conformal p-value: if it and those are exchangeable, P(p <= alpha) <= alpha for every
        alpha, whatever the density is worth (Vovk et al., 2005; Bates et al., 2023,
        https://arxiv.org/abs/2104.08279).

        Args:
          raw: rows or images, as for `log_prob`.
          tails: 2, of what is too unlikely or too likely (Nalisnick et al., 2019,
            https://arxiv.org/abs/1906.02994); 1, of the unlikely alone.
          key: for noise; that of `calibrate`.

        Raises:
          ValueError: the density is not calibrated.
        """
        if self.calibration is None:
            raise ValueError("p_value needs held-out data: density = density.calibrate(held_out)")
        return anomalies.p_values(self.calibration, self.score(raw, key=key), tails)

    def outlier(self, raw: Any, alpha: float = 0.01, *, tails: int = 2) -> np.ndarray:
        """Which have a p-value of at most `alpha`, (N,): a share of `alpha` of what is usual.

        What has a score of NaN is among them.

        Raises:
          ValueError: alpha is not in (0, 1), or so small that nothing could have such a p-value.
        """
        if self.calibration is not None:
            anomalies.check_alpha(alpha, len(self.calibration), tails)
        return ~(self.p_value(raw, tails=tails) > alpha)
