"""Smooth transforms with closed-form values and iterative inverses."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.functional.arrays import pinned
from jflow.functional.roots import invert_increasing
from jflow.functional.splines import shares
from jflow.transformers.base import DirectionKind, Transformer
from jflow.transformers.interval import OnInterval, check_bins


@dataclass(frozen=True)
class LogisticMixture(Transformer):
    """The cdf of a mixture of K logistics, seen through a logit, then an affine map.

        y = e^a logit(sum_k pi_k sigmoid((x - m_k) e^-s_k)) + b

    It maps the line onto the line, bends at each component, and is linear far out. Components start
    with means spread over [-1, 1], or equal ones would stay equal; zero params are near the
    identity. The inverse is iterative, bracketed by those of single components.

    params: K logits of pi, K shifts of m, K of r with s = bound tanh(r / bound), then b and the
    like of a.

    Attributes:
      components: K.
      bound: the largest |s| and |a|, in nats.

    Reference: Ho et al., Flow++, 2019, https://arxiv.org/abs/1902.00275
    """

    components: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(
                f"LogisticMixture: components must be 1 or more; got {self.components}"
            )
        if not 0 < self.bound < math.inf:
            raise ValueError(f"LogisticMixture: bound must be positive; got {self.bound}")

    @property
    def num_params(self) -> int:
        return 3 * self.components + 2

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        mixture, shift, log_scale = self._split(params)
        u, log_det = _mixture_logit(mixture, x)
        return u * jnp.exp(log_scale) + shift, log_det + log_scale

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        mixture, shift, log_scale = self._split(params)
        u = (y - shift) * jnp.exp(-log_scale)
        # The mixture's logit lies between those of its components, and so does the solution.
        _, means, log_scales = mixture
        ends = means + jnp.exp(log_scales) * u[..., None]
        low, high = (
            jax.lax.stop_gradient(end) for end in (jnp.min(ends, axis=-1), jnp.max(ends, axis=-1))
        )
        x, log_det = invert_increasing(_mixture_logit, mixture, u, low, high)
        return x, log_det - log_scale

    def _split(self, params: Array) -> tuple[tuple[Array, Array, Array], Array, Array]:
        k = self.components
        log_weights = jax.nn.log_softmax(params[..., :k], axis=-1)
        spread = np.linspace(-1, 1, k) if k > 1 else np.zeros(1)
        spread = jnp.asarray(spread, params.dtype).reshape((1,) * (params.ndim - 1) + (k,))
        means = spread + params[..., k : 2 * k]
        log_scales = self._bounded(params[..., 2 * k : 3 * k])
        mixture = (log_weights, means, log_scales)
        return mixture, params[..., 3 * k], self._bounded(params[..., 3 * k + 1])

    def _bounded(self, raw: Array) -> Array:
        return self.bound * jnp.tanh(raw / self.bound)


def _mixture_logit(mixture: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array]:
    """logit of the mixture's cdf, and its log-derivative, both without under- or overflow.

    With F and 1 - F the cdf and what is left, F_k = pi_k sigmoid(z_k) and R_k = pi_k sigmoid(-z_k),

        d logit(F) / dx = sum_k (F_k / F) (R_k / (1 - F)) e^-s_k / pi_k,

    whose shares do not lose digits where F is near 0 or 1, as log pdf - log F - log(1 - F) does.
    """
    log_weights, means, log_scales = mixture
    z = (x[..., None] - means) * jnp.exp(-log_scales)
    log_below, log_above = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    log_below, log_above = log_weights + log_below, log_weights + log_above
    log_cdf = jax.nn.logsumexp(log_below, axis=-1, keepdims=True)
    log_rest = jax.nn.logsumexp(log_above, axis=-1, keepdims=True)
    shares = (log_below - log_cdf) + (log_above - log_rest)
    log_det = jax.nn.logsumexp(shares - log_weights - log_scales, axis=-1)
    return (log_cdf - log_rest)[..., 0], log_det


@dataclass(frozen=True)
class NonlinearSquared(Transformer):
    """An affine map with one bump: y = a x + b + c / (1 + (d x + g)^2), with a, d > 0.

    It is increasing if |c| < 8 sqrt(3) a / (9 d), hence c = 0.95 (8 sqrt(3) / 9) (a / d) tanh(q).

        log(dy/dx) = log(a - 2 c d u / (1 + u^2)^2),   u = d x + g

    params: (log a, b, q, log d, g), both logs bounded as r -> bound tanh(r / bound); zero at the
    identity. The inverse is iterative: u solves u + (c d / a) / (1 + u^2) = v, within |c d / a| of
    v, and the cubic formula for it cancels in float32.

    Attributes:
      bound: the largest |log a| and |log d|.

    Reference: Ziegler and Rush, Latent normalizing flows for discrete sequences, 2019,
    https://arxiv.org/abs/1901.10548
    """

    bound: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            raise ValueError(f"NonlinearSquared: bound must be positive; got {self.bound}")

    @property
    def num_params(self) -> int:
        return 5

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    def _forward(self, x: Array, params: Array) -> tuple[Array, Array]:
        log_a, b, bump, log_d, g = self._split(params)
        u = jnp.exp(log_d) * x + g
        _, log_det = _bump(bump, u)
        rise = bump * _share(u) * jnp.exp(-log_d)
        return jnp.exp(log_a) * (x + rise) + b, log_a + log_det

    def _inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        log_a, b, bump, log_d, g = self._split(params)
        v = jnp.exp(log_d - log_a) * (y - b) + g
        low, high = (
            jax.lax.stop_gradient(v - jnp.abs(bump)),
            jax.lax.stop_gradient(v + jnp.abs(bump)),
        )
        u, log_det = invert_increasing(_bump, bump, v, low, high)
        # Not (u - g) e^-log_d, which cancels.
        x = jnp.exp(-log_a) * (y - b) - bump * _share(u) * jnp.exp(-log_d)
        return x, log_det - log_a

    def _split(self, params: Array) -> tuple[Array, ...]:
        raw_a, b, q, raw_d, g = (params[..., i] for i in range(5))
        log_a, log_d = (self.bound * jnp.tanh(raw / self.bound) for raw in (raw_a, raw_d))
        return log_a, b, 0.95 * 8 * math.sqrt(3) / 9 * jnp.tanh(q), log_d, g


def _bump(size: Array, u: Array) -> tuple[Array, Array]:
    """v = u + size / (1 + u^2) and log(dv/du)."""
    share = _share(u)
    # Where u is so large that it would overflow, its share is zero anyway.
    small = jnp.where(share > 0, u, 0)
    return u + size * share, jnp.log1p(-2 * size * small * share * share)


def _share(u: Array) -> Array:
    """1 / (1 + u^2), and 0 where u^2 might overflow."""
    inside = jnp.abs(u) < 1e4
    small = jnp.where(inside, u, 0)
    return jnp.where(inside, 1 / (1 + small * small), 0)


@dataclass(frozen=True)
class BernsteinPolynomial(OnInterval):
    """A polynomial of degree n with increasing Bernstein coefficients beta, hence increasing.

    On [0, 1], with beta_0 = 0 and beta_n = 1:

        y = sum_i beta_i C(n, i) x^i (1 - x)^(n - i)
        dy/dx = n sum_i (beta_i+1 - beta_i) C(n - 1, i) x^i (1 - x)^(n - 1 - i)

    params: logits of the increments of beta: all n with tails=None; with linear tails the inner
    n - 2, and the first and last are 1 / n, so that the slope at both ends is 1. Zero params are
    the identity. The inverse is iterative.

    Attributes:
      degree: n; 4 to 100.
      minimum: the smallest increment, as a share; in (0, 1 / n).
      bound, tails: the interval; see `RationalQuadraticSpline`.

    Reference: Ramasinghe et al., Robust normalizing flows using Bernstein-type polynomials, 2021,
    https://arxiv.org/abs/2102.03509
    """

    degree: int = 16
    minimum: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 4 <= self.degree <= 100:
            raise ValueError(
                f"BernsteinPolynomial: degree must be 4 or more, 100 at most (float32 overflows "
                f"beyond); got {self.degree}"
            )
        check_bins("BernsteinPolynomial", self.degree, 4, self.minimum)

    @property
    def num_params(self) -> int:
        return self.degree - (0 if self.tails is None else 2)

    @property
    def inverse_kind(self) -> DirectionKind:
        return "iterative"

    def _on_unit(self, x: Array, params: Array) -> tuple[Array, Array]:
        return _bernstein(self._increments(params), x)

    def _on_unit_inverse(self, y: Array, params: Array) -> tuple[Array, Array]:
        increments = self._increments(params)
        x, _ = invert_increasing(_bernstein, increments, y, jnp.zeros_like(y), jnp.ones_like(y))
        x = pinned(x, y)
        return x, -_bernstein(increments, x)[1]

    def _increments(self, params: Array) -> Array:
        inner = shares(params, self.minimum)
        if self.tails is None:
            return inner
        end = jnp.full_like(inner[..., :1], 1 / self.degree)
        return jnp.concatenate([end, inner * (1 - 2 / self.degree), end], axis=-1)


def _bernstein(increments: Array, x: Array) -> tuple[Array, Array]:
    n = increments.shape[-1]
    basis = _basis(n, x)
    y = jnp.sum(jnp.cumsum(increments, axis=-1) * basis[..., 1:], axis=-1)
    y = y / jnp.sum(basis, axis=-1)  # one, but for rounding, most of which y shares
    slope = n * jnp.sum(increments * _basis(n - 1, x), axis=-1)
    return y, jnp.log(slope)


def _basis(n: int, x: Array) -> Array:
    """C(n, i) x^i (1 - x)^(n - i), (..., n + 1)."""
    shape = (1,) * x.ndim + (n + 1,)
    counts = jnp.asarray([math.comb(n, i) for i in range(n + 1)], x.dtype).reshape(shape)
    power = jnp.arange(n + 1, dtype=jnp.int32).reshape(shape)
    powers = jnp.cumprod(jnp.where(power == 0, 1, x[..., None]), axis=-1)
    others = jnp.cumprod(jnp.where(power == 0, 1, 1 - x[..., None]), axis=-1)
    return counts * powers * jnp.flip(others, axis=-1)
