"""Students of one pass: flows that learn another one's density, and its map."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jflow.distributions import Flow
from jflow.functional.arguments import check_numbers
from jflow.functional.arrays import sum_event
from jflow.train.objectives import Moving, OfExamples


@dataclass(frozen=True)
class Distillation(OfExamples):
    """How far a student is from the flow that made `Pairs` of latents z, points y and log p(y).

        -log q(y) + density_weight h(log q(y) - log p(y)) + map_weight |z(y) - z|^2 / D

    q is the student's density and z(y) its latent, h(d) = (1 + d^2)^(1/2) - 1. The first term alone
    has its least value in the mean where q = p, but tells it by chance, as fits to data do; the
    second is zero there for each point, and so are its gradients. It is left out of pairs without
    log p. The third has the student lead each latent to where the teacher does.

    Attributes:
      density_weight: of the differences of log densities.
      map_weight: of the distances between latents.
      samples: 1, for nothing is drawn.

    Reference: Rehman et al., 2025, https://arxiv.org/abs/2506.01158, which has the third term, of
    points
    """

    density_weight: float = 10.0
    map_weight: float = 0.0
    samples: int = 1
    unit = "distillation"

    def __post_init__(self) -> None:
        weights = {"density_weight": self.density_weight, "map_weight": self.map_weight}
        check_numbers("Distillation", least=0, **weights)
        if self.samples != 1:
            raise ValueError(
                "Distillation: nothing is drawn, so validation_samples (samples) must be 1; got "
                f"{self.samples}"
            )

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """See `Objective.losses`; the batch is `Pairs`."""
        if len(batch) < 4:
            raise ValueError("Distillation is of pairs: fit(flow, train.draw_pairs(teacher, ...))")
        noise, dropout = jax.random.split(key)
        values, penalty, moved = self.apply(
            variables, *batch, noise=noise, dropout=dropout, training=training, method=self._errors
        )
        return penalty + values, moved

    def _errors(self, flow: Flow, y: Array, context: Any, z: Array, told: Array | None) -> Array:
        log_prob = flow.log_prob(y, context)
        loss = -log_prob
        if self.density_weight and told is not None:
            apart = log_prob - told
            loss = loss + self.density_weight * (jnp.sqrt(1 + jnp.square(apart)) - 1)
        if self.map_weight:
            apart = flow.latents(y, context) - z.astype(log_prob.dtype)
            loss = loss + self.map_weight * sum_event(jnp.square(apart), z.ndim - 1) / z[0].size
        return loss
