"""A step of training, and the compiled loop that takes many in one call."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jflow.data.batches import Batch
from jflow.functional.sharding import Placement
from jflow.train.objectives import MOVING, Moving, Objective

# What a step tells: "loss", before it; "grad_norm", before clipping; "taken", whether to go on.
Report = dict[str, Array]


class State(NamedTuple):
    """What steps change, and what they leave alone.

    Attributes:
      step: how many steps have been taken.
      total: how many there are to be.
      params: the collection "params".
      average: their exponential moving average, or None.
      opt_state: of the optimiser.
      moving: the collections that move with the data.
      constants: the other collections.
      skipped: of these steps, those whose loss or gradient was not finite: they changed nothing.
      in_a_row: how many of the latest steps were such.
    """

    step: Array
    total: Array
    params: Any
    average: Any
    opt_state: Any
    moving: Moving
    constants: Mapping[str, Any]
    skipped: Array
    in_a_row: Array

    @property
    def variables(self) -> dict[str, Any]:
        """All collections, with the averages of parameters, if there are any."""
        params = self.params if self.average is None else self.average
        return {"params": params, **self.constants, **self.moving}


class Step(Protocol):
    """One step; hashable, and with an equal one the loop is not compiled again."""

    def start(self, variables: Mapping[str, Any]) -> State:
        """The state before the first step."""
        ...

    def placed(self, placement: Placement) -> Self:
        """The same step with its state on the devices of a mesh."""
        ...

    def fingerprint(self) -> Any:
        """What a run may not be resumed without, as JSON can hold it."""
        ...

    def __call__(self, state: State, batch: Batch, key: Array) -> tuple[State, Report]:
        """The state after a step on a batch."""
        ...


@dataclass(frozen=True)
class GradientStep:
    """A step of an optimizer on the gradient of the weighted mean loss of a batch.

    A step whose loss or gradient is not finite changes nothing.

    Attributes:
      objective: what is minimised.
      optimizer: any optax optimizer; the same object from call to call, or it compiles again.
      average: the decay of an exponential moving average of parameters; None for none.
      max_skipped: how many steps in a row may be skipped; the next is not taken.
      part: of parameters {part: ..., other: ...}, the one that is trained; None for all.
      falls: whether updates shrink by half a cosine, to nothing after the last step.
      placement: where the state stays; `train` sees to it.

    Raises:
      ValueError: `max_skipped` or `average` out of range.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    average: float | None = None
    max_skipped: int = 0
    part: str | None = None
    falls: bool = False
    placement: Placement = field(default_factory=Placement)

    def __post_init__(self) -> None:
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(
                f"average, or ema_decay, must be in [0, 1) or None; got {self.average}"
            )
        if self.max_skipped < 0:
            raise ValueError(f"max_skipped must be 0 or more; got {self.max_skipped}")

    def placed(self, placement: Placement) -> "GradientStep":
        """The same step with its state on the devices of a mesh."""
        return replace(self, placement=placement)

    def fingerprint(self) -> Any:
        """What a run may not be resumed without; numbers may change."""
        averaged = self.average is not None
        return {"objective": self.objective.fingerprint(), "part": self.part, "average": averaged}

    def start(self, variables: Mapping[str, Any]) -> State:
        """The state before the first step.

        Raises:
          ValueError: there are no such parameters.
        """
        params = variables.get("params", {})
        if "params" not in variables or (self.part is not None and self.part not in params):
            what = "the collection 'params'" + (f" with a part {self.part!r}" if self.part else "")
            raise ValueError(f"variables must have {what}; got {sorted(variables)}, {[*params]}")
        moving = {name: variables[name] for name in MOVING if name in variables}
        rest = {n: v for n, v in variables.items() if n not in ("params", *MOVING)}
        average = None if self.average is None else params
        zero = jnp.zeros((), jnp.int32)
        opt_state = self.optimizer.init(self._own(params))
        return State(zero, zero, params, average, opt_state, moving, rest, zero, zero)

    def __call__(self, state: State, batch: Batch, key: Array) -> tuple[State, Report]:
        """The state after a step on a batch."""

        def loss(own: Any) -> tuple[Array, Moving]:
            params = own if self.part is None else {**state.params, self.part: own}
            variables = {"params": params, **state.constants, **state.moving}
            losses, moved = self.objective.losses(variables, batch.values, key, training=True)
            return weighted_mean(losses, batch.weights), moved

        with self.placement.context():
            (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(self._own(state.params))
        with jax.numpy_dtype_promotion("standard"):  # parameters may be of several dtypes
            norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        taken = finite | (state.in_a_row < self.max_skipped)
        changing = (state.params, state.average, state.opt_state, state.moving)
        changed = lax.cond(
            finite,
            lambda given: self._updated(given, grads, moved, state, value, lambda p: loss(p)[0]),
            lambda given: given,
            changing,
        )
        step = state.step + taken.astype(jnp.int32)
        state = state._replace(
            step=step, params=changed[0], average=changed[1], opt_state=changed[2],
            moving=changed[3],
        )  # fmt: skip
        if self.max_skipped:
            miss = (~finite & taken).astype(jnp.int32)
            in_a_row = jnp.where(finite, 0, state.in_a_row + miss)
            state = state._replace(skipped=state.skipped + miss, in_a_row=in_a_row)
        return self.placement.constrain(state), {"loss": value, "grad_norm": norm, "taken": taken}

    def _own(self, params: Any) -> Any:
        return params if self.part is None else params[self.part]

    def _updated(
        self, changing: Any, grads: Any, moved: Moving, state: State, value: Array,
        value_fn: Callable[[Any], Array],
    ) -> Any:  # fmt: skip
        params, average, opt_state, moving = changing
        own = self._own(params)
        # What some optimisers ask for: a line search, or a rate that falls where the loss does not.
        extra = {"value": value, "grad": grads, "value_fn": value_fn}
        # Optax relies on implicit promotion, which the user may have switched off.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            update = optax.with_extra_args_support(self.optimizer).update
            updates, opt_state = update(grads, opt_state, own, **extra)
            if self.falls:  # in a schedule, `total` would be compiled in
                share = jnp.cos(jnp.pi / 2 * jnp.minimum(state.step / state.total, 1)) ** 2
                updates = jax.tree.map(lambda u: (share * u).astype(u.dtype), updates)
            own = optax.apply_updates(own, updates)
            params = own if self.part is None else {**params, self.part: own}
            if average is not None:
                # The decay grows from 2/11 to its value, so that averages forget the start.
                decay = jnp.minimum(self.average or 0, (2 + state.step) / (11 + state.step))
                mean = optax.incremental_update(own, self._own(average), 1 - decay)
                average = mean if self.part is None else {**average, self.part: mean}
        return params, average, opt_state, {**moving, **moved}


@dataclass(frozen=True)
class AlternatingStep:
    """Two steps in turn, each on its part of the parameters, as adversaries take them.

    The state's parameters are a dict with both parts, and the objective of each sees all.

    Attributes:
      first: of one part (`gradient_step(..., part="critic")`); it takes `times` steps on end.
      second: of another; it takes the one after them.
      times: see `first`.

    Raises:
      ValueError: they are not of two parts, or `times` is below 1.
    """

    first: GradientStep
    second: GradientStep
    times: int = 1

    def __post_init__(self) -> None:
        one, other = self.first.part, self.second.part
        if one is None or other is None or one == other or self.times < 1:
            raise ValueError(
                "alternating needs steps of two parts of the parameters, gradient_step(..., part=)"
                f", and times of 1 or more; got {one!r}, {other!r}, {self.times}"
            )

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


gradient_step = GradientStep
alternating = AlternatingStep


def weighted_mean(losses: Array, weights: Array | None) -> Array:
    """The mean of losses, each times its weight; weights have mean 1 over all examples."""
    return jnp.mean(losses if weights is None else losses * weights.astype(losses.dtype))


@partial(jax.jit, static_argnames="step", donate_argnames="state")
def advance(
    state: State, examples: Batch, index: Array, count: Array, key: Array, *, step: Step
) -> tuple[State, Report]:
    """Takes `count` steps, on the batches in the first `count` rows of `index`.

    It is traced, so any number runs the same program: however a run is cut into calls, it is the
    same bit for bit. The given state is used up: its memory becomes that of the new one.

    Returns:
      The state, and what the steps tell: arrays (rows,), NaN for steps not taken; "taken" is how
      many were, fewer than asked if too many in a row were not finite.
    """

    def one(state: State, i: Array) -> tuple[State, Report]:
        batch = jax.tree.map(lambda a: a[index[i]], examples)
        return step(state, batch, jax.random.fold_in(key, state.step))

    def body(carry: tuple[State, Report, Array, Array]) -> tuple[State, Report, Array, Array]:
        state, told, i, _ = carry
        state, report = one(state, i)
        taken = report.pop("taken")
        told = {n: told[n].at[i].set(v.astype(jnp.float32)) for n, v in report.items()}
        return state, told, i + taken.astype(i.dtype), taken

    zero = jnp.zeros((), jnp.int32)
    names = jax.eval_shape(one, state, zero)[1].keys() - {"taken"}
    told = {name: jnp.full(len(index), jnp.nan, jnp.float32) for name in sorted(names)}
    more = lambda carry: (carry[2] < count) & carry[3]  # noqa: E731
    state, told, taken, _ = lax.while_loop(more, body, (state, told, zero, jnp.asarray(True)))
    return state, told | {"taken": taken}
