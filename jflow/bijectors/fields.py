"""What a continuous flow follows: its field, the trace of that, and time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jflow.bijectors.base import Bijector
from jflow.functional.arrays import align, as_wide, sum_event
from jflow.functional.convergence import failed_points
from jflow.functional.estimators import ExactTrace, TraceEstimator
from jflow.functional.solvers import Adaptive, Solved, Solver
from jflow.functional.traces import draw_probes


@dataclass(frozen=True)
class Rules:
    """How the state moves: the event, log|det|, and what the path costs, if that is penalised.

    Without `trace`, the state is the event alone.
    """

    trace: TraceEstimator | None
    frequencies: int
    mean_velocities: bool
    ndim: int
    penalties: tuple[str, ...]
    shares: tuple[Any, ...]

    def __call__(self, functions: Any, contexts: Any, key: Any, t: Array, state: Any) -> Any:
        y, none = state[0], jnp.zeros((), t.dtype) if self.mean_velocities else None
        more = [with_time(t, context, self.frequencies, none) for context in contexts]
        f, closed = functions
        run = lambda y: self._mixed([as_wide(f(y, given)) for given in more])  # noqa: E731
        if self.trace is None:
            return (run(y),)
        by_context: Any = None
        if closed is not None and isinstance(self.trace, ExactTrace):
            found = [tuple(map(as_wide, closed(y, given))) for given in more]
            moved, trace, by_context = map(self._mixed, zip(*found, strict=True))
        else:
            moved, trace = self.trace.value_and_trace(run, y, key, self.ndim)
        costs = {
            "kinetic": lambda: sum_event(jnp.square(moved), self.ndim),
            "jacobian": lambda: self._stretched(run, y, key),
            "hjb": lambda: jnp.abs(by_context[..., -1] + sum_event(jnp.square(moved), 1) / 2),
        }
        return moved, trace, *(costs[name]() for name in self.penalties)

    def mean_velocity(
        self, functions: Any, contexts: Any, t: Array, length: Array, x: Array
    ) -> Array:
        """Over times from t to t + length."""
        (f, _), (context,) = functions, contexts
        return as_wide(f(x, with_time(t, context, self.frequencies, length)))

    def _mixed(self, parts: Sequence[Array]) -> Array:
        """The fields with a context and without, each times its share."""
        if len(parts) == 1:
            return parts[0]
        return sum(share * part for share, part in zip(self.shares, parts, strict=True))  # type: ignore[return-value]

    def _stretched(self, run: Any, y: Array, key: Array) -> Array:
        """An estimate of the squared norm of the Jacobian."""
        probe = draw_probes(jax.random.fold_in(key, 1), y, "rademacher", self.ndim)
        return sum_event(jnp.square(jax.jvp(run, (y,), (probe,))[1]), self.ndim)


def solve(
    solver: Solver, field: Partial, state: Any, start: Array, end: Array, batch: tuple[int, ...]
) -> Solved:
    """The state at `end`, by steps of the batch or, if the solver says so, of each element."""
    apart = isinstance(solver, Adaptive) and solver.own_steps and math.prod(batch) > 0
    if not (apart and batch):
        return solver.solve(field, state, start, end, len(batch))
    functions, contexts, key = field.args
    size, ndim = math.prod(batch), len(batch)
    flat = lambda a: a.reshape(size, *a.shape[ndim:])  # noqa: E731
    each = [context is not None and context.ndim > ndim for context in contexts]
    contexts = [flat(c) if own else c for c, own in zip(contexts, each, strict=True)]
    keys = None if key is None else jax.random.split(key, size)

    def one(state: Any, contexts: Any, key: Any) -> Solved:
        own = Partial(field.func, functions, contexts, key)
        return solver.solve(own, state, start, end, 0)

    axes = (0, [0 if own else None for own in each], None if keys is None else 0)
    found = jax.vmap(one, in_axes=axes)(jax.tree.map(flat, state), contexts, keys)
    end_state = jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), found.y)
    return Solved(end_state, jnp.max(found.steps), jnp.max(found.evaluations))


def with_time(
    t: Array, context: Array | None, frequencies: int, length: Array | None = None
) -> Array:
    """The context (..., C), sines and cosines of t in [0, 1], a length of time, if any, and t."""
    t = t[..., None]
    waves = t * align(jnp.pi * 2 ** jnp.arange(frequencies, dtype=t.dtype), t)
    lengths = [] if length is None else [jnp.broadcast_to(length[..., None], t.shape)]
    time = jnp.concatenate([jnp.sin(waves), jnp.cos(waves), *lengths, t], axis=-1)
    if context is None:
        return time
    leading = jnp.broadcast_shapes(context.shape[:-1], time.shape[:-1])
    parts = (jnp.broadcast_to(a, (*leading, a.shape[-1])) for a in (context.astype(t.dtype), time))
    return jnp.concatenate(list(parts), axis=-1)


def without_lost(x: Array, context: Array | None, batch_ndim: int) -> tuple[Array, Array | None]:
    """Both, where a context is not finite x NaN and the context 0: steps are those of the batch."""
    if context is None:
        return x, None
    own = batch_ndim if context.ndim > batch_ndim else 0  # or one context for all
    lost = ~jnp.all(jnp.isfinite(context), axis=tuple(range(own, context.ndim)), keepdims=True)
    of_x = lost.reshape((*lost.shape[:own], *(1,) * (x.ndim - own)))
    return jnp.where(of_x, jnp.nan, x), jnp.where(lost, 0, context)


def noise_key(layer: Bijector, probed: bool) -> Array | None:
    """What a continuous layer draws probes from, for its trace or the penalty `jacobian`."""
    trace = layer.trace  # type: ignore[attr-defined]
    if not trace.needs_key and not probed:
        return None
    if layer.has_rng("noise"):
        return layer.make_rng("noise")
    if not trace.needs_key:
        raise ValueError(
            "Continuous: the penalty jacobian is estimated at random; give a key: "
            "apply(..., rngs={'noise': key})"
        )
    raise ValueError(
        f"Continuous: {type(trace).__name__} estimates traces at random; give a key: "
        "density.log_prob(y, key=key), or apply(..., rngs={'noise': key}). ExactTrace() "
        "needs none"
    )


def check_solved(y: Array, x: Array, event_ndim: int) -> None:
    """Refuses solves of x that did not end, where that can be seen."""
    failed = failed_points((y, event_ndim), (x, event_ndim))
    if failed.any():
        raise FloatingPointError(
            f"Continuous: the solve did not reach its end for {int(np.sum(failed))} of "
            f"{failed.size} points: the field is too steep there, or `max_steps` of "
            "`evaluation` too few (apply(..., mutable=['solver']) reports them)"
        )
