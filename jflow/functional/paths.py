"""Paths between a point of the base and one of the data, and laws of the time along them."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from jflow.functional.arguments import check_numbers


class Coefficients(NamedTuple):
    """Of a path at a time.

    Attributes:
      data: a, of the point of the data.
      base: b, of the point of the base.
      noise: c, of noise N(0, 1) besides.
    """

    data: Array
    base: Array
    noise: Array


@dataclass(frozen=True)
class Path:
    """The path x(t) = a(t) x1 + b(t) x0 + c(t) e, from x0 of the base, t = 0, to x1 of the data."""

    @abstractmethod
    def coefficients(self, t: Array) -> Coefficients:
        """A, b and c at times t (...), each (...), smooth on [0, 1]."""

    def point_and_velocity(
        self, t: Array, x0: Array, x1: Array, noise: Array
    ) -> tuple[Array, Array]:
        """x(t) and dx/dt: t (*batch,), all else (*batch, *event)."""

        def at(t: Array) -> Array:
            a, b, c = (over.reshape(over.shape + (1,) * (x0.ndim - t.ndim))
                       for over in self.coefficients(t))  # fmt: skip
            return a * x1 + b * x0 + c * noise

        return jax.jvp(at, (t,), (jnp.ones_like(t),))


@dataclass(frozen=True)
class LinearPath(Path):
    """x(t) = t x1 + (1 - t) x0 + noise e: straight lines, as in rectified flows.

    Attributes:
      noise: a constant standard deviation.

    References: Lipman et al., 2023, https://arxiv.org/abs/2210.02747; Liu et al., 2023,
    https://arxiv.org/abs/2209.03003; Tong et al., 2024, https://arxiv.org/abs/2302.00482
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        check_numbers("LinearPath", least=0, noise=self.noise)

    def coefficients(self, t: Array) -> Coefficients:
        return Coefficients(t, 1 - t, jnp.full_like(t, self.noise))


@dataclass(frozen=True)
class CosinePath(Path):
    """x(t) = sin(pi t / 2) x1 + cos(pi t / 2) x0, whose variance is 1 where that of the data is.

    Reference: Albergo and Vanden-Eijnden, 2023, https://arxiv.org/abs/2209.15571
    """

    def coefficients(self, t: Array) -> Coefficients:
        angle = t * (math.pi / 2)
        return Coefficients(jnp.sin(angle), jnp.cos(angle), jnp.zeros_like(t))


@dataclass(frozen=True)
class VariancePreserving(Path):
    """The paths of a diffusion that preserves variance, from noise to data.

    With s = 1 - (1 - last) t, the time of the diffusion, whose rate rises from `slow` to `fast`:

        a = exp(-(slow s + (fast - slow) s^2 / 2) / 2),   b = (1 - a^2)^(1/2)

    Attributes:
      slow: the rate at the data.
      fast: the rate at the base.
      last: s at t = 1, above 0: there b' is infinite. The flow ends at data with noise of standard
        deviation b, 0.010 with these numbers.

    Reference: Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix C
    """

    slow: float = 0.1
    fast: float = 20.0
    last: float = 1e-3

    def __post_init__(self) -> None:
        check_numbers("VariancePreserving", above=0, slow=self.slow, last=self.last)
        check_numbers("VariancePreserving", above=self.slow, fast=self.fast)
        check_numbers("VariancePreserving", below=1, last=self.last)

    def coefficients(self, t: Array) -> Coefficients:
        s = 1 - (1 - self.last) * t
        exponent = self.slow * s + (self.fast - self.slow) * jnp.square(s) / 2
        return Coefficients(jnp.exp(-exponent / 2), _root_of_rest(exponent), jnp.zeros_like(t))


@dataclass(frozen=True)
class VarianceExploding(Path):
    """The paths of a diffusion whose variance explodes, over the deviation of data of variance 1.

    With s(t) = largest (smallest / largest)^t, the noise falls in equal ratios:

        x(t) = (x1 + s(t) x0) / (1 + s(t)^2)^(1/2)

    The denominator changes nothing that can be learned, and lets the base be N(0, 1).

    Attributes:
      smallest: standard deviation of the noise at t = 1, for data of standard deviation 1.
      largest: the same at t = 0.

    Reference: Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix C
    """

    smallest: float = 0.01
    largest: float = 50.0

    def __post_init__(self) -> None:
        check_numbers("VarianceExploding", above=0, smallest=self.smallest)
        check_numbers("VarianceExploding", above=self.smallest, largest=self.largest)

    def coefficients(self, t: Array) -> Coefficients:
        s = self.largest * (self.smallest / self.largest) ** t
        a = jax.lax.rsqrt(1 + jnp.square(s))
        return Coefficients(a, s * a, jnp.zeros_like(t))


@dataclass(frozen=True)
class Interpolant(Path):
    """A stochastic interpolant: x(t) = t x1 + (1 - t) x0 + noise sin(pi t)^2 e.

    Attributes:
      noise: the standard deviation half-way.

    Reference: Albergo et al., 2023, https://arxiv.org/abs/2303.08797, section 2
    """

    noise: float = 0.5

    def __post_init__(self) -> None:
        check_numbers("Interpolant", least=0, noise=self.noise)

    def coefficients(self, t: Array) -> Coefficients:
        return Coefficients(t, 1 - t, self.noise * jnp.square(jnp.sin(math.pi * t)))


@dataclass(frozen=True)
class Times:
    """A law of times in (0, 1), by its quantiles."""

    @abstractmethod
    def quantile(self, u: Array) -> Array:
        """The time below which are so many, u in (0, 1)."""

    def sample(self, key: Array, count: int, dtype: jnp.dtype) -> Array:
        """So many times, one from each of as many equal parts of the law, in any order."""
        own, order = jax.random.split(key)
        parts = (jnp.arange(count, dtype=float) + jax.random.uniform(own, (count,))) / count
        edge = float(jnp.finfo(jnp.float32).eps)
        return self.quantile(jax.random.permutation(order, parts).clip(edge, 1 - edge)).astype(
            dtype
        )


@dataclass(frozen=True)
class UniformTimes(Times):
    """All times alike."""

    def quantile(self, u: Array) -> Array:
        return u


@dataclass(frozen=True)
class LogitNormalTimes(Times):
    """Times with a normal logit: more of those half-way, where velocities are hardest to tell.

    Attributes:
      mean: of the logit; above 0 for more times near to the data.
      scale: its standard deviation.

    Reference: Esser et al., 2024, https://arxiv.org/abs/2403.03206, section 3.1
    """

    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_numbers("LogitNormalTimes", mean=self.mean)
        check_numbers("LogitNormalTimes", above=0, scale=self.scale)

    def quantile(self, u: Array) -> Array:
        return jax.nn.sigmoid(self.mean + self.scale * ndtri(u))


def _root_of_rest(exponent: Array) -> Array:
    """(1 - exp(-exponent))^(1/2)."""
    return jnp.sqrt(-jnp.expm1(-exponent))
