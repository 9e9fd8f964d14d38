"""Activations of Lipschitz constant at most 1, for networks that must contract."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# The largest slope of x sigmoid(x), at x = 2.3994, rounded up.
_SWISH = 1.09983933


@dataclass(frozen=True)
class LipschitzActivation:
    """|a(x) - a(y)|_p <= |x - y|_p. What has a learned slope takes it as `slope` > 0."""

    @property
    def widening(self) -> int:
        """Outputs for each input."""
        return 1

    @property
    def has_slope(self) -> bool:
        """Whether there is a learned number."""
        return False

    @abstractmethod
    def __call__(self, x: Array, slope: Array | None = None, p: float = 2.0) -> Array:
        """a(x), along the last axis; p is that of the norm."""


@dataclass(frozen=True)
class LipSwish(LipschitzActivation):
    """x sigmoid(b x) / 1.1, with a learned b. Its second derivative does not vanish.

    Where the first derivative is at its largest, that of most activations vanishes, and with it the
    gradient of log-determinants.

    Reference: Chen et al., 2019, section 3.3, https://arxiv.org/abs/1906.02735
    """

    @property
    def has_slope(self) -> bool:
        return True

    def __call__(self, x: Array, slope: Array | None = None, p: float = 2.0) -> Array:
        return _swish(x, slope) / _SWISH


@dataclass(frozen=True)
class CLipSwish(LipschitzActivation):
    """(s(x), s(-x)) / c_p with s(x) = x sigmoid(b x): twice as wide, and closer to constant 1.

    The slopes of s at x and -x add up to 1, and the larger is at most s' = 1.0998, so that
    c_p = (s'^p + (s' - 1)^p)^(1/p); c_2 = 1.104.

    Reference: Perugachi-Diaz et al., 2021, section 3.2, https://arxiv.org/abs/2102.02694
    """

    @property
    def widening(self) -> int:
        return 2

    @property
    def has_slope(self) -> bool:
        return True

    def __call__(self, x: Array, slope: Array | None = None, p: float = 2.0) -> Array:
        bound = _SWISH if math.isinf(p) else (_SWISH**p + (_SWISH - 1) ** p) ** (1 / p)
        swish = _swish(x, slope)
        return jnp.concatenate([swish, swish - x], axis=-1) / bound


@dataclass(frozen=True)
class Sine(LipschitzActivation):
    """sin(pi x) / pi."""

    def __call__(self, x: Array, slope: Array | None = None, p: float = 2.0) -> Array:
        return jnp.sin(math.pi * x) / math.pi


@dataclass(frozen=True)
class ELU(LipschitzActivation):
    """x, or e^x - 1 for x < 0 (i-ResNet). Its second derivative vanishes for x > 0."""

    def __call__(self, x: Array, slope: Array | None = None, p: float = 2.0) -> Array:
        return jax.nn.elu(x)


@dataclass(frozen=True)
class GroupSort(LipschitzActivation):
    """Sorts pairs of channels (MaxMin): it keeps the norms of gradients. Its slopes jump.

    Reference: Anil et al., 2019, https://arxiv.org/abs/1811.05381
    """

    def __call__(self, x: Array, slope: Array | None = None, p: float = 2.0) -> Array:
        half = x.shape[-1] // 2
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return jnp.concatenate([jnp.minimum(a, b), jnp.maximum(a, b), rest], axis=-1)


def _swish(x: Array, slope: Array | None) -> Array:
    slope = jnp.ones((), x.dtype) if slope is None else slope
    return _scaled_swish(x, jnp.broadcast_to(slope, x.shape))


@jax.custom_jvp
def _scaled_swish(x: Array, slope: Array) -> Array:
    """x sigmoid(b x). Its slope is one array, which products with the Jacobian only multiply by."""
    return x * jax.nn.sigmoid(x * slope)


@_scaled_swish.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, slope = primals
    gate = jax.nn.sigmoid(x * slope)
    rest = x * gate * (1 - gate)
    by_x, by_slope = gate + slope * rest, x * rest
    return x * gate, by_x * tangents[0] + by_slope * tangents[1]


ACTIVATIONS: dict[str, LipschitzActivation] = {
    "lip_swish": LipSwish(),
    "clip_swish": CLipSwish(),
    "sine": Sine(),
    "elu": ELU(),
    "group_sort": GroupSort(),
}
