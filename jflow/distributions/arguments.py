"""What the methods of a density are given, in the form that programs take."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.bijectors.base import Bijector, Direction
from jflow.distributions.contexts import converted
from jflow.functional.arguments import as_key
from jflow.functional.arrays import check_fits


def arrays(*values: Any) -> Any:
    """Points or contexts as arrays, or dicts of these; None stays None."""
    return tuple(converted(value, _array) for value in values)


def _array(value: Any) -> Array:
    if not isinstance(value, Array):
        check_fits("what is given", np.asarray(value))
    return jnp.asarray(value)


def sizes(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """A batch shape."""
    return tuple(shape) if isinstance(shape, tuple | list) else (operator.index(shape),)


def noise(
    method: str,
    bijector: Bijector,
    direction: Direction,
    key: Array | int | None,
    *,
    values_alone: bool = False,
) -> Array | None:
    """The key that a direction draws noise from; None where it draws none.

    Where the result is `values_alone`, without log_dets, estimates of these need no key.

    Raises:
      ValueError: there is none, and the result depends on it.
    """
    if key is not None:
        return as_key(method, key)
    kind = bijector.forward_kind if direction == "forward" else bijector.inverse_kind
    if kind == "random" or (bijector.needs_key(direction) and not values_alone):
        what = "its values are drawn" if kind == "random" else "its log_det is estimated"
        raise ValueError(
            f"{method}: give a key: density.{method}(..., key=0). This flow draws noise there: "
            f"{what}"
        )
    return jax.random.key(0) if bijector.needs_key(direction) else None
