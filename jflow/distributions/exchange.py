"""The same flow, computed in another way: other estimators and solvers in its layers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, TypeVar

from jflow.bijectors.autoregressive import Jacobi
from jflow.bijectors.base import Bijector
from jflow.bijectors.walk import rebuild
from jflow.distributions.flow import Flow
from jflow.functional.arguments import check_numbers
from jflow.functional.estimators import Estimator
from jflow.functional.solvers import Solver

Node = TypeVar("Node", bound=Flow | Bijector)


def replace_estimators(module: Node, change: Callable[[Estimator], Estimator]) -> Node:
    """The module with every estimator in it changed; variables stay valid."""
    return rebuild(module, lambda _, v: change(v) if isinstance(v, Estimator) else v)


def exchange_estimators(flow: Any, estimator: Estimator) -> Any:
    """The flow with all estimators of what this one estimates exchanged for it.

    Raises:
      TypeError: it is none, or the flow has estimators, but none of that.
    """
    if not isinstance(estimator, Estimator):
        raise TypeError(
            "with_estimator: estimator must be an estimator, such as ExactLogDet() of "
            f"log-determinants or ExactTrace() of traces; got {estimator!r}"
        )
    met: list[Estimator] = []

    def change(old: Estimator) -> Estimator:
        met.append(old)
        return estimator if old.estimates == estimator.estimates else old

    changed = replace_estimators(flow, change)
    if met and all(old.estimates != estimator.estimates for old in met):
        raise TypeError(
            f"with_estimator: the layers of this flow estimate {met[0].estimates}, as {met[0]!r} "
            f"does; got {estimator!r}, which estimates {estimator.estimates}"
        )
    return changed


def exchange_solvers(flow: Any, solver: Solver | Jacobi) -> Any:
    """The flow with another solver: of all evaluations of continuous layers, or autoregressive.

    Raises:
      TypeError: it is none, or the flow has no such layers.
    """
    if not isinstance(solver, Solver | Jacobi):
        raise TypeError(
            "with_solver: solver must be a solver of jflow.functional, such as FixedGrid(4) or "
            f"Adaptive(1e-4), or jflow.bijectors.Jacobi(); got {solver!r}"
        )
    sweeps, met = isinstance(solver, Jacobi), 0

    def change(name: str, value: Any) -> Any:
        nonlocal met
        if sweeps:
            ours = name == "solver" and (value is None or isinstance(value, Jacobi))
        else:
            ours = name == "evaluation" and isinstance(value, Solver)
        met += ours
        return solver if ours else value

    changed = rebuild(flow, change)
    if not met:
        kind = "is autoregressive" if sweeps else "is Continuous, and has a solver"
        raise TypeError(f"with_solver: no layer of this flow {kind}; got {solver!r}")
    return changed


def exchange_guidance(flow: Any, guidance: float) -> Any:
    """The flow with another weight of the context in layers with guidance.

    Raises:
      TypeError: the flow has no layers with guidance.
      ValueError: that is no number.
    """
    check_numbers("with_guidance", guidance=guidance)
    met: list[float] = []

    def change(name: str, value: Any) -> Any:
        if name != "guidance" or value is None:
            return value
        met.append(value)
        return guidance

    changed = rebuild(flow, change)
    if not met:
        raise TypeError(
            "with_guidance: no layer of this flow is also trained without its context; build it "
            "with guidance, as flows.flow_matching(..., guidance=1.0) and flows.tarflow(..., "
            "guidance=1.0) do, and fit it anew"
        )
    return changed


def guidance_of(flow: Any) -> list[float]:
    """The weights of layers that are also to be trained without their context."""
    met: list[Any] = []

    def look(name: str, value: Any) -> Any:
        if name == "guidance" and value is not None:
            met.append(value)
        return value

    rebuild(flow, look)
    return met


class Exchangeable:
    """What a density is when its flow is computed in another way; a part of `Density`."""

    flow: Any

    def with_estimator(self, estimator: Estimator) -> Self:
        """The same density with log-determinants, or traces, of its layers found in another way.

        `density.with_estimator(ExactLogDet()).log_prob(y)` is exact, by D products a layer. A
        `LogDetEstimator` takes the place of such, and a `TraceEstimator` of such.

        Raises:
          TypeError: that is no estimator, or the layers estimate something else.
        """
        return replace(self, flow=exchange_estimators(self.flow, estimator))  # type: ignore[type-var]

    def with_solver(self, solver: Solver | Jacobi) -> Self:
        """The same density with its layers solved in another way.

        Of continuous layers, log p and samples alike: `FixedGrid(4, "midpoint")` is fast,
        `Adaptive(1e-8)` accurate. Of autoregressive ones, their slow direction, by sweeps over all
        positions, or blocks of them, at once: `Jacobi(1e-5)`, `Jacobi(1e-5, block=16)`, where
        `block` counts tokens, or, of `nets.TwoLevel` (`flows.tarflow`), numbers.

        Raises:
          TypeError: that is no solver, or no layer is of that kind.
          ValueError: `MeanSteps` for a layer that has no mean velocities.
        """
        return replace(self, flow=exchange_solvers(self.flow, solver))  # type: ignore[type-var]

    def with_guidance(self, guidance: float) -> Self:
        """A density whose samples follow their context more (above 1), or less (0: not at all).

        Its log p is that of these samples; see `guidance` of `jflow.bijectors.Continuous` and
        `MaskedAutoregressive`.

        Raises:
          TypeError: the flow was not built with guidance.
          ValueError: that is no number.

        Reference: Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598
        """
        return replace(self, flow=exchange_guidance(self.flow, guidance))  # type: ignore[type-var]
