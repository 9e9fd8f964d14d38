"""Autoregressive maps: one way all positions at once, the other way one position after the other.

A position is an index of the first axis of an event: a feature of a vector, a row of an image, a
token. The fast direction maps u to v with a scalar function f,

    v_i = f(u_i; p_i),    p_i = net(u_0, ..., u_i-1)

and the slow one finds u of a given v. Here it is, with its derivatives, for any `Causal` net.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.arrays import sum_event
from jflow.functional.implicit import no_tangent, with_tangents

# (values (...), params (..., num_params)) to values and log-derivatives, elementwise.
Scalar = Callable[[Array, Any], tuple[Array, Array]]
# (cache, i, u_i-1) to the cache and p_i.
Step = Callable[[Any, Array, Array], tuple[Any, Any]]
# (cache, i, u) to the cache and p_i, ..., of a block of positions from i on.
BlockStep = Callable[[Any, Array, Array], tuple[Any, Any]]
# (cotangents, i, that of p_i) to the cotangents and that of u_i-1.
Back = Callable[[Any, Array, Any], tuple[Any, Array]]


class Causal:
    """What p_i = net(u_0, ..., u_i-1) of all positions i is, bound to its weights: a pytree.

    Attributes:
      event_ndim: how many axes the event of u has, of which the first counts positions.
      remembers: whether the cache holds what all positions before have left, not a few of them.
        Derivatives do not store it for each step then; where it is small, that is faster.
    """

    event_ndim: ClassVar[int] = 1
    remembers: ClassVar[bool] = True

    def __call__(self, u: Array) -> Any:
        """p of u (*batch, positions, *rest), of all positions at once.

        It is an array (*batch, positions, *rest, outputs), or whatever else f is given.
        """
        raise NotImplementedError

    def start(self, like: Array) -> tuple[Any, Step]:
        """A cache with nothing in it, and the function that takes one step.

        step(cache, i, before) is called for i = 0, 1, ..., with before = u_i-1 (*batch, *rest),
        zero for i = 0. It puts what it makes of u_i-1 into the cache, an array or a pytree of them,
        and returns that and p_i, (*batch, *rest, outputs). All steps together then cost about one
        evaluation of the net.

        If the net `remembers`, what one step has written no later one changes, and a step reads
        nothing that later ones write, even of a full cache (but zero times that is allowed):
        derivatives rest on it.

        Args:
          like: an array of u's shape and dtype.
        """
        raise NotImplementedError

    def start_blocks(self, like: Array, size: int) -> tuple[Any, BlockStep]:
        """The same of blocks of `size` positions, for solvers that repeat a step.

        step(cache, i, u) reads of u (*batch, positions, *rest) what is before position i + size - 1
        and of the cache what is before i, and returns p of the positions i, ..., i + size - 1. As
        `careful`, it lets no value touch positions before.

        Raises:
          ValueError: the net has no such steps.
        """
        raise ValueError(
            f"Jacobi: {type(self).__name__} has no steps of blocks, as those of nets."
            "CausalTransformer and nets.TwoLevel have: leave out block"
        )

    def finish(self, u: Array) -> tuple[Any, Any, Back]:
        """What `start` is, for derivatives, which go back from the last position.

        Returns p of all positions, which lead; cotangents with nothing in them; and the function
        that goes back by one step, called for i = D - 1, ..., 0. It is defined here, by the
        derivative of a step with the full cache, of which a step reads what was there: the caches
        in between are not stored. A net may know something faster.
        """
        cache, step = self.start(u)
        index, rows = _positions(self, u)
        before = jnp.concatenate([jnp.zeros_like(rows[:1]), rows[:-1]])
        full, params = lax.scan(lambda cache, at: step(cache, *at), cache, (index, before))

        leaves, tree = jax.tree.flatten(full)
        floats = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
        kept = [None if real else leaf for leaf, real in zip(leaves, floats, strict=True)]

        def one(cache: list[Array], i: Array, u: Array) -> tuple[list[Array], Any]:
            moving = iter(cache)
            given = [next(moving) if leaf is None else leaf for leaf in kept]
            after, params = step(tree.unflatten(given), i, u)
            return _where(floats, jax.tree.leaves(after)), params

        def back(of_cache: list[Array], i: Array, of_params: Any) -> tuple[list[Array], Array]:
            pull = jax.vjp(lambda cache, u: one(cache, i, u), _where(floats, leaves), before[i])[1]
            return pull((of_cache, of_params))

        return params, [jnp.zeros_like(leaf) for leaf in _where(floats, leaves)], back

    def without_dropout(self) -> "Causal":
        """The same without what is dropped in training: a slow direction drops nothing."""
        return self

    def careful(self, u: Array) -> Any:
        """p of u, where u_j may be far too large: it must not touch p_i of i <= j, not as NaN."""
        return self(u)


class Report(NamedTuple):
    """How a parallel solver ended.

    Attributes:
      iterations: how many sweeps it took.
      residual: by how much one more sweep would change the result, relative to 1 + |u|, at most.
    """

    iterations: Array
    residual: Array


class ScalarMap(NamedTuple):
    """What does not change with the weights of a net.

    Attributes:
      forward: f.
      backward: its inverse.
      fast: the fast direction of (net, u), where that is cheaper than f(u; net(u)); or None.
    """

    forward: Scalar
    backward: Scalar
    fast: Callable[[Any, Array], tuple[Array, Array]] | None = None

    def all(self, net: Causal, u: Array) -> tuple[Array, Array]:
        """v and the log-derivatives of f, of all positions at once."""
        return self.forward(u, net(u)) if self.fast is None else self.fast(net, u)


class Solver(NamedTuple):
    """A way to go back.

    Attributes:
      find: of (map, net, v) to u, log|du_i/dv_i|, and a report.
      divide: of (map, net, u, v, b) to J^-1 b, where J = dv/du.
      divide_transposed: the same of J^-T b.
    """

    find: Callable[[ScalarMap, Any, Array], tuple[Array, Array, Report]]
    divide: Callable[[ScalarMap, Any, Array, Array, Array], Array]
    divide_transposed: Callable[[ScalarMap, Any, Array, Array, Array], Array]


def slow(of: ScalarMap, solver: Solver, net: Causal, v: Array) -> tuple[Array, Array, Report]:
    """u and log|det du/dv| of v, differentiable in both modes, and a report.

    With F the fast direction and J its Jacobian in u, the tangents are

        du = J^-1 (dv - F_weights dweights)

    by the implicit function theorem. J is triangular, and never formed: the solver applies its
    inverse or the transpose of that. Where v_i is outside of f's range, u_i is that of a fixed
    point inside, so dv_i counts as zero, as does the tangent of its log-derivative.

    The loop of a net that remembers little is differentiated as it is: what it stores is what one
    evaluation stores.
    """

    def tangent(primals: Any, tangents: Any, found: Any) -> Any:
        (net, v), (dnet, dv), (u, log_dets, report) = primals, tangents, found
        outside = jnp.isneginf(log_dets)
        _, linear = jax.linearize(of.all, net, u)
        right = jnp.where(outside, 0, dv) - linear(dnet, jnp.zeros_like(u))[0]
        du = lax.custom_linear_solve(
            lambda du: jax.jvp(lambda u: of.all(net, u)[0], (u,), (du,))[1],
            right,
            lambda _, b: solver.divide(of, net, u, v, b),
            lambda _, b: solver.divide_transposed(of, net, u, v, b),
        )
        dlog_dets = jnp.where(outside, 0, -linear(dnet, du)[1])
        return du, dlog_dets, jax.tree.map(no_tangent, report)

    find = partial(solver.find, of)
    plain = solver is SEQUENTIAL and not net.remembers
    u, log_dets, report = find(net, v) if plain else with_tangents(find, tangent, net, v)
    return u, sum_event(log_dets, net.event_ndim), report


def one_by_one(of: ScalarMap, net: Causal, v: Array) -> tuple[Array, Array, Report]:
    """u of v, position by position, and log|du_i/dv_i|."""
    cache, step = net.start(v)
    index, rows = _positions(net, v)

    def one(carry: Any, at: Any) -> Any:
        (cache, before), (i, v_i) = carry, at
        cache, params = step(cache, i, before)
        u_i, log_det = of.backward(v_i, params)
        return (cache, u_i), (u_i, log_det)

    _, (u, log_dets) = lax.scan(one, (cache, jnp.zeros_like(rows[0])), (index, rows))
    axis = -net.event_ndim
    report = Report(jnp.asarray(len(rows), jnp.int32), jnp.zeros((), v.dtype))
    return jnp.moveaxis(u, 0, axis), jnp.moveaxis(log_dets, 0, axis), report


def divide(of: ScalarMap, net: Causal, u: Array, v: Array, b: Array) -> Array:
    """J^-1 b: the tangent of the loop."""
    return jax.jvp(lambda v: one_by_one(of, net, v)[0], (v,), (b,))[1]


def divide_transposed(of: ScalarMap, net: Causal, u: Array, v: Array, b: Array) -> Array:
    """w with J^T w = b, by back substitution from the last position.

    When w_i+1, ... are known, so is what reaches u_i through later positions: only those read what
    the net makes of it.
    """
    params, nothing, back = net.finish(u)

    def one(carry: Any, at: Any) -> Any:
        (cotangents, reached), (i, u_i, params, b_i) = carry, at
        v_i, pull = jax.vjp(lambda u, p: of.forward(u, p)[0], u_i, params)
        w_i = (b_i - reached) / pull(jnp.ones_like(v_i))[0]
        return back(cotangents, i, pull(w_i)[1]), w_i

    index, rows = _positions(net, u)
    at = (index, rows, params, _positions(net, b)[1])
    _, w = lax.scan(one, (nothing, jnp.zeros_like(rows[0])), at, reverse=True)
    return jnp.moveaxis(w, 0, -net.event_ndim)


def _positions(net: Causal, u: Array) -> tuple[Array, Array]:
    """0, 1, ... and u with its positions in front."""
    rows = jnp.moveaxis(u, -net.event_ndim, 0)
    return jnp.arange(len(rows), dtype=jnp.int32), rows


def _where(chosen: list[bool], leaves: list[Array]) -> list[Array]:
    return [leaf for leaf, taken in zip(leaves, chosen, strict=True) if taken]


SEQUENTIAL = Solver(one_by_one, divide, divide_transposed)
