"""The slow direction of autoregressive flows, at about the cost of a fast one.

The fast direction maps u to v, all features at once, with an elementwise f:

    v_i = f(u_i; p_i),    p_i = net(u_0, ..., u_i-1)

The slow one finds u of a given v. `solve` goes feature by feature and computes in step i the units
of degree i alone, so that all steps together cost about one evaluation of the network.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.functional.arrays import sum_event
from jflow.functional.implicit import no_tangent, with_tangents
from jflow.functional.masked import (
    Columns,
    MaskedNet,
    Weights,
    columns,
    flatten,
    groups,
    product,
    rows,
    set_rows,
    slopes,
    unflatten,
)

# (values (...), params (..., num_params)) to values and log-derivatives, elementwise.
Scalar = Callable[[Array, Array], tuple[Array, Array]]


class Report(NamedTuple):
    """How a parallel solver ended.

    Attributes:
      iterations: how many sweeps it took.
      residual: by how much one more sweep would change the result, relative to 1 + |u|, at most.
    """

    iterations: Array
    residual: Array


# (net, backward, weights, v) to u, log|du_i/dv_i| (*batch, D), and a report.
Solver = Callable[[MaskedNet, Scalar, Weights, Array], tuple[Array, Array, Report]]


def fast(net: MaskedNet, scalar: Scalar, weights: Weights, u: Array) -> tuple[Array, Array]:
    """v and log|dv_i/du_i| of u, (*batch, D) all."""
    _, params = net.states(weights, u)
    return scalar(u, jnp.swapaxes(params, -1, -2).astype(u.dtype))


def slow(
    net: MaskedNet, forward: Scalar, backward: Scalar, solver: Solver, weights: Weights, v: Array
) -> tuple[Array, Array, Report]:
    """u and log|det du/dv| of v (*batch, D), differentiable in both modes, and a report.

    With F the fast direction and J its Jacobian in u, the tangents are

        du = J^-1 (dv - F_weights dweights)

    by the implicit function theorem. J is triangular: `solver` finds u, and one pass of the same
    kind as `solve` applies J^-1 or its transpose. J itself is never formed. Where v_i is outside of
    f's range, u_i is that of a fixed point inside, so dv_i counts as zero, as does the tangent of
    its log-derivative.

    Args:
      net: the network.
      forward: f.
      backward: its inverse.
      solver: `solve`, or another function of the same arguments.
      weights: of the network.
      v: (*batch, D).
    """
    run = partial(fast, net, forward)

    def tangent(primals: Any, tangents: Any, found: Any) -> Any:
        (weights, v), (dweights, dv), (u, log_dets, report) = primals, tangents, found
        outside = jnp.isneginf(log_dets)
        _, linear = jax.linearize(run, weights, u)
        right = jnp.where(outside, 0, dv) - linear(dweights, jnp.zeros_like(u))[0]
        du = lax.custom_linear_solve(
            lambda du: jax.jvp(lambda u: run(weights, u)[0], (u,), (du,))[1],
            right,
            lambda _, b: jax.jvp(lambda v: solve(net, backward, weights, v)[0], (v,), (b,))[1],
            lambda _, b: solve_transposed(net, forward, weights, u, b),
        )
        dlog_dets = jnp.where(outside, 0, -linear(dweights, du)[1])
        return du, dlog_dets, jax.tree.map(no_tangent, report)

    u, log_dets, report = with_tangents(partial(solver, net, backward), tangent, weights, v)
    return u, sum_event(log_dets, 1), report


def solve(
    net: MaskedNet, backward: Scalar, weights: Weights, v: Array
) -> tuple[Array, Array, Report]:
    """u of v, feature by feature, and log|du_i/dv_i|."""
    batch, dtype = v.shape[:-1], weights.kernels[0].dtype
    v_rows = flatten(v)
    count = v_rows.shape[1]
    read = columns(net, weights, count)
    starts, sizes = groups(net)

    def step(carry: Any, at: Any) -> Any:
        u, states, values = carry
        i, v_i, start, kernel, last, direct = at
        states, values = _grow(net, read, sizes, i, start, u, states, values)
        params = product(kernel, values[-1]) + last
        if direct is not None:
            params = params + product(direct, u)
        u_i, log_det = backward(v_i, params.T.astype(v_i.dtype))
        u = set_rows(u, u_i[None].astype(dtype), i)
        return (u, states, values), (u_i, log_det)

    empty = [jnp.zeros((units, count), dtype) for units in net.hidden]
    start = (jnp.zeros((net.features, count), dtype), empty, empty)
    index = jnp.arange(net.features, dtype=jnp.int32)
    at = (index, v_rows, jnp.asarray(starts), read.kernels[-1], read.last, read.direct)
    _, (u, log_dets) = lax.scan(step, start, at)
    report = Report(jnp.asarray(net.features, jnp.int32), jnp.zeros((), v.dtype))
    return unflatten(u, batch), unflatten(log_dets, batch), report


def _grow(
    net: MaskedNet,
    read: Columns,
    sizes: list[int],
    i: Array,
    start: Array,
    u: Array,
    states: list[Array],
    values: list[Array],
) -> tuple[list[Array], list[Array]]:
    """Computes the units of degree i in every hidden layer.

    A slice may reach into the next group, whose inputs are not there yet: those units stay zero,
    since an infinite one would spoil products with kernels that are zero.
    """
    states, values, inputs = list(states), list(values), u
    for layer, size in enumerate(sizes):
        at = start[layer]
        added = read.first if layer == 0 else read.biases[layer]
        state = product(rows(read.kernels[layer], at, size), inputs) + rows(added, at, size)
        if net.skips(layer):
            state = state + rows(states[layer - 2], at, size)
        degrees = jnp.asarray(net.degrees[layer + 1][:, None], jnp.int32)
        ready = rows(degrees, at, size) <= i
        value = jnp.where(jnp.broadcast_to(ready, state.shape), net.activation(state), 0)
        states[layer] = set_rows(states[layer], state, at)
        values[layer] = set_rows(values[layer], value, at)
        inputs = values[layer]
    return states, values


def solve_transposed(
    net: MaskedNet, forward: Scalar, weights: Weights, u: Array, b: Array
) -> Array:
    """w with J^T w = b, where J = dv/du of the fast direction: back substitution.

    Feature by feature from the last: when w_i+1, ... are known, so are the cotangents of the
    units of degree i + 1, which are the last that feature i reaches.
    """
    batch = u.shape[:-1]
    states, params = net.states(weights, u)
    params = jnp.swapaxes(params, -1, -2).astype(u.dtype)
    v, pull = jax.vjp(lambda u, p: forward(u, p)[0], u, params)
    diagonal, by_params = pull(jnp.ones_like(v))
    diagonal, b_rows = flatten(diagonal), flatten(b)
    count = b_rows.shape[1]
    by_params = jnp.moveaxis(by_params.reshape(count, *by_params.shape[-2:]), 0, -1)
    slope = [flatten(s) for s in slopes(net, states)]
    masked = net.masked(weights)
    starts, sizes = groups(net)
    starts = np.concatenate([starts[1:], starts[-1:]])  # of degree i + 1; of none for the last
    outputs = masked[-1].reshape(masked[-1].shape[0], -1)

    def step(carry: Any, at: Any) -> Any:
        units, params = carry  # cotangents so far
        i, b_i, diagonal, by_params, start, kernel, direct = at
        units = _shrink(net, masked, outputs, slope, sizes, start, units, params)
        reached = product(kernel, units[0])
        if direct is not None:
            reached = reached + product(direct.reshape(-1), params.reshape(direct.size, count))
        w_i = (b_i - reached.astype(b_i.dtype)) / diagonal
        params = params.at[:, i].set((w_i[None] * by_params).astype(params.dtype))
        return (units, params), w_i

    dtype = weights.kernels[0].dtype
    empty = [jnp.zeros((units, count), dtype) for units in net.hidden]
    index = jnp.arange(net.features, dtype=jnp.int32)
    direct = net.masked_direct(weights)
    at = (index, b_rows, diagonal, by_params, jnp.asarray(starts), masked[0], direct)
    carry = (empty, jnp.zeros((net.outputs, net.features, count), dtype))
    _, w = lax.scan(step, carry, at, reverse=True)
    return unflatten(w, batch)


def _shrink(
    net: MaskedNet,
    masked: tuple[Array, ...],
    outputs: Array,
    slope: list[Array],
    sizes: list[int],
    start: Array,
    units: list[Array],
    params: Array,
) -> list[Array]:
    """Computes the cotangents of one group of units in every hidden layer, the last one first."""
    units = list(units)
    for layer in reversed(range(len(sizes))):
        at, size = start[layer], sizes[layer]
        last = layer == len(sizes) - 1
        kernel = outputs if last else masked[layer + 1]
        after = (
            params.reshape(len(params) * net.features, params.shape[-1])
            if last
            else units[layer + 1]
        )
        cotangent = product(rows(kernel, at, size), after) * rows(slope[layer], at, size)
        if layer + 2 < len(sizes) and net.skips(layer + 2):
            cotangent = cotangent + rows(units[layer + 2], at, size)
        units[layer] = set_rows(units[layer], cotangent, at)
    return units
