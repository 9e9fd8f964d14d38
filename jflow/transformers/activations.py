"""Fixed scalar functions between intervals, and one learned one of the whole line."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jflow.transformers.base import Transformer
from jflow.transformers.inverted import Inverted


@dataclass(frozen=True)
class _Fixed(Transformer):
    """A scalar function without parameters."""

    @property
    def num_params(self) -> int:
        return 0


@dataclass(frozen=True)
class LeakyReLU(_Fixed):
    """y = x for x >= 0, and slope * x below. log|dy/dx| is 0 or log(slope). No params.

    Attributes:
      slope: in (0, inf), of the negative half.
    """

    slope: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.slope < math.inf:
            raise ValueError(f"LeakyReLU: slope must be positive; got {self.slope}")

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self._bend(x, self.slope)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self._bend(y, 1 / self.slope)

    @staticmethod
    def _bend(x: Array, slope: float) -> tuple[Array, Array]:
        negative = x < 0
        log_slope = jnp.asarray(math.log(slope), x.dtype)
        return jnp.where(negative, slope * x, x), jnp.where(negative, log_slope, 0)


@dataclass(frozen=True)
class Tanh(_Fixed):
    """y = tanh(x), onto (-1, 1); log(dy/dx) = 2 (log 2 - |x| - log(1 + e^(-2|x|))). No params."""

    @property
    def codomain(self) -> tuple[float, float]:
        return (-1.0, 1.0)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return jnp.tanh(x), -2 * log_cosh(x)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return jnp.arctanh(y), -(jnp.log1p(y) + jnp.log1p(-y))


@dataclass(frozen=True)
class Sigmoid(_Fixed):
    """y = (sigmoid(x) - alpha) / (1 - 2 alpha), whose inverse is the logit with margin alpha.

        inverse   x = logit(p),  p = alpha + (1 - 2 alpha) y
        log(dx/dy) = log(1 - 2 alpha) - log p - log(1 - p)

    With alpha = 0 it maps the line onto (0, 1). With alpha > 0 the closed interval [0, 1] lies
    inside the codomain: the preprocessing of image pixels in Real NVP, section 4.1, there with
    alpha = 0.05. No params.

    Attributes:
      alpha: the margin, in [0, 0.5).

    Reference: https://arxiv.org/abs/1605.08803
    """

    alpha: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 0.5:
            raise ValueError(f"{type(self).__name__}: alpha must be in [0, 0.5); got {self.alpha}")

    @property
    def codomain(self) -> tuple[float, float]:
        margin = self.alpha / (1 - 2 * self.alpha)
        return (-margin, 1 + margin)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        y = (jax.nn.sigmoid(x) - self.alpha) / (1 - 2 * self.alpha)
        return y, -jax.nn.softplus(x) - jax.nn.softplus(-x) - math.log1p(-2 * self.alpha)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        # Distances to both ends, each computed from its own end, and positive after rounding.
        tiny = jnp.finfo(y.dtype).tiny
        p = jnp.maximum(self.alpha + (1 - 2 * self.alpha) * y, tiny)
        q = jnp.maximum(self.alpha + (1 - 2 * self.alpha) * (1 - y), tiny)
        log_p, log_q = jnp.log(p), jnp.log(q)
        return log_p - log_q, math.log1p(-2 * self.alpha) - log_p - log_q


def Logit(alpha: float = 0.0) -> Inverted:
    """y = logit(alpha + (1 - 2 alpha) x): `Sigmoid(alpha)` with its directions swapped."""
    return Inverted(Sigmoid(alpha))


@dataclass(frozen=True)
class Softplus(_Fixed):
    """y = log(1 + e^x), onto (0, inf); log(dy/dx) = -log(1 + e^-x). No params.

    inverse   x = y + log(1 - e^-y),  log(dx/dy) = -log(1 - e^-y)
    """

    @property
    def codomain(self) -> tuple[float, float]:
        return (0.0, math.inf)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return jax.nn.softplus(x), -jax.nn.softplus(-x)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        log_rest = jnp.log(-jnp.expm1(-y))
        return y + log_rest, -log_rest


@dataclass(frozen=True)
class Exp(_Fixed):
    """y = e^x, onto (0, inf); log(dy/dx) = x. Its inverse is the logarithm. No params."""

    @property
    def codomain(self) -> tuple[float, float]:
        return (0.0, math.inf)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return jnp.exp(x), x

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        x = jnp.log(y)
        return x, -x


@dataclass(frozen=True)
class Power(_Fixed):
    """y = x^exponent on (0, inf); log|dy/dx| = log|exponent| + (exponent - 1) log x. No params.

    Attributes:
      exponent: finite and not zero.
    """

    exponent: float = 2.0

    def __post_init__(self) -> None:
        if self.exponent == 0 or not math.isfinite(self.exponent):
            raise ValueError(f"Power: exponent must be finite and not 0; got {self.exponent}")

    @property
    def domain(self) -> tuple[float, float]:
        return (0.0, math.inf)

    @property
    def codomain(self) -> tuple[float, float]:
        return (0.0, math.inf)

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        return self._raise(x, self.exponent)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        return self._raise(y, 1 / self.exponent)

    @staticmethod
    def _raise(x: Array, exponent: float) -> tuple[Array, Array]:
        return x**exponent, math.log(abs(exponent)) + (exponent - 1) * jnp.log(x)


@dataclass(frozen=True)
class SinhArcsinh(Transformer):
    """y = sinh(e^s (arcsinh(x) + t)): sets skewness by t and tail weight by s, smoothly.

        inverse   x = sinh(e^-s arcsinh(y) - t)
        log(dy/dx) = s + log cosh(u) - log cosh(v),  v = jnp.arcsinh(x),  u = e^s (v + t)

    Both are bounded, t = max_skew tanh(q / max_skew) and s = max_tail tanh(r / max_tail), so that
    no parameters overflow float32 for |x| up to 10^12. params: (q, r), zero at the identity.

    Attributes:
      max_skew: the largest |t|.
      max_tail: the largest |s|; tails grow like |x|^(e^s).

    Reference: Jones and Pewsey, Sinh-arcsinh distributions, Biometrika 96, 2009.
    """

    max_skew: float = 2.0
    max_tail: float = 1.0

    def __post_init__(self) -> None:
        for name, bound in (("max_skew", self.max_skew), ("max_tail", self.max_tail)):
            if not 0 < bound < math.inf:
                raise ValueError(f"SinhArcsinh: {name} must be positive; got {bound}")

    @property
    def num_params(self) -> int:
        return 2

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        skew, log_tail = self._skew_and_log_tail(params)
        v = jnp.arcsinh(x)
        u = jnp.exp(log_tail) * (v + skew)
        return jnp.sinh(u), log_tail + log_cosh(u) - log_cosh(v)

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        skew, log_tail = self._skew_and_log_tail(params)
        u = jnp.arcsinh(y)
        v = jnp.exp(-log_tail) * u - skew
        return jnp.sinh(v), -log_tail + log_cosh(v) - log_cosh(u)

    def _skew_and_log_tail(self, params: Array) -> tuple[Array, Array]:
        bounds = (self.max_skew, self.max_tail)
        skew, log_tail = (b * jnp.tanh(params[..., i] / b) for i, b in enumerate(bounds))
        return skew, log_tail


def log_cosh(x: Array) -> Array:
    """log(cosh(x)) without overflow."""
    size = jnp.abs(x)
    return size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
