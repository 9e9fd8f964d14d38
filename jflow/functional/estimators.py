"""How traces and log-determinants of Jacobians are found: exactly, or by random estimates."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from jflow.functional.arguments import check_counts
from jflow.functional.traces import (
    Distribution,
    Estimated,
    check_distribution,
    exact_trace,
    hutch_pp,
    hutchinson,
    xtrace,
)

# Of (*batch, *event) to the same, each element of the batch by itself.
Function: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class Estimator:
    """What a layer's estimator of traces or of log-determinants tells.

    A layer holds one in a field; `Density.with_estimator` exchanges it.

    Attributes:
      estimates: what it finds, in words.
    """

    estimates: ClassVar[str]

    @property
    @abstractmethod
    def kind(self) -> Literal["exact", "unbiased", "biased"]:
        """What the result is: "exact", "unbiased" (random), or "biased" (truncated)."""

    @property
    def needs_key(self) -> bool:
        """Whether it draws."""
        return self.kind != "exact"

    def with_terms(self, terms: int) -> Self:
        """The same with so many terms taken for certain, where it is a series."""
        return self


@dataclass(frozen=True)
class TraceEstimator(Estimator):
    """How to find tr J, J the Jacobian of a function g: `ExactTrace`, `Hutchinson`, `XTrace`..."""

    estimates = "traces"

    @property
    def kind(self) -> Literal["exact", "unbiased", "biased"]:
        return "unbiased"

    def value_and_trace(
        self, function: Function, x: Array, key: Array | None = None, event_ndim: int = 1
    ) -> tuple[Array, Array]:
        """g(x), and tr J at x: (*batch).

        Args:
          function: g, from (*batch, *event) to the same, each element of the batch by itself.
          x: where.
          key: a JAX random key, for those that draw. With the same one, it is the same function
            of x, as a solver of ODEs needs it.
          event_ndim: how many trailing axes are the event.

        Raises:
          ValueError: it draws, and there is no key.
        """
        if key is None and self.needs_key:
            raise ValueError(f"{type(self).__name__} draws random numbers; give it a key")
        y, push = jax.linearize(function, x)
        return y, self._trace(push, x, key, event_ndim).mean

    @abstractmethod
    def _trace(self, push: Function, x: Array, key: Array | None, event_ndim: int) -> Estimated:
        """tr J, given v to J v."""


@dataclass(frozen=True)
class ExactTrace(TraceEstimator):
    """From D products, one for each number of an event, all at once."""

    @property
    def kind(self) -> Literal["exact"]:
        return "exact"

    def _trace(self, push: Function, x: Array, key: Array | None, event_ndim: int) -> Estimated:
        trace = exact_trace(push, x, event_ndim)
        return Estimated(trace, jnp.zeros_like(trace))


@dataclass(frozen=True)
class Hutchinson(TraceEstimator):
    """The mean of v^T J v over random probes v; see `jflow.functional.hutchinson`.

    Attributes:
      probes: how many.
      distribution: of the probes: "rademacher", "gaussian" or "spherical".
    """

    probes: int = 1
    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        check_counts("Hutchinson", probes=self.probes)
        check_distribution("Hutchinson", self.distribution)

    def _trace(self, push: Function, x: Array, key: Array | None, event_ndim: int) -> Estimated:
        options = {"probes": self.probes, "distribution": self.distribution}
        return hutchinson(push, x, key, event_ndim=event_ndim, **options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class HutchPP(TraceEstimator):
    """Hutch++: see `jflow.functional.hutch_pp`.

    Attributes:
      products: how many products in all, 3 or more.
    """

    products: int = 9

    def __post_init__(self) -> None:
        check_counts("HutchPP", 3, products=self.products)

    def _trace(self, push: Function, x: Array, key: Array | None, event_ndim: int) -> Estimated:
        return hutch_pp(push, x, key, products=self.products, event_ndim=event_ndim)  # type: ignore[arg-type]


@dataclass(frozen=True)
class XTrace(TraceEstimator):
    """XTrace: see `jflow.functional.xtrace`.

    Attributes:
      products: how many products in all, 2 or more.
    """

    products: int = 8

    def __post_init__(self) -> None:
        check_counts("XTrace", 2, products=self.products)

    def _trace(self, push: Function, x: Array, key: Array | None, event_ndim: int) -> Estimated:
        return xtrace(push, x, key, products=self.products, event_ndim=event_ndim)  # type: ignore[arg-type]
