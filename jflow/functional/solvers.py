"""Solvers of ordinary differential equations: a fixed grid to train on, adaptive steps to trust."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arguments import check_counts
from jflow.functional.arrays import over_event, wide_dtype
from jflow.functional.ode import ADAPTIVE_NAMES, Field, check_method, integrate, method, of_diffrax


class Solved(NamedTuple):
    """The end of a solve.

    Attributes:
      y: the state there; NaN where steps ran out.
      steps: how many were taken, and accepted; of a batch, the most of any element.
      evaluations: of the field, for all of these and those that were refused.
    """

    y: Any
    steps: Array
    evaluations: Array


@dataclass(frozen=True)
class Solver:
    """How an ordinary differential equation is solved: `FixedGrid` or `Adaptive`."""

    @abstractmethod
    def others(self, dtype: Any) -> tuple[tuple[Self, float], tuple[Self, float]]:
        """Two others, and by how much the differences from their results bound the error of this.

        Two, because differences change sign, and are zero somewhere.
        """

    @abstractmethod
    def solve(self, field: Field, y: Any, start: Array, end: Array, batch_ndim: int) -> Solved:
        """The state at `end`, of the one at `start`.

        Args:
          field: dy/dt of (t, y); a pytree, if it holds arrays (`jax.tree_util.Partial`).
          y: an array, or a pytree of arrays (*batch, ...).
          start: a time, in the dtype of y.
          end: another one, before or after.
          batch_ndim: how many leading axes are batch.
        """


@dataclass(frozen=True)
class FixedGrid(Solver):
    """So many steps of equal length: fast to train on, and of an error that nobody controls.

    Attributes:
      steps: how many.
      method: "euler", "midpoint", "heun", "rk4", "tsit5", "dopri5" or "dopri8".
      memory: what the backward pass has: "remat", the states between steps, of which it computes
        each step again; or "store", all that steps compute, which takes much memory, and on CPUs
        two to three times the time.
    """

    steps: int = 24
    method: str = "rk4"
    memory: Literal["remat", "store"] = "remat"

    def __post_init__(self) -> None:
        check_counts("FixedGrid", steps=self.steps)
        check_method("FixedGrid", self.method)
        if self.memory not in ("remat", "store"):
            raise ValueError(f"FixedGrid: memory must be 'remat' or 'store'; got {self.memory!r}")

    def others(self, dtype: Any) -> tuple[tuple[Self, float], tuple[Self, float]]:
        """The same with twice the steps, and with half of them."""
        finer = replace(self, steps=2 * self.steps), 2.0
        if self.steps == 1:
            return finer, (replace(self, steps=3), 2.0)
        order = method(self.method).order
        return finer, (replace(self, steps=self.steps // 2), 2 / (2**order - 1))

    def solve(self, field: Field, y: Any, start: Array, end: Array, batch_ndim: int) -> Solved:
        scheme = method(self.method)
        fractions = jnp.arange(self.steps + 1, dtype=start.dtype) / self.steps
        times = start + (end - start) * fractions
        end_state = integrate(field, y, times, scheme, store=self.memory == "store")
        count = jnp.int32(self.steps)
        return Solved(end_state, count, count * len(scheme.nodes))


@dataclass(frozen=True)
class Adaptive(Solver):
    """Steps as long as a tolerance allows, by Diffrax: for likelihoods and samples to rely on.

    Each element of a batch has its own steps, so that what comes of it does not depend on the
    others, and one that needs more than `max_steps` is lost alone. Without `own_steps`, they are
    those of the batch: as short as its most difficult element asks. Derivatives, of any order and
    mode, are those of the steps that were taken, held where they are.

    Attributes:
      tolerance: what the error of a step is at most, relative to 1 + |y|: None for 1e-6 in
        float32 and 1e-11 in float64; four units of rounding at least.
      method: "tsit5", "dopri5" or "dopri8"; None for "tsit5" in float32 and "dopri8" in float64.
      max_steps: NaN comes out where they do not suffice.
      own_steps: whether each element of a batch has its own steps (of a bijector; a `solve` itself
        is of one state).

    Reference: Kidger, 2021, https://arxiv.org/abs/2202.02435
    """

    tolerance: float | None = None
    method: str | None = None
    max_steps: int = 256
    own_steps: bool = True

    def __post_init__(self) -> None:
        check_counts("Adaptive", max_steps=self.max_steps)
        if not isinstance(self.own_steps, bool):
            raise ValueError(f"Adaptive: own_steps must be True or False; got {self.own_steps!r}")
        own = self.tolerance
        if own is not None and not (isinstance(own, int | float) and 0 < own < 1):
            raise ValueError(
                "Adaptive: tolerance must be a number above 0 and below 1, such as 1e-5, or None; "
                f"got {own!r}"
            )
        if self.method not in (None, *ADAPTIVE_NAMES):
            raise ValueError(
                "Adaptive: method must be 'tsit5', 'dopri5' or 'dopri8', which estimate their "
                f"errors, or None; got {self.method!r}"
            )

    def tolerance_of(self, dtype: Any) -> float:
        """The tolerance in computations of that dtype."""
        precision = jnp.finfo(wide_dtype(dtype))
        own = self.tolerance or (1e-11 if precision.bits > 32 else 1e-6)
        return max(own, 4 * float(precision.eps))

    def others(self, dtype: Any) -> tuple[tuple[Self, float], tuple[Self, float]]:
        """The same with 10 and 100 times the tolerance; errors are about proportional to it."""
        own = self.tolerance_of(dtype)
        return (replace(self, tolerance=10 * own), 2.0), (replace(self, tolerance=100 * own), 0.2)

    def solve(self, field: Field, y: Any, start: Array, end: Array, batch_ndim: int) -> Solved:
        name = self.method
        if name is None:
            name = "tsit5" if start.dtype == jnp.float32 else "dopri8"
        settled = _Settled(self.tolerance_of(start.dtype), name, self.max_steps, batch_ndim)
        # What is not finite would stop the steps of the whole batch.
        lost = jnp.any(jnp.stack([_lost(a, batch_ndim) for a in jax.tree.leaves(y)]), axis=0)
        inside = jax.tree.map(lambda a: jnp.where(over_event(lost, a), 0, a), y)
        y, *counts = _solve(settled, field, inside, start, end)
        return Solved(
            jax.tree.map(lambda a: jnp.where(over_event(lost, a), jnp.nan, a), y), *counts
        )


@dataclass(frozen=True)
class MeanSteps(Solver):
    """So many steps along mean velocities, of layers that know them: samples in one step, or a few.

    Each step goes where the mean velocity over its length tells, and not where the field does, so
    that few are enough, if `train.MeanFlow` has taught these velocities
    (`flows.flow_matching(features, mean_velocities=True)`). The steps are a flow of their own,
    whose log p is exact, by their Jacobians, of up to 1,024 numbers an event; latents are found by
    Newton's method. NaN comes out, and outside of jit an error, where a step is no bijection.

    Attributes:
      steps: how many.

    Reference: Geng et al., 2025, https://arxiv.org/abs/2505.13447
    """

    steps: int = 1

    def __post_init__(self) -> None:
        check_counts("MeanSteps", steps=self.steps)

    def others(self, dtype: Any) -> tuple[tuple[Self, float], tuple[Self, float]]:
        """Itself, for nothing is approximated."""
        return (self, 0.0), (self, 0.0)

    def solve(self, field: Field, y: Any, start: Array, end: Array, batch_ndim: int) -> Solved:
        raise TypeError(
            "MeanSteps: a field has no mean velocities; the layer Continuous(net, "
            "mean_velocities=True) has"
        )


@dataclass(frozen=True)
class _Settled:
    """What `Adaptive` comes to, in one dtype."""

    tolerance: float
    method: str
    max_steps: int
    batch_ndim: int


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(
    how: _Settled, field: Field, y: Any, start: Array, end: Array
) -> tuple[Any, Array, Array]:
    y, _, steps, evaluations = _run(how, field, y, start, end)
    return y, steps, evaluations


@_solve.defjvp
def _solve_jvp(how: _Settled, primals: Any, tangents: Any) -> Any:
    """The derivative of the steps that were taken, which themselves are constant."""
    field, y, _, end = primals
    _, times, steps, evaluations = _run(how, *lax.stop_gradient(primals))
    scheme = method(how.method)
    whole = jnp.where(times[-1] == end, 1, jnp.nan)

    def replay(field: Field, y: Any) -> Any:
        moved = integrate(field, y, times, scheme, skip=True)
        return jax.tree.map(lambda a: a * whole.astype(a.dtype), moved)

    value, moved = jax.jvp(replay, (field, y), tangents[:2])
    still = jax.tree.map(lambda a: jnp.zeros(a.shape, jax.dtypes.float0), (steps, evaluations))
    return (value, steps, evaluations), (moved, *still)


def _run(
    how: _Settled, field: Field, y: Any, start: Array, end: Array
) -> tuple[Any, Array, Array, Array]:
    """The end, the times of the steps (max_steps + 1,), and the counts."""
    import diffrax  # takes a second

    control = diffrax.PIDController(
        rtol=how.tolerance, atol=how.tolerance, norm=partial(_largest, how.batch_ndim),
        pcoeff=0.3, icoeff=0.4,
    )  # fmt: skip
    ends = diffrax.SubSaveAt(t1=True)
    times = diffrax.SubSaveAt(t0=True, steps=True, fn=lambda t, y, args: t)
    # Diffrax mixes dtypes and ranks; the field may not.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, field: field(t, y)), of_diffrax(how.method),
            start, end, None, y, field, saveat=diffrax.SaveAt(subs=[ends, times]),
            stepsize_controller=control, adjoint=diffrax.ForwardMode(),
            max_steps=how.max_steps, throw=False,
        )  # fmt: skip
    taken = found.stats["num_steps"]
    ends, times = found.ys  # type: ignore[misc]
    last = jax.tree.map(lambda a: a[-1], ends)
    good = found.result == diffrax.RESULTS.successful
    last = jax.tree.map(lambda a: jnp.where(good, a, jnp.nan), last)
    # Steps that were not needed have no length; where all did not do, there is no end.
    times = jnp.where(jnp.isfinite(times), times, jnp.where(good, end, jnp.nan))
    stages = len(method(how.method).nodes)
    return last, times.astype(start.dtype), found.stats["num_accepted_steps"], taken * stages


def _lost(a: Array, batch_ndim: int) -> Array:
    """Which elements of the batch are not finite."""
    return ~jnp.all(jnp.isfinite(a), axis=tuple(range(batch_ndim, a.ndim)))


def _largest(batch_ndim: int, tree: Any) -> Array:
    """Of errors, the root mean square of each state of each element of the batch: the largest."""

    def of(a: Array) -> Array:
        square = jnp.mean(jnp.square(a), axis=tuple(range(batch_ndim, a.ndim)))
        return jnp.max(square, initial=0.0)

    return jnp.sqrt(jnp.max(jnp.stack([of(a) for a in jax.tree.leaves(tree)])))
