"""The same flow, computed in another way: other estimators and solvers in its layers."""

from collections.abc import Callable
from typing import Any, TypeVar

from jflow.bijectors.base import Bijector, rebuild
from jflow.distributions.flow import Flow
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


def exchange_solvers(flow: Any, solver: Solver) -> Any:
    """The flow with another solver for all evaluations of continuous layers.

    Raises:
      TypeError: it is none, or the flow has no such layers.
    """
    if not isinstance(solver, Solver):
        raise TypeError(
            "with_solver: solver must be a solver of jflow.functional, such as FixedGrid(4) or "
            f"Adaptive(1e-4); got {solver!r}"
        )
    met: list[Solver] = []

    def change(name: str, value: Any) -> Any:
        if name != "evaluation" or not isinstance(value, Solver):
            return value
        met.append(value)
        return solver

    changed = rebuild(flow, change)
    if not met:
        raise TypeError("with_solver: no layer of this flow is Continuous, and has a solver")
    return changed
