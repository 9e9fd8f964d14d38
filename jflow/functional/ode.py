"""Ordinary differential equations by explicit Runge-Kutta steps at given times."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

# (t, y) to dy/dt, of y and dy/dt an array or a pytree of arrays. A pytree, if it holds arrays.
Field: TypeAlias = Callable[[Array, Any], Any]


@dataclass(frozen=True)
class Method:
    """An explicit Runge-Kutta method, by its tableau.

    Attributes:
      order: errors of a solve shrink like (length of a step)^order.
      nodes: where in a step the field is evaluated, c.
      stages: how slopes before are combined for each of these, a: of stage i, i numbers.
      weights: how all slopes are combined at last, b.
    """

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


_OWN = {
    "euler": Method(1, (0.0,), ((),), (1.0,)),
    "midpoint": Method(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Method(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Method(
        4,
        (0.0, 0.5, 0.5, 1.0),
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}
_OF_DIFFRAX = {"tsit5": "Tsit5", "dopri5": "Dopri5", "dopri8": "Dopri8"}
ADAPTIVE_NAMES = tuple(_OF_DIFFRAX)  # they estimate their errors
METHOD_NAMES = (*_OWN, *ADAPTIVE_NAMES)


def check_method(owner: str, name: Any) -> None:
    """Refuses what is not the name of a method."""
    if name not in METHOD_NAMES:
        raise ValueError(f"{owner}: method must be one of {', '.join(METHOD_NAMES)}; got {name!r}")


def of_diffrax(name: str) -> Any:
    """Diffrax's solver of that name."""
    import diffrax  # takes a second

    return getattr(diffrax, _OF_DIFFRAX[name])()


@lru_cache
def method(name: str) -> Method:
    """The method of that name; the tableaux of orders above 4 are those of Diffrax."""
    if name in _OWN:
        return _OWN[name]
    solver = of_diffrax(name)
    tableau, numbers = solver.tableau, lambda row: tuple(float(n) for n in row)
    weights = numbers(tableau.b_sol)
    # A last stage that only the next step or the error estimate uses is left out.
    stages = ((), *map(numbers, tableau.a_lower))
    used = len(weights) if weights[-1] else len(weights) - 1
    nodes = (0.0, *numbers(tableau.c))
    return Method(solver.order(None), nodes[:used], stages[:used], weights[:used])


def step(field: Field, scheme: Method, t: Array, dt: Array, y: Any) -> Any:
    """y at t + dt, of y at t."""
    slopes: list[Any] = []
    for node, row in zip(scheme.nodes, scheme.stages, strict=True):
        slopes.append(field(t + node * dt, _along(y, dt, row, slopes)))
    return _along(y, dt, scheme.weights, slopes)


def _along(y: Any, dt: Array, row: tuple[float, ...], slopes: list[Any]) -> Any:
    """Y + dt sum_i row_i slopes_i, without those of weight zero."""
    used = [(weight, slope) for weight, slope in zip(row, slopes, strict=True) if weight]
    if not used:
        return y
    weights = [weight for weight, _ in used]

    def move(start: Array, *parts: Array) -> Array:
        total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        return start + dt.astype(start.dtype) * total

    return jax.tree.map(move, y, *(slope for _, slope in used))


def integrate(
    field: Field, y: Any, times: Array, scheme: Method, *, store: bool = False, skip: bool = False
) -> Any:
    """Y at the last of the times (n + 1,), of y at the first: n steps, in a loop.

    Args:
      field: dy/dt.
      y: where to start, an array or a pytree.
      times: of the steps, increasing or decreasing.
      scheme: the method.
      store: whether what a step computes is kept for the backward pass. Otherwise the states
        between steps are, and each step is computed again: on CPUs two to three times faster.
      skip: whether steps of length zero are passed over, as those are that fill up `times`.
    """

    def advance(y: Any, interval: tuple[Array, Array]) -> tuple[Any, None]:
        t, dt = interval
        run = lambda y: step(field, scheme, t, dt, y)  # noqa: E731
        return (lax.cond(_any(dt != 0), run, lambda y: y, y) if skip else run(y)), None

    body = advance if store else jax.checkpoint(advance, prevent_cse=False)
    return lax.scan(body, y, (times[:-1], times[1:] - times[:-1]))[0]


@jax.custom_batching.custom_vmap
def _any(condition: Array) -> Array:
    """A condition that is one for all elements of a `vmap`, so that none are computed in vain."""
    return condition


@_any.def_vmap
def _any_of_batch(size: int, batched: Any, conditions: Array) -> tuple[Array, bool]:
    del size, batched
    return _any(jnp.any(conditions, axis=0)), False
