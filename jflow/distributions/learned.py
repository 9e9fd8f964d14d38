"""Bases that learn their parameters, or take them from the context: Flax modules."""

import math
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import betaln, logsumexp
from jax.typing import DTypeLike

from jflow.distributions.base import inverse_softplus
from jflow.distributions.standard import LocationScale
from jflow.functional.arrays import sum_event, wide_dtype
from jflow.nets import MLP


class StudentT(nn.Module):
    """Independent Student-t's with location 0 and scale 1: heavy tails, learned by default.

        log p(x) = sum of -log B(1/2, v/2) - log(v)/2 - (v + 1)/2 log(1 + x^2 / v)

    The degrees of freedom v, one for each entry of the event, are v = 1 + softplus(r) with a
    learned r, so that the mean exists. Samples have a gradient with respect to v.

    Attributes:
      df: v at the start, above 1; if it is not learned, any positive number.
      learned: whether v is learned.

    Raises:
      ValueError: df is out of range.

    Reference: Jaini et al., Tails of Lipschitz Triangular Flows, 2020, https://arxiv.org/abs/1907.04481
    """

    df: float = 5.0
    learned: bool = True

    def __post_init__(self) -> None:
        least = 1 if self.learned else 0
        if not (least < self.df < math.inf):
            hint = ", or learned=False" if self.learned else ""
            raise ValueError(f"StudentT: df must be finite and above {least}{hint}; got {self.df}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, event_shape: tuple[int, ...], dtype: DTypeLike, context: Array | None = None
    ) -> Any:
        """The distribution of events of that shape."""
        if not self.learned:
            return _StudentT(jnp.full(event_shape, self.df, dtype))
        start = nn.initializers.constant(inverse_softplus(self.df - 1))
        raw = self.param("df", start, event_shape, wide_dtype(dtype)).astype(dtype)
        return _StudentT(1 + jax.nn.softplus(raw))


@dataclass(frozen=True)
class _StudentT:
    """Independent Student-t's of scale s; df is (*event)."""

    df: Array
    scale: float | Array = 1.0

    def sample(self, *, seed: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        x = jax.random.t(seed, self.df, (*sample_shape, *self.df.shape), self.df.dtype)
        return self.scale * x

    def log_prob(self, x: Array) -> Array:
        df = self.df
        # betaln stays accurate where df is large and the two log-gammas would cancel.
        constant = betaln(jnp.full_like(df, 0.5), df / 2) + jnp.log(df) / 2 + jnp.log(self.scale)
        z = x / (self.scale * jnp.sqrt(df))
        return sum_event(-constant - (df + 1) / 2 * _log1p_square(z), df.ndim)

    def tempered(self, temperature: float | Array) -> "_StudentT":
        return replace(self, scale=self.scale * temperature)

    def mean(self) -> Array:
        """The centre, which is the mean where there is one."""
        return jnp.zeros_like(self.df)


def _log1p_square(z: Array) -> Array:
    """log(1 + z^2), where z^2 may overflow."""
    large = jnp.abs(z) > 1e8
    log = jnp.log(jnp.abs(jnp.where(large, z, 1)))
    return jnp.where(large, 2 * log, jnp.log1p(jnp.square(jnp.where(large, 0, z))))


class GaussianMixture(nn.Module):
    """A mixture of K normals with diagonal covariances, all of it learned.

        log p(x) = log sum_k w_k N(x; m_k, diag(s_k^2)),   w = softmax(logits)

    log s = bound * tanh(r / bound) with a learned r. At the start the weights are equal, the
    means are drawn from N(0, spread^2) and s = 1. Samples have gradients with respect to m and
    s, but none with respect to w: which component a sample is from is a discrete choice.

    Attributes:
      components: K.
      spread: standard deviation of the means at the start.
      bound: the largest |log s|; `math.inf` for none.

    Raises:
      ValueError: `components` is below 1, or `spread` or `bound` is not positive.
    """

    components: int
    spread: float = 1.0
    bound: float = 5.0

    @property
    def reparameterized(self) -> bool:
        """No: samples do not tell how they would change with the weights."""
        return False

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(
                f"GaussianMixture: components must be 1 or more; got {self.components}"
            )
        _check_positive("GaussianMixture", spread=self.spread, bound=self.bound)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, event_shape: tuple[int, ...], dtype: DTypeLike, context: Array | None = None
    ) -> Any:
        """The distribution of events of that shape."""
        shape, wide = (self.components, *event_shape), wide_dtype(dtype)
        zeros = nn.initializers.zeros
        logits = self.param("logits", zeros, shape[:1], wide).astype(dtype)
        means = self.param("means", nn.initializers.normal(self.spread), shape, wide)
        raw = self.param("log_scales", zeros, shape, wide).astype(dtype)
        return _Mixture(jax.nn.log_softmax(logits), means.astype(dtype), _bounded(raw, self.bound))


