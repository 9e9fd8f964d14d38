"""The compiled training loop: many steps in one call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jflow.train.sharding import Placement

# Collections that training moves by what it sees, not by gradients.
MOVING = ("batch_stats", "lipschitz")
Moving: TypeAlias = Mapping[str, Any]


class State(NamedTuple):
    """What a step changes.

    Attributes:
      step: how many steps have been taken.
      params: the collection "params".
      average: their exponential moving average, or None.
      opt_state: of the optimiser.
      moving: the collections of `MOVING` that there are.
      skipped: of these steps, those whose loss or gradient was not finite: they changed nothing.
      in_a_row: how many of the latest steps were such.
    """

    step: Array
    params: Any
    average: Any
    opt_state: Any
    moving: Moving
    skipped: Array
    in_a_row: Array


class Report(NamedTuple):
    """What a call of `run` did.

    Attributes:
      steps: how many steps it took, those skipped among them; fewer than asked if too many in a
        row were not finite.
      loss: (n,), the loss before each step; NaN for those not taken.
      grad_norm: (n,), the global norm of the gradient, before clipping.
    """

    steps: Array
    loss: Array
    grad_norm: Array


# The loss to minimise: (variables, examples, indices of the batch, key) to a scalar, and to the new
# values of the collections that move.
Objective = Callable[[Any, Any, Array, Array], tuple[Array, Moving]]


@dataclass(frozen=True)
class Rules:
    """How a step is taken; with equal ones, `run` is compiled once.

    Attributes:
      objective: what is minimised.
      optimizer: by what.
      ema_decay: of the average of parameters, if there is one.
      falls: whether updates shrink by half a cosine, to nothing after the last step.
      max_skipped: a step whose loss or gradient is not finite is skipped: parameters stay. After so
        many of them in a row the next is not taken, and the loop stops.
      placement: where the state stays.

    Raises:
      ValueError: `max_skipped` or `ema_decay` out of range.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    ema_decay: float | None = None
    falls: bool = False
    max_skipped: int = 0
    placement: Placement = field(default_factory=Placement)

    def __post_init__(self) -> None:
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), or None; got {self.ema_decay}")
        if self.max_skipped < 0:
            raise ValueError(f"max_skipped must be 0 or more; got {self.max_skipped}")


def start(variables: Any, rules: Rules) -> State:
    """The state before the first step, in arrays of its own, for `run` to use up."""
    params = jax.tree.map(jnp.copy, variables["params"])
    average = None if rules.ema_decay is None else jax.tree.map(jnp.copy, params)
    moving = {name: variables[name] for name in MOVING if name in variables}
    moving = jax.tree.map(jnp.copy, moving)
    zeros = (jnp.zeros((), jnp.int32) for _ in range(3))  # each its own, to be used up
    return State(next(zeros), params, average, rules.optimizer.init(params), moving, *zeros)


def constant(variables: Any) -> dict[str, Any]:
    """The collections that training leaves alone."""
    return {name: v for name, v in variables.items() if name not in ("params", *MOVING)}


@partial(jax.jit, static_argnames="rules", donate_argnames="state")
def run(
    state: State,
    constants: Any,
    examples: Any,
    index: Array,
    steps: Array,
    total: Array,
    key: Array,
    *,
    rules: Rules,
) -> tuple[State, Report]:
    """Takes `steps` steps of `total`, on the batches in the first `steps` rows of `index`.

    Both are traced, so any numbers run the same program: however a run is cut into calls, it is the
    same bit for bit. The given state is used up: its memory becomes that of the new one.
    """

    def loss(params: Any, moving: Moving, batch: Array, key: Array) -> tuple[Array, Moving]:
        return rules.objective({"params": params, **constants, **moving}, examples, batch, key)

    def step(carry: tuple[State, Report, Array]) -> tuple[State, Report, Array]:
        state, report, _ = carry
        i = report.steps
        step_key = jax.random.fold_in(key, state.step)
        with rules.placement.context():
            (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(
                state.params, state.moving, index[i], step_key
            )
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        taken = finite | (state.in_a_row < rules.max_skipped)
        again = lambda s, params: loss(params, s.moving, index[i], step_key)[0]  # noqa: E731
        update = lambda s: _updated(s, grads, moved, rules, total, value, partial(again, s))  # noqa: E731
        state = lax.cond(finite, update, lambda s: s, state)
        if rules.max_skipped:
            state = _counted(state, finite, taken)
        state = rules.placement.constrain(state)
        losses = report.loss.at[i].set(value.astype(jnp.float32))
        norms = report.grad_norm.at[i].set(norm.astype(jnp.float32))
        return state, Report(i + taken.astype(i.dtype), losses, norms), taken

    empty = jnp.full(len(index), jnp.nan, jnp.float32)
    first = (state, Report(jnp.zeros((), jnp.int32), empty, empty), jnp.asarray(True))
    return lax.while_loop(lambda carry: (carry[1].steps < steps) & carry[2], step, first)[:2]


def _updated(
    state: State,
    grads: Any,
    moved: Moving,
    rules: Rules,
    total: Array,
    value: Array,
    value_fn: Callable[[Any], Array],
) -> State:
    # What some optimisers ask for: a line search, or a rate that falls where the loss does not.
    extra = {"value": value, "grad": grads, "value_fn": value_fn}
    # Optax relies on implicit promotion, which the user may have switched off.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        update = optax.with_extra_args_support(rules.optimizer).update
        updates, opt_state = update(grads, state.opt_state, state.params, **extra)
        if rules.falls:  # in a schedule, `total` would be compiled in
            share = jnp.cos(jnp.pi / 2 * jnp.minimum(state.step / total, 1)) ** 2
            updates = jax.tree.map(lambda u: (share * u).astype(u.dtype), updates)
        params = optax.apply_updates(state.params, updates)
        step, average = state.step + 1, None
        if rules.ema_decay is not None:
            # The decay grows from 2/11 to its value, so that early averages forget the start.
            decay = jnp.minimum(rules.ema_decay, (1 + step) / (10 + step))
            average = optax.incremental_update(params, state.average, 1 - decay)
    moving = {**state.moving, **moved}
    return state._replace(
        step=step, params=params, average=average, opt_state=opt_state, moving=moving
    )


def _counted(state: State, finite: Array, taken: Array) -> State:
    """The state with a step that was skipped counted, where there was one."""
    miss = (~finite & taken).astype(jnp.int32)
    return state._replace(
        step=state.step + miss,
        skipped=state.skipped + miss,
        in_a_row=jnp.where(finite, 0, state.in_a_row + miss),
    )
