"""log|det(I + J)| of a contraction's Jacobian J, known by its products with vectors alone."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align, as_wide, batch_shape, sum_event
from jflow.functional.stopping import Logarithmic, Stopping
from jflow.functional.traces import (
    Distribution,
    Estimated,
    draw_probes,
    mean_and_error,
    standard_basis,
)

# So many products are written out: XLA:CPU differentiates them twice as fast as mapped ones.
_FEW = 4
# Of (*batch, *event) to the same, each element of the batch by itself.
Function: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class LogDetEstimator:
    """How to find log|det(I + J)|, J the Jacobian of a function g of Lipschitz constant below 1.

    In the operator norm, that is: eigenvalues below 1 are not enough for the steps between layers
    to be invertible.
    """

    @property
    @abstractmethod
    def kind(self) -> Literal["exact", "unbiased", "biased"]:
        """What the result is: "exact", "unbiased" (random), or "biased" (truncated)."""

    @property
    def needs_key(self) -> bool:
        """Whether it draws."""
        return self.kind != "exact"

    @abstractmethod
    def has_finite_variance(self, radius: float) -> bool:
        """Whether the result and its gradients have a finite variance, for eigenvalues up to it."""

    def with_terms(self, terms: int) -> Self:
        """The same with so many terms taken for certain, where it is a series."""
        return self

    @abstractmethod
    def value_and_log_det(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        """g(x), and log|det(I + J)| at x: (*batch), in nats.

        Args:
          function: g, from (*batch, *event) to the same, each element of the batch by itself.
          x: where.
          key: a JAX random key, for those that draw.
          event_ndim: how many trailing axes are the event.
        """


@dataclass(frozen=True)
class ExactLogDet(LogDetEstimator):
    """From the Jacobian itself: D products, and one factorisation of order D^3.

    Attributes:
      max_features: the largest D to take this on for.
      chunk: how many products at once; it bounds memory.

    Raises:
      ValueError: (on call) events of more than `max_features` numbers.
    """

    max_features: int = 1024
    chunk: int = 64

    def __post_init__(self) -> None:
        check_counts("ExactLogDet", max_features=self.max_features, chunk=self.chunk)

    @property
    def kind(self) -> Literal["exact"]:
        return "exact"

    def has_finite_variance(self, radius: float) -> bool:
        return True

    def value_and_log_det(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        size, batch = math.prod(x.shape[x.ndim - event_ndim :]), batch_shape(x, event_ndim)
        if size > self.max_features:
            raise ValueError(
                f"ExactLogDet: {size} numbers an event are {size} products; the limit is "
                f"max_features={self.max_features}. Raise it, or estimate (RussianRoulette)"
            )
        y, push = jax.linearize(function, x)
        basis = standard_basis(x, event_ndim)
        if size <= _FEW:
            columns = jnp.stack([push(vector) for vector in basis])
        elif size <= self.chunk:
            columns = jax.vmap(push)(basis)
        else:
            columns = lax.map(push, basis, batch_size=self.chunk)
        jacobian = jnp.moveaxis(as_wide(columns).reshape(size, *batch, size), 0, -1)
        return y, _log_det(align(jnp.eye(size), jacobian) + jacobian)


def _log_det(matrix: Array) -> Array:
    # A factorisation of many tiny matrices takes far longer than their formulas.
    if matrix.shape[-1] == 1:
        return jnp.log(jnp.abs(matrix[..., 0, 0]))
    if matrix.shape[-1] == 2:
        det = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
        return jnp.log(jnp.abs(det))
    return jnp.linalg.slogdet(matrix)[1]


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
        v = [
            draw_probes(k, as_wide(x), self.distribution, event_ndim)
            for k in jax.random.split(key, self.probes)
        ]
        run = lambda v: self.estimate(function, x, v, jnp.zeros(()), event_ndim)  # noqa: E731
        if self.probes == 1:
            return run(v[0])
        y, log_dets = jax.vmap(run, out_axes=(None, 0))(jnp.stack(v))
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

    stopping: Stopping = Logarithmic()
    exact_terms: int = 2
    probes: int = 1
    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        check_counts("RussianRoulette", exact_terms=self.exact_terms + 1, probes=self.probes)

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


def estimate_log_det(
    estimator: LogDetEstimator,
    function: Function,
    x: Array,
    key: Array,
    *,
    replicates: int = 16,
    event_ndim: int = 1,
) -> Estimated:
    """The mean of independent estimates of log|det(I + J)|, and its standard error, (*batch).

    Args:
      estimator: how to estimate.
      function: g, from (*batch, *event) to the same.
      x: where.
      key: a JAX random key.
      replicates: how many, 2 or more for an error.
      event_ndim: how many trailing axes are the event.
    """
    check_counts("estimate_log_det", replicates=replicates)
    run = lambda key: estimator.value_and_log_det(function, x, key, event_ndim)[1]  # noqa: E731
    return mean_and_error(jax.vmap(run)(jax.random.split(key, replicates)))


def _required(name: str, key: Array | None) -> Array:
    if key is None:
        raise ValueError(f"{name} draws random numbers; give it a key")
    return key


def _log_uniform(key: Array, dtype: Any) -> Array:
    """log u of u uniform on (0, 1], to 64 bits: N has tails beyond what 24 bits can draw."""
    high, low = jax.random.bits(key, (2,), jnp.uint32).astype(dtype)
    return jnp.log((high + (low + 1) * 2.0**-32) * 2.0**-32)
