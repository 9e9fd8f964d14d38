"""log|det(I + J)| by its power series, truncated or cut at random."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide, batch_shape, sum_event
from jflow.functional.estimators import Function
from jflow.functional.log_determinants import LogDetEstimator
from jflow.functional.stopping import Logarithmic, Stopping
from jflow.functional.traces import Distribution, check_distribution, draw_probes


@dataclass(frozen=True)
class _Series(LogDetEstimator):
    """What the two series share.

    Gradients do not go through the terms. With u = sum_k (-1)^k v^T J^k / P(N >= k), k from 0,
    which the forward pass finds beside the value,

        d log|det(I + J)| = tr((I + J)^-1 dJ) = E[u dJ v]

    (Neumann's series), which is one product u (J v), differentiated with u constant. Memory
    therefore does not grow with the number of terms, and cotangents may differ between examples.
    """

    @abstractmethod
    def goes_on(self, k: Array, threshold: Array) -> Array:
        """Whether term k is taken."""

    @abstractmethod
    def weight(self, k: Array, dtype: Any) -> Array:
        """1 / P(term k is taken)."""

    def series(self, product: Function, v: Array, threshold: Array, event_ndim: int) -> Any:
        """sum_k (-1)^(k+1) w_k / k v^T J^k v, k from 1, and sum_k (-1)^k w_k v^T J^k, k from 0.

        Args:
          product: v to v^T J.
          v: a probe (*batch, *event).
          threshold: what decides how many terms are taken; see `goes_on`.
          event_ndim: how many trailing axes are the event.
        """
        dtype = v.dtype

        def step(carry: Any) -> Any:
            k, power, value, vector = carry
            power = product(power)
            signed = jnp.where(k % 2 == 1, 1, -1).astype(dtype) * self.weight(k, dtype)
            value = value + signed / k.astype(dtype) * sum_event(power * v, event_ndim)
            return k + 1, power, value, vector - signed * power

        start = (jnp.ones((), jnp.int32), v, jnp.zeros(batch_shape(v, event_ndim), dtype), v)
        _, _, value, vector = lax.while_loop(lambda c: self.goes_on(c[0], threshold), step, start)
        return value, vector

    def estimate(
        self, function: Function, x: Array, v: Array, threshold: Array, event_ndim: int
    ) -> tuple[Array, Array]:
        """g(x), and the estimate of the log-determinant by the probe v."""
        y, pull = jax.vjp(function, x)
        # All that the products depend on is held constant.
        frozen = lax.stop_gradient(pull)
        value, vector = self.series(lambda w: frozen(w)[0], v, threshold, event_ndim)
        by_vector = sum_event(pull(lax.stop_gradient(vector))[0] * v, event_ndim)
        return y, lax.stop_gradient(value) + (by_vector - lax.stop_gradient(by_vector))


@dataclass(frozen=True)
class PowerSeries(_Series):
    """A truncated power series, with traces by Hutchinson's estimator: biased (i-ResNet).

        log|det(I + J)| = sum_k (-1)^(k+1) tr(J^k) / k,    k = 1 .. terms

    Its variance is finite. Its bias is at most `bias_bound`. Gradients have one more term.

    Attributes:
      terms: n.
      probes: how many probes to average over.
      distribution: of the probes; see `draw_probes`.

    Reference: Behrmann et al., 2019, section 3.2, https://arxiv.org/abs/1811.00995
    """

    terms: int = 10
    probes: int = 1
    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        check_counts("PowerSeries", terms=self.terms, probes=self.probes)
        check_distribution("PowerSeries", self.distribution)

    @property
    def kind(self) -> Literal["biased"]:
        return "biased"

    def has_finite_variance(self, radius: float) -> bool:
        return True

    def bias_bound(self, lipschitz: float, features: int) -> float:
        """D (-log(1 - L) - sum_k L^k / k), k = 1 .. n: what the terms left out can come to."""
        kept = sum(lipschitz**k / k for k in range(1, self.terms + 1))
        return features * max(0.0, -math.log1p(-lipschitz) - kept)

    def with_terms(self, terms: int) -> Self:
        return replace(self, terms=terms)

    def goes_on(self, k: Array, threshold: Array) -> Array:
        return k <= self.terms

    def weight(self, k: Array, dtype: Any) -> Array:
        return jnp.ones((), dtype)

    def value_and_log_det(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        key = _required("PowerSeries", key)
        draw = lambda key: draw_probes(key, as_wide(x), self.distribution, event_ndim)  # noqa: E731
        v = jax.vmap(draw)(jax.random.split(key, self.probes))
        run = lambda v: self.estimate(function, x, v, jnp.zeros(()), event_ndim)  # noqa: E731
        if self.probes == 1:
            return run(v[0])
        y, log_dets = jax.vmap(run, out_axes=(None, 0))(v)
        return y, jnp.mean(log_dets, axis=0)


@dataclass(frozen=True)
class RussianRoulette(_Series):
    """The whole power series, cut at random and weighted to make up for it: unbiased.

        sum_k (-1)^(k+1) v^T J^k v / (k P(N >= k - n)),    k = 1 .. n + N

    n terms are always taken, and N more, drawn once for a batch; v is drawn for each example.

    Whether the variance is finite depends on the law of N and on the largest eigenvalue of J: see
    `stopping`. With `Poisson`, it never is, unless J is nilpotent.

    Attributes:
      stopping: the law of N: `Logarithmic`, `Geometric` or `Poisson`.
      exact_terms: n.
      probes: how many probes to average over, each with its own N.
      distribution: of the probes; see `draw_probes`.

    Reference: Chen et al., Residual Flows, 2019, eqs. 6 and 8, https://arxiv.org/abs/1906.02735
    """

    stopping: Stopping = Logarithmic()  # noqa: RUF009  # frozen
    exact_terms: int = 1
    probes: int = 1
    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        if not isinstance(self.stopping, Stopping):
            raise TypeError(
                "RussianRoulette: stopping must be a law, such as Logarithmic(0.98); got "
                f"{self.stopping!r}"
            )
        check_counts("RussianRoulette", 0, exact_terms=self.exact_terms)
        check_counts("RussianRoulette", probes=self.probes)
        check_distribution("RussianRoulette", self.distribution)

    @property
    def kind(self) -> Literal["unbiased"]:
        return "unbiased"

    @property
    def expected_terms(self) -> float:
        """n + E[N]."""
        return self.exact_terms + self.stopping.mean

    def has_finite_variance(self, radius: float) -> bool:
        return self.stopping.has_finite_variance(radius)

    def with_terms(self, terms: int) -> Self:
        return replace(self, exact_terms=terms)

    def goes_on(self, k: Array, threshold: Array) -> Array:
        extra = jnp.maximum(k - self.exact_terms, 0)
        return (extra == 0) | (self.stopping.log_survival(extra, threshold.dtype) >= threshold)

    def weight(self, k: Array, dtype: Any) -> Array:
        extra = jnp.maximum(k - self.exact_terms, 0)
        return jnp.where(extra == 0, 1, jnp.exp(-self.stopping.log_survival(extra, dtype)))

    def value_and_log_det(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        keys = jax.random.split(_required("RussianRoulette", key), self.probes)

        def run(key: Array) -> tuple[Array, Array]:
            ours, theirs = jax.random.split(key)
            v = draw_probes(ours, as_wide(x), self.distribution, event_ndim)
            return self.estimate(function, x, v, _log_uniform(theirs, v.dtype), event_ndim)

        if self.probes == 1:
            return run(keys[0])
        y, log_dets = jax.vmap(run, out_axes=(None, 0))(keys)
        return y, jnp.mean(log_dets, axis=0)


def _required(name: str, key: Array | None) -> Array:
    if key is None:
        raise ValueError(f"{name} draws random numbers; give it a key")
    return key


def _log_uniform(key: Array, dtype: Any) -> Array:
    """log u of u uniform on (0, 1], to 64 bits: N has tails beyond what 24 bits can draw."""
    high, low = jax.random.bits(key, (2,), jnp.uint32).astype(dtype)
    return jnp.log((high + (low + 1) * 2.0**-32) * 2.0**-32)
