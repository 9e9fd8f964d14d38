"""log|det(I + J)| of a contraction's Jacobian J, known by its products with vectors alone."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arguments import as_key, check_counts
from jflow.functional.arrays import align, as_wide, batch_shape
from jflow.functional.estimators import Estimator, Function
from jflow.functional.traces import FEW, Estimated, mean_and_error, standard_basis


@dataclass(frozen=True)
class LogDetEstimator(Estimator):
    """How to find log|det(I + J)|, J the Jacobian of a function g of Lipschitz constant below 1.

    In the operator norm, that is: eigenvalues below 1 are not enough for the steps between layers
    to be invertible.
    """

    estimates = "log-determinants"

    @abstractmethod
    def has_finite_variance(self, radius: float) -> bool:
        """Whether the result and its gradients have a finite variance, for eigenvalues up to it."""

    @abstractmethod
    def value_and_log_det(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        """g(x), and log|det(I + J)| at x: (*batch), in nats.

        Args:
          function: g, from (*batch, *event) to the same, each element of the batch by itself.
          x: where.
          key: a JAX random key, for those that draw.
          event_ndim: how many trailing axes are the event.
        """


@dataclass(frozen=True)
class ExactLogDet(LogDetEstimator):
    """From the Jacobian itself: D products, and one factorisation of order D^3.

    Attributes:
      max_features: the largest D to take this on for.
      chunk: how many products at once; it bounds memory.

    Raises:
      ValueError: (on call) events of more than `max_features` numbers.
    """

    max_features: int = 1024
    chunk: int = 64

    def __post_init__(self) -> None:
        check_counts("ExactLogDet", max_features=self.max_features, chunk=self.chunk)

    @property
    def kind(self) -> Literal["exact"]:
        return "exact"

    def has_finite_variance(self, radius: float) -> bool:
        return True

    def value_and_log_det(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        size = math.prod(x.shape[x.ndim - event_ndim :])
        if size > self.max_features:
            raise ValueError(
                f"ExactLogDet: {size} numbers an event are {size} products; the limit is "
                f"max_features={self.max_features}. Raise it, or estimate (RussianRoulette)"
            )
        y, jacobian = value_and_jacobian(function, x, event_ndim, self.chunk)
        return y, _log_det(align(jnp.eye(size), jacobian) + jacobian)


def value_and_jacobian(
    function: Function, x: Array, event_ndim: int = 1, chunk: int = 64
) -> tuple[Array, Array]:
    """g(x), and the Jacobian of flat events, (*batch, D, D), by D products, so many at once."""
    size, batch = math.prod(x.shape[x.ndim - event_ndim :]), batch_shape(x, event_ndim)
    y, push = jax.linearize(function, x)
    basis = standard_basis(x, event_ndim)
    if size <= FEW:
        columns = jnp.stack([push(vector) for vector in basis])
    elif size <= chunk:
        columns = jax.vmap(push)(basis)
    else:
        columns = lax.map(push, basis, batch_size=chunk)
    return y, jnp.moveaxis(as_wide(columns).reshape(size, *batch, size), 0, -1)


def _log_det(matrix: Array) -> Array:
    # A factorisation of many tiny matrices takes far longer than their formulas.
    if matrix.shape[-1] == 1:
        return jnp.log(jnp.abs(matrix[..., 0, 0]))
    if matrix.shape[-1] == 2:
        det = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
        return jnp.log(jnp.abs(det))
    return jnp.linalg.slogdet(matrix)[1]


def estimate_log_det(
    estimator: LogDetEstimator,
    function: Function,
    x: Array,
    key: Array | int,
    *,
    replicates: int = 16,
    event_ndim: int = 1,
) -> Estimated:
    """The mean of independent estimates of log|det(I + J)|, and its standard error, (*batch).

    Args:
      estimator: how to estimate.
      function: g, from (*batch, *event) to the same.
      x: where.
      key: a JAX random key or a whole number.
      replicates: how many, 2 or more for an error.
      event_ndim: how many trailing axes are the event.
    """
    check_counts("estimate_log_det", replicates=replicates)
    key = as_key("estimate_log_det", key)
    run = lambda key: estimator.value_and_log_det(function, x, key, event_ndim)[1]  # noqa: E731
    return mean_and_error(jax.vmap(run)(jax.random.split(key, replicates)))