@dataclass(frozen=True)
class _Mixture:
    """Normals with diagonal covariances: log_weights (K,), means and log_scales (K, *event)."""

    log_weights: Array
    means: Array
    log_scales: Array

    def sample(self, *, seed: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        choice, noise = jax.random.split(seed)
        k = jax.random.categorical(choice, self.log_weights, shape=sample_shape)
        z = jax.random.normal(noise, (*sample_shape, *self.means.shape[1:]), self.means.dtype)
        return self.means[k] + z * jnp.exp(self.log_scales)[k]

    def log_prob(self, x: Array) -> Array:
        event_ndim = self.means.ndim - 1
        z = (jnp.expand_dims(x, -1 - event_ndim) - self.means) * jnp.exp(-self.log_scales)
        each = -jnp.square(z) / 2 - self.log_scales - math.log(2 * math.pi) / 2
        joint = sum_event(each, event_ndim) + self.log_weights
        # Where all components underflow, logsumexp has a NaN gradient.
        lost = jnp.isneginf(jnp.max(joint, axis=-1))
        total = logsumexp(jnp.where(lost[..., None], 0, joint), axis=-1)
        return jnp.where(lost, -jnp.inf, total)

    def mean(self) -> Array:
        return jnp.tensordot(jnp.exp(self.log_weights), self.means, 1, precision="highest")

    def tempered(self, temperature: float | Array) -> "_Mixture":
        """Each component by itself: the means and the weights stay."""
        return replace(self, log_scales=self.log_scales + jnp.log(temperature))


class ConditionalGaussian(nn.Module):
    """Independent normals whose means and scales come from the context, by an MLP.

        log p(x | c) = log N(x; m(c), diag(s(c)^2)),   log s = bound * tanh(r(c) / bound)

    At the start the MLP gives zeros, so this is the standard normal for every context.

    Attributes:
      hidden: the widths of the MLP's hidden layers.
      bound: the largest |log s|; `math.inf` for none.

    Raises:
      ValueError: `bound` is not positive, or (on call) there is no context.
    """

    hidden: tuple[int, ...] = (64, 64)
    bound: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        _check_positive("ConditionalGaussian", bound=self.bound)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, event_shape: tuple[int, ...], dtype: DTypeLike, context: Array | None = None
    ) -> Any:
        """The distributions of events of that shape, with the batch shape of the context."""
        if context is None:
            raise ValueError(
                "ConditionalGaussian: context must be (C,) or (*batch, C); got None. Build the "
                "flow with context_shape=C, and give it a context"
            )
        context = context.astype(wide_dtype(dtype))
        net = MLP(self.hidden)(2 * math.prod(event_shape)).copy(name="net")
        shape = (*context.shape[:-1], 2, *event_shape)
        pair = net(context).astype(dtype).reshape(shape)
        mean, raw = jnp.moveaxis(pair, context.ndim - 1, 0)
        scale = jnp.exp(_bounded(raw, self.bound))
        return LocationScale("Normal", mean, scale, len(event_shape))


def _bounded(raw: Array, bound: float) -> Array:
    return raw if math.isinf(bound) else bound * jnp.tanh(raw / bound)


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{owner}: {name} must be positive; got {value}")
