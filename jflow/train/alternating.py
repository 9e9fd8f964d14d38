"""Two steps in turn, as adversaries take them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.sharding import Placement
from jflow.train.sources import Batch
from jflow.train.steps import GradientStep, Report, State


@dataclass(frozen=True)
class AlternatingStep:
    """Two steps in turn, each on its part of the parameters, as adversaries take them.

    The state's parameters are a dict with both parts, and the objective of each sees all.

    Attributes:
      first: which takes `times` steps on end.
      second: which takes the one after them.
      times: see `first`.
    """

    first: GradientStep
    second: GradientStep
    times: int = 1

    def placed(self, placement: Placement) -> "AlternatingStep":
        """The same with its state on the devices of a mesh."""
        first, second = (step.placed(placement) for step in (self.first, self.second))
        return replace(self, first=first, second=second)

    def fingerprint(self) -> Any:
        """What a run may not be resumed without; numbers may change."""
        return [self.first.fingerprint(), self.second.fingerprint(), self.times]

    def start(self, variables: Mapping[str, Any]) -> State:
        """The state before the first step."""
        one, other = self.first.start(variables), self.second.start(variables)
        average = one.average if other.average is None else other.average
        return one._replace(opt_state=(one.opt_state, other.opt_state), average=average)

    def __call__(self, state: State, batch: Batch, key: Array) -> tuple[State, Report]:
        """The state after the step whose turn it is."""

        def turn(which: int) -> tuple[State, Report]:
            step = (self.first, self.second)[which]
            found, report = step(state._replace(opt_state=state.opt_state[which]), batch, key)
            both = list(state.opt_state)
            both[which] = found.opt_state
            found = found._replace(opt_state=tuple(both))
            nothing = jnp.full_like(report["loss"], jnp.nan)
            losses = [nothing, nothing]
            losses[which] = report["loss"]
            names = (f"{step.part}_loss" for step in (self.first, self.second))
            return found, report | dict(zip(names, losses, strict=True))

        others = state.step % (self.times + 1) == self.times
        return lax.cond(others, lambda: turn(1), lambda: turn(0))


def alternating(first: GradientStep, second: GradientStep, times: int = 1) -> AlternatingStep:
    """`times` steps of the first, then one of the second, and so on, as adversaries take them.

    Args:
      first: of one part of the parameters (`gradient_step(..., part="critic")`).
      second: of another.
      times: steps of the first for each of the second.

    Raises:
      ValueError: they are not of two parts, or `times` is below 1.
    """
    if first.part is None or second.part is None or first.part == second.part or times < 1:
        raise ValueError(
            "alternating needs steps of two parts of the parameters, gradient_step(..., part=), "
            f"and times of 1 or more; got {first.part!r}, {second.part!r}, {times}"
        )
    return AlternatingStep(first, second, times)
