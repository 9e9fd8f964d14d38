"""Bijectors whose directions are one method."""

from abc import abstractmethod

from jax import Array

from jflow.bijectors.base import Bijector, Direction


class OneMethod(Bijector):
    """A bijector with one method for both directions, compact, which makes their parameters."""

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("forward", x, context)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._run("inverse", y, context)

    @abstractmethod
    def _run(self, method: Direction, x: Array, context: Array | None) -> tuple[Array, Array]:
        """That direction of x."""
