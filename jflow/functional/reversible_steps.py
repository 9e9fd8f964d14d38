"""Runge-Kutta steps that can be taken back, so that the backward pass needs the end alone.

Two states, y and z, start as one; each step moves either by an increment P of the method, the one
from t by h and the other from t + h by -h (McCallum and Foster, 2024, equation 6):

    y' = L y + (1 - L) z + P_h(t, z),    z' = z - P_{-h}(t + h, y')

which is solved for (y, z) in closed form, whatever the method and the field are, and has the order
of the method. L < 1 draws y and z together; back, what they differ by grows like L^-n.

Reference: https://arxiv.org/abs/2410.11648
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jflow.functional.ode import Field, Method, increment

_L = 0.999


def integrate_reversibly(field: Field, y: Any, times: Array, scheme: Method) -> Any:
    """Y at the last of the times (n + 1,), of y at the first, as by `ode.integrate`.

    The backward pass finds the states again, from the last to the first, and stores none: memory
    does not depend on n at all. Twice the evaluations of the field. There is no forward mode.

    Args:
      field: dy/dt of (t, y); a pytree, if it holds arrays (`jax.tree_util.Partial`).
      y: where to start, an array or a pytree.
      times: of the steps, increasing or decreasing.
      scheme: the method.
    """
    return _end(scheme, field, y, times)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _end(scheme: Method, field: Field, y: Any, times: Array) -> Any:
    return _ends(scheme, field, y, times)[0]


def _ends(scheme: Method, field: Field, y: Any, times: Array) -> tuple[Any, Any]:
    def advance(pair: Any, ends: tuple[Array, Array]) -> tuple[Any, None]:
        (y, z), (t, after) = pair, ends
        moved = increment(field, scheme, t, after - t, z)
        y = jax.tree.map(lambda y, z, moved: _L * y + (1 - _L) * z + moved, y, z, moved)
        back = increment(field, scheme, after, t - after, y)
        return (y, jax.tree.map(jnp.subtract, z, back)), None

    return lax.scan(advance, (y, y), (times[:-1], times[1:]))[0]


def _save(scheme: Method, field: Field, y: Any, times: Array) -> Any:
    ends = _ends(scheme, field, y, times)
    return ends[0], (field, times, ends)


def _backward(scheme: Method, saved: Any, by_end: Any) -> Any:
    field, times, ends = saved
    leaves, tree = jax.tree.flatten(field)
    inexact = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    learned = [leaf for leaf, moves in zip(leaves, inexact, strict=True) if moves]

    def move(learned: Any, state: Any, t: Array, dt: Array) -> Any:
        rest = iter(learned)
        both = zip(leaves, inexact, strict=True)
        whole = jax.tree.unflatten(tree, [next(rest) if moves else leaf for leaf, moves in both])
        return increment(whole, scheme, t, dt, state)

    def retreat(carry: Any, interval: tuple[Array, Array]) -> tuple[Any, None]:
        (y, z), (by_y, by_z), by_learned = carry
        t, after = interval
        back, of_back = jax.vjp(lambda w, y: move(w, y, after, t - after), learned, y)
        z = jax.tree.map(jnp.add, z, back)
        moved, of_moved = jax.vjp(lambda w, z: move(w, z, t, after - t), learned, z)
        y = jax.tree.map(lambda y, z, moved: (y - (1 - _L) * z - moved) / _L, y, z, moved)
        by_own, share = of_back(by_z)
        by_y = jax.tree.map(jnp.subtract, by_y, share)
        by_other, share = of_moved(by_y)
        by_z = jax.tree.map(lambda z, y, share: z + (1 - _L) * y + share, by_z, by_y, share)
        by_y = jax.tree.map(lambda a: _L * a, by_y)
        by_learned = jax.tree.map(lambda a, b, c: a - b + c, by_learned, by_own, by_other)
        return ((y, z), (by_y, by_z), by_learned), None

    zeros = partial(jax.tree.map, jnp.zeros_like)
    start = ends, (by_end, zeros(by_end)), zeros(learned)
    (_, both, by_learned), _ = lax.scan(retreat, start, (times[:-1], times[1:]), reverse=True)
    found = iter(by_learned)
    by_field = jax.tree.unflatten(tree, [next(found) if moves else None for moves in inexact])
    return by_field, jax.tree.map(jnp.add, *both), jnp.zeros_like(times)


_end.defvjp(_save, _backward)
