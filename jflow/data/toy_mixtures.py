"""What a toy density is, and those that are mixtures of equal round Gaussians."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import logsumexp
from jax.typing import ArrayLike, DTypeLike

from jflow.functional.arguments import as_key
from jflow.functional.arrays import as_wide

# Distances that `_log_mixture` holds at once: 4 MiB in float32.
_DISTANCES = 2**20


@dataclass(frozen=True)
class ToyDensity(ABC):
    """A density of points (2,), mostly within [-4, 4]^2, that is known exactly.

    Instances are frozen and hashable; `sample` and `log_prob` are pure and compiled, with `n`
    static. To write one, subclass as a frozen dataclass and define `_sample` and `_log_prob`.

    Raises:
      ValueError: a parameter is not positive.
    """

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(
                    f"{type(self).__name__}: {field.name} must be positive and finite; got {value}"
                )

    def sample(self, key: Array | int, n: int) -> Array:
        """`n` independent points, (n, 2), in JAX's default floating dtype."""
        return _sample(self, as_key("sample", key), n, jax.dtypes.canonicalize_dtype(float))

    def log_prob(self, y: ArrayLike) -> Array:
        """log p(y) in nats: (..., 2) to (...), in float64 if y is that, otherwise in float32.

        Raises:
          ValueError: the last axis of y is not of size 2.
        """
        y = as_wide(y)
        if y.shape[-1:] != (2,):
            raise ValueError(f"y must have shape (..., 2), points of the plane; got {y.shape}")
        return _log_prob(self, y)

    @abstractmethod
    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array: ...

    @abstractmethod
    def _log_prob(self, y: Array) -> Array: ...


@partial(jax.jit, static_argnames=("density", "n", "dtype"))
def _sample(density: ToyDensity, key: Array, n: int, dtype: DTypeLike) -> Array:
    return density._sample(key, n, dtype)


@partial(jax.jit, static_argnames="density")
def _log_prob(density: ToyDensity, y: Array) -> Array:
    return density._log_prob(y)


def _log_mixture(y: Array, centres: Array, weights: Array, std: float) -> Array:
    """log sum_k weights_k N(y; centres_k, std^2 I), a block of points at a time."""

    def one(point: Array) -> Array:
        squares = jnp.sum(((point[None, :] - centres) / std) ** 2, axis=-1)
        return logsumexp(jnp.log(weights) - squares / 2)

    # Recomputed for the gradient, which would otherwise store the distances of all points.
    log_sums = lax.map(
        jax.checkpoint(one), y.reshape(-1, 2), batch_size=max(1, _DISTANCES // len(centres))
    )
    return log_sums.reshape(y.shape[:-1]) - math.log(2 * math.pi * std**2)


def turn(angle: Array, x: Array, y: Array) -> Array:
    """The points (x, y) turned about the origin, anticlockwise, (..., 2)."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


@dataclass(frozen=True)
class _Gaussians(ToyDensity):
    """Equally probable Gaussians of one standard deviation."""

    std: float

    @abstractmethod
    def _centres(self) -> np.ndarray: ...

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        which, noise = jax.random.split(key)
        centres = jnp.asarray(self._centres(), dtype)
        chosen = centres[jax.random.randint(which, (n,), 0, len(centres))]
        return chosen + self.std * jax.random.normal(noise, (n, 2), dtype)

    def _log_prob(self, y: Array) -> Array:
        centres = jnp.asarray(self._centres(), y.dtype)
        weights = jnp.full(len(centres), 1 / len(centres), y.dtype)
        return _log_mixture(y, centres, weights, self.std)


@dataclass(frozen=True)
class EightGaussians(_Gaussians):
    """Eight equal Gaussians on a circle of radius 3."""

    std: float = 0.25

    def _centres(self) -> np.ndarray:
        angles = np.arange(8) * (math.pi / 4)
        return 3.0 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


@dataclass(frozen=True)
class GaussianGrid(_Gaussians):
    """Twenty-five equal Gaussians on a 5x5 grid, 1.6 apart."""

    std: float = 0.2

    def _centres(self) -> np.ndarray:
        line = 1.6 * np.arange(-2, 3)
        return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


@cache
def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


@dataclass(frozen=True)
class _Curve(ToyDensity):
    """y = +-c(t) + std e, with t of density `power` t^(power - 1) on (0, 1), e standard normal.

    The density integrates t out by Gauss-Legendre. Within [-5, 5]^2 it is right to 1e-8 nats in
    float64; within [-50, 50]^2, where it falls below -10^4, to one nat.
    """

    std: float
    _length: ClassVar[float]  # of the curve, in units of y: it decides the number of nodes
    _power: ClassVar[int] = 1
    _signs: ClassVar[tuple[float, ...]] = (1.0,)  # both signs: -c is as probable as c

    @abstractmethod
    def _curve(self, t: Array) -> Array: ...

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        place, side, noise = jax.random.split(key, 3)
        t = jax.random.uniform(place, (n,), dtype) ** (1 / self._power)
        sign = jax.random.choice(side, jnp.asarray(self._signs, dtype), (n, 1))
        return sign * self._curve(t) + self.std * jax.random.normal(noise, (n, 2), dtype)

    def _log_prob(self, y: Array) -> Array:
        nodes, weights = _gauss_legendre(self._count())
        weights = self._power * nodes ** (self._power - 1) * weights / len(self._signs)
        curve = self._curve(jnp.asarray(nodes, y.dtype))
        centres = jnp.concatenate([sign * curve for sign in self._signs])
        weights = jnp.asarray(np.tile(weights, len(self._signs)), y.dtype)
        return _log_mixture(y, centres, weights, self.std)

    def _count(self) -> int:
        return 32 + math.ceil(3 * self._length / self.std)


@dataclass(frozen=True)
class TwoMoons(_Curve):
    """Two interlocking half circles of radius 2.2, with Gaussian noise."""

    std: float = 0.2
    _length: ClassVar[float] = 2.2 * math.pi
    _signs: ClassVar[tuple[float, ...]] = (1.0, -1.0)

    def _curve(self, t: Array) -> Array:
        angle = math.pi * t
        return 2.2 * jnp.stack([jnp.cos(angle) - 0.5, jnp.sin(angle) - 0.25], axis=-1)


@dataclass(frozen=True)
class TwoSpirals(_Curve):
    """Two spirals r = 3.7 t, angle = 3 pi t, one opposite the other, with Gaussian noise.

    t is the square root of a uniform variable, so points are about even along the spirals.
    """

    std: float = 0.1
    _length: ClassVar[float] = 18.0
    _power: ClassVar[int] = 2
    _signs: ClassVar[tuple[float, ...]] = (1.0, -1.0)

    def _curve(self, t: Array) -> Array:
        return turn(3 * math.pi * t, 3.7 * t, jnp.zeros_like(t))


@dataclass(frozen=True)
class SwissRoll(_Curve):
    """One spiral r = a / 4, with the angle a uniform on (1.5 pi, 4.5 pi), with Gaussian noise."""

    std: float = 0.2
    _length: ClassVar[float] = 22.5

    def _curve(self, t: Array) -> Array:
        angle = 1.5 * math.pi * (1 + 2 * t)
        return turn(angle, angle / 4, jnp.zeros_like(t))
