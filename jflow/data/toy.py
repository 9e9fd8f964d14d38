"""Densities in the plane: exact samples and exact log-likelihoods, to see and to test flows by."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp
from jax.typing import DTypeLike

from jflow.data.toy_mixtures import (
    EightGaussians,
    GaussianGrid,
    SwissRoll,
    ToyDensity,
    TwoMoons,
    TwoSpirals,
    turn,
)
from jflow.functional.arrays import align


@dataclass(frozen=True)
class Rings(ToyDensity):
    """Four concentric rings, y = R (cos a, sin a): a uniform, R Gaussian about 0.9, 1.8, 2.7, 3.6.

    A negative R is the radius |R| at the opposite angle, so with r = |y|,

        p(y) = mean_k [N(r; radius_k, std^2) + N(-r; radius_k, std^2)] / (2 pi r).

    This has a pole at 0, of negligible mass unless std is large; below r = 1e-6 it is cut off.
    """

    std: float = 0.12

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        which, around, noise = jax.random.split(key, 3)
        radius = 0.9 * jax.random.randint(which, (n,), 1, 5).astype(dtype)
        radius = radius + self.std * jax.random.normal(noise, (n,), dtype)
        angle = jax.random.uniform(around, (n,), dtype, 0, 2 * math.pi)
        return turn(angle, radius, jnp.zeros_like(radius))

    def _log_prob(self, y: Array) -> Array:
        r = jnp.sqrt(jnp.maximum(jnp.sum(y**2, axis=-1), 1e-12))[..., None]
        radii = jnp.asarray([sign * 0.9 * k for k in range(1, 5) for sign in (1, -1)], y.dtype)
        log_sum = logsumexp(-(((r - align(radii, r)) / self.std) ** 2) / 2, axis=-1)
        log_scale = math.log(4 * self.std * math.sqrt(2 * math.pi)) + math.log(2 * math.pi)
        return log_sum - log_scale - jnp.log(r[..., 0])


@dataclass(frozen=True)
class Pinwheel(ToyDensity):
    """Five bent arms: Gaussians of mean (2, 0), turned by 2 pi k / 5 + bend |y|^2.

    The angle depends on the radius of the point itself, not, as in other pinwheels, on the
    coordinate along the arm. So the bend preserves the area, and the density is that of a mixture
    of five Gaussians at the point bent back.

    Attributes:
      along: standard deviation along an arm.
      across: and across it.
      bend: radians per squared unit of radius.
    """

    along: float = 0.6
    across: float = 0.2
    bend: float = 0.12

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        which, noise = jax.random.split(key)
        e = jax.random.normal(noise, (n, 2), dtype)
        x, y = 2 + self.along * e[:, 0], self.across * e[:, 1]
        arm = jax.random.randint(which, (n,), 0, 5).astype(dtype)
        return turn(arm * (2 * math.pi / 5) + self.bend * (x**2 + y**2), x, y)

    def _log_prob(self, y: Array) -> Array:
        angle = (self.bend * jnp.sum(y**2, axis=-1))[..., None]
        angle = angle + align(jnp.asarray(np.arange(5) * (2 * math.pi / 5), y.dtype), angle)
        arms = turn(-angle, y[..., :1], y[..., 1:])  # (..., 5, 2)
        squares = ((arms[..., 0] - 2) / self.along) ** 2 + (arms[..., 1] / self.across) ** 2
        log_scale = math.log(5 * 2 * math.pi * self.along * self.across)
        return logsumexp(-squares / 2, axis=-1) - log_scale


@dataclass(frozen=True)
class Checkerboard(ToyDensity):
    """Uniform on the eight dark squares of a 4x4 board on [-4, 4)^2; -inf elsewhere.

    Square (i, j) covers [2i - 4, 2i - 2) x [2j - 4, 2j - 2), and is dark if i + j is even.
    """

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        which, place = jax.random.split(key)
        square = jax.random.randint(which, (n,), 0, 8)
        i, half = square // 2, square % 2
        corner = 2 * jnp.stack([i, 2 * half + i % 2], axis=-1).astype(dtype) - 4
        # Short of 1, because the sum could be rounded up to the next square.
        short = 1 - 4 * float(jnp.finfo(dtype).eps)
        return corner + 2 * jax.random.uniform(place, (n, 2), dtype, 0, short)

    def _log_prob(self, y: Array) -> Array:
        square = jnp.floor((y + 4) / 2)
        on_board = jnp.all((square >= 0) & (square < 4), axis=-1)
        dark = on_board & (jnp.sum(square, axis=-1) % 2 == 0)
        log_prob = jnp.where(dark, jnp.asarray(-math.log(32), y.dtype), -jnp.inf)
        return jnp.where(jnp.isnan(y).any(axis=-1), jnp.nan, log_prob)


@dataclass(frozen=True)
class Banana(ToyDensity):
    """y1 ~ N(0, 1.2^2) and y2 | y1 ~ N(y1^2 / 3 - 1.5, std^2)."""

    std: float = 0.4

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        e = jax.random.normal(key, (n, 2), dtype)
        y1 = 1.2 * e[:, 0]
        return jnp.stack([y1, y1**2 / 3 - 1.5 + self.std * e[:, 1]], axis=-1)

    def _log_prob(self, y: Array) -> Array:
        y1, y2 = y[..., 0], y[..., 1]
        squares = (y1 / 1.2) ** 2 + ((y2 - y1**2 / 3 + 1.5) / self.std) ** 2
        return -squares / 2 - math.log(2 * math.pi * 1.2 * self.std)


@dataclass(frozen=True)
class Funnel(ToyDensity):
    """y1 ~ N(0, std^2) and y2 | y1 ~ N(0, e^y1): a narrow neck and a wide mouth.

    Reference: Neal, Slice sampling, 2003, section 8, with nine such y2 and std 3.
    """

    std: float = 1.0

    def _sample(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        e = jax.random.normal(key, (n, 2), dtype)
        y1 = self.std * e[:, 0]
        return jnp.stack([y1, jnp.exp(y1 / 2) * e[:, 1]], axis=-1)

    def _log_prob(self, y: Array) -> Array:
        y1, y2 = y[..., 0], y[..., 1]
        squares = (y1 / self.std) ** 2 + (y2 * jnp.exp(-y1 / 2)) ** 2
        return -(squares + y1) / 2 - math.log(2 * math.pi * self.std)


_TOYS: dict[str, type[ToyDensity]] = {
    "eight_gaussians": EightGaussians,
    "gaussian_grid": GaussianGrid,
    "two_moons": TwoMoons,
    "two_spirals": TwoSpirals,
    "swiss_roll": SwissRoll,
    "rings": Rings,
    "pinwheel": Pinwheel,
    "checkerboard": Checkerboard,
    "banana": Banana,
    "funnel": Funnel,
}
TOY_NAMES = tuple(_TOYS)


def toy(name: str) -> ToyDensity:
    """The toy density of that name, with its default parameters.

    Args:
      name: one of TOY_NAMES: the name of the class in snake case.

    Raises:
      ValueError: there is none of that name.
    """
    if name not in _TOYS:
        raise ValueError(f"no toy density {name!r}; there are {', '.join(TOY_NAMES)}")
    return _TOYS[name]()
