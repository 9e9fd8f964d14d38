"""Which point of the base goes with which of the data: couplings of flow matching."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jflow.functional.arguments import check_numbers


class PathCoupling:
    """Pairs of the points of a batch: frozen dataclasses, subclasses of this."""

    @abstractmethod
    def partners(self, x0: Array, x1: Array, context: Array | None, key: Array) -> Array:
        """For each point of the data, the number of its point of the base, (n,).

        Args:
          x0: points of the base, (n, *event).
          x1: those of the data, as the continuous layer sees them.
          context: of those, as layers are given it; None for none, or for one of all.
          key: a JAX random key.
        """


@dataclass(frozen=True)
class IndependentCoupling(PathCoupling):
    """Any with any."""

    def partners(self, x0: Array, x1: Array, context: Array | None, key: Array) -> Array:
        return jnp.arange(len(x0))


@dataclass(frozen=True)
class OptimalTransport(PathCoupling):
    """The pairs of each batch with the least sum of squared distances, exactly.

    Paths cross less, so they are straighter and a few steps solve them. With a context, x0 would
    then depend on it, and samples be wrong; hence points of the base are given contexts as well,
    those of the batch, and the cost of a pair is

        mean (x1 - x0)^2 + context_weight mean (c1 - c0)^2

    with means over the numbers of an event and of a context. Classes then keep to themselves.

    Attributes:
      context_weight: how much the contexts of a pair may differ; towards 0, x0 depends on them.

    References: Tong et al., 2024, https://arxiv.org/abs/2302.00482; of contexts, Cheng and
    Schwing, 2025, https://arxiv.org/abs/2503.10636
    """

    context_weight: float = 100.0

    def __post_init__(self) -> None:
        check_numbers("OptimalTransport", least=0, context_weight=self.context_weight)

    def partners(self, x0: Array, x1: Array, context: Array | None, key: Array) -> Array:
        costs = pair_costs(x0, x1, context, self.context_weight)
        costs = costs.astype(jax.dtypes.canonicalize_dtype(float))  # that of optax's zeros
        data, base = optax.assignment.hungarian_algorithm(costs)
        return jnp.zeros(len(x0), base.dtype).at[data].set(base)


@dataclass(frozen=True)
class Sinkhorn(PathCoupling):
    """Pairs drawn from the plan of entropic optimal transport, by `ott-jax`.

    For batches that are too large for `OptimalTransport`: `pip install "jflow[ot]"`.

    Attributes:
      regularization: of the entropy, over the mean cost of a batch. Near 0 the plan is that of
        `OptimalTransport`, and takes long; for large ones, any with any.
      context_weight: see `OptimalTransport`.

    Reference: Cuturi, 2013, https://arxiv.org/abs/1306.0895
    """

    regularization: float = 0.05
    context_weight: float = 100.0

    def __post_init__(self) -> None:
        check_numbers("Sinkhorn", above=0, regularization=self.regularization)
        check_numbers("Sinkhorn", least=0, context_weight=self.context_weight)

    def partners(self, x0: Array, x1: Array, context: Array | None, key: Array) -> Array:
        try:
            from ott.geometry import geometry
            from ott.solvers import linear
        except ImportError as error:
            raise ImportError('Sinkhorn needs ott-jax: pip install "jflow[ot]"') from error
        costs = pair_costs(x0, x1, context, self.context_weight)
        epsilon = self.regularization * jnp.mean(costs)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            problem: Any = geometry.Geometry(costs, epsilon=epsilon)  # type: ignore[arg-type]
            found: Any = linear.solve(problem)
            log_plan = (found.f[:, None] + found.g[None] - costs) / epsilon
        return jax.random.categorical(key, log_plan)


def pair_costs(x0: Array, x1: Array, context: Array | None, context_weight: float) -> Array:
    """Of x1 (rows) and x0 (columns), (n, n); see `OptimalTransport`."""
    costs = _mean_squares(x1, x0)
    if context is None or not context_weight:
        return costs
    return costs + context_weight * _mean_squares(context, context).astype(costs.dtype)


def _mean_squares(a: Array, b: Array) -> Array:
    """Of the differences of all pairs, (n, n), without an array of (n, n, size)."""
    a, b = (c.reshape(len(c), -1) for c in (a, b))
    middle = jnp.mean(b, 0, keepdims=True)
    a, b = a - middle, b - middle  # products are small then, and what rounding takes from them
    dots = jnp.matmul(a, b.T, precision="highest")
    squares = jnp.sum(jnp.square(a), 1)[:, None] + jnp.sum(jnp.square(b), 1)[None] - 2 * dots
    return jnp.maximum(squares, 0) / a.shape[1]
