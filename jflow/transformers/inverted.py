"""A transformer with its directions swapped."""

from dataclasses import dataclass

from jax import Array

from jflow.functional.supports import Support
from jflow.transformers.base import DirectionKind, LogDetKind, Transformer


@dataclass(frozen=True)
class Inverted(Transformer):
    """The inverse of another transformer: x = f(y; params) in its inverse direction.

    Puts the closed-form direction of a transformer where it is needed: likelihoods of
    `MaskedAutoregressive(Inverted(DeepSigmoid()))` take no iterations, its samples do.

    Attributes:
      transformer: f.
    """

    transformer: Transformer

    @property
    def num_params(self) -> int:
        return self.transformer.num_params

    @property
    def domain(self) -> tuple[float, float]:
        return self.transformer.codomain

    @property
    def codomain(self) -> tuple[float, float]:
        return self.transformer.domain

    @property
    def supports(self) -> tuple[Support, Support]:
        x, y = self.transformer.supports
        return y, x

    @property
    def closed(self) -> bool:
        return self.transformer.closed

    @property
    def tolerance(self) -> float:
        return self.transformer.tolerance

    @property
    def log_det_kind(self) -> LogDetKind:
        return self.transformer.log_det_kind

    @property
    def forward_kind(self) -> DirectionKind:
        return self.transformer.inverse_kind

    @property
    def inverse_kind(self) -> DirectionKind:
        return self.transformer.forward_kind

    def forward_and_log_det(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self.transformer.inverse_and_log_det(x, params)

    def inverse_and_log_det(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self.transformer.forward_and_log_det(y, params)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self.transformer._inverse(x, params)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self.transformer._forward(y, params)
