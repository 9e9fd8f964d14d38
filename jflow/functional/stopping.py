"""When to stop a series that is cut at random: laws of the number of terms N >= 0."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammainc


@dataclass(frozen=True)
class Stopping:
    """A law of N, by its survival function P(N >= k)."""

    @abstractmethod
    def log_survival(self, k: Array, dtype: Any) -> Array:
        """log P(N >= k), for whole numbers k >= 0."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """E[N]."""

    @abstractmethod
    def has_finite_variance(self, radius: float) -> bool:
        """Whether sum_k a_k / P(N >= k) has, for terms a_k that shrink like radius^k / k."""


@dataclass(frozen=True)
class Geometric(Stopping):
    """P(N >= k) = q^k: goes on with probability q. E[N] = q / (1 - q).

    The variance is finite for spectral radii below sqrt(q).

    Attributes:
      q: the probability of going on, in (0, 1).
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        _check_probability("Geometric", self.q)

    def log_survival(self, k: Array, dtype: Any) -> Array:
        return k.astype(dtype) * math.log(self.q)

    @property
    def mean(self) -> float:
        return self.q / (1 - self.q)

    def has_finite_variance(self, radius: float) -> bool:
        return radius**2 < self.q


@dataclass(frozen=True)
class Logarithmic(Stopping):
    """P(N >= k) = q^k / (k + 1): follows the terms of log(1 + x). E[N] = -log(1 - q) / q - 1.

    The variance is finite for spectral radii below sqrt(q), as with `Geometric(q)`, but for
    q = 0.98 it takes 3 terms on average where that takes 49.

    Attributes:
      q: in (0, 1); more than the square of the Lipschitz constant: that constant itself will do.
    """

    q: float = 0.98

    def __post_init__(self) -> None:
        _check_probability("Logarithmic", self.q)

    def log_survival(self, k: Array, dtype: Any) -> Array:
        k = k.astype(dtype)
        return k * math.log(self.q) - jnp.log1p(k)

    @property
    def mean(self) -> float:
        return -math.log1p(-self.q) / self.q - 1

    def has_finite_variance(self, radius: float) -> bool:
        return radius**2 < self.q


@dataclass(frozen=True)
class Poisson(Stopping):
    """N Poisson of mean `rate`: rarely long, and for that the variance is infinite.

    P(N >= k) falls faster than any radius^k, so that the variance is finite only if J is nilpotent.
    It is what Chen et al. use for images.

    Attributes:
      rate: E[N], positive.
    """

    rate: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"Poisson: rate must be positive; got {self.rate}")

    def log_survival(self, k: Array, dtype: Any) -> Array:
        # gammainc(k, rate) = P(N >= k), for k of 1 or more.
        tail = gammainc(jnp.maximum(k, 1).astype(dtype), jnp.asarray(self.rate, dtype))
        return jnp.where(k > 0, jnp.log(tail), 0)

    @property
    def mean(self) -> float:
        return self.rate

    def has_finite_variance(self, radius: float) -> bool:
        return radius == 0


def _check_probability(owner: str, q: float) -> None:
    if not 0 < q < 1:
        raise ValueError(f"{owner}: q must be in (0, 1); got {q}")
