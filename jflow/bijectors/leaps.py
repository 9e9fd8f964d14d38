"""Steps along mean velocities of a continuous flow: a flow of their own."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jflow.bijectors.base import Direction
from jflow.functional.arrays import batch_shape, over_event
from jflow.functional.convergence import failed_points
from jflow.functional.log_determinants import value_and_jacobian
from jflow.functional.newton import invert_by_newton
from jflow.functional.solvers import MeanSteps, Solver

# Steps back, and their densities, take Jacobians of D x D numbers.
MOST_FEATURES = 1024


def leaps(
    field: Partial, method: Direction, x: Array, end: Array | float, steps: int, ndim: int, *,
    with_log_det: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """The end of so many steps between times 0 and `end`, and log|det| of these.

    NaN where a step cannot be taken back, or where the map of one has another orientation than the
    identity: it is no bijection there. Without `with_log_det`, values of forward are always given.

    Raises:
      ValueError: the Jacobian is wanted of too many features.
    """
    back = method == "inverse"
    size = math.prod(x.shape[x.ndim - ndim :])
    if size > MOST_FEATURES and (back or with_log_det):
        raise ValueError(
            f"MeanSteps: log p and latents take Jacobians of D x D numbers, D = {size} here and "
            f"{MOST_FEATURES} at most; samples do not. density.with_solver(functional.Adaptive()) "
            "has log p by the differential equation"
        )
    log_det = jnp.zeros(batch_shape(x, ndim), x.dtype)
    length = jnp.asarray(end, x.dtype) / steps
    for i in reversed(range(steps)) if back else range(steps):
        params = field, i * length, length
        if back:
            x, found = invert_by_newton(_moved, params, x, event_ndim=ndim)
            x = jnp.where(over_event(found, x), x, jnp.nan)
        if not (back or with_log_det):
            x = _moved(params, x)
            continue
        y, jacobian = value_and_jacobian(lambda x, params=params: _moved(params, x), x, ndim)
        sign, own = jnp.linalg.slogdet(jacobian)
        x = jnp.where(over_event(sign > 0, x), x if back else y, jnp.nan)
        log_det = log_det + (-own if back else own)
    return x, log_det


def check_mean_velocities(asked: Any, evaluation: Solver, guidance: Any, potential: bool) -> None:
    """Refuses arguments of a layer that do not go together with what it tells of velocities."""
    if not isinstance(asked, bool):
        raise ValueError(f"Continuous: mean_velocities must be True or False; got {asked!r}")
    if asked and (guidance is not None or potential):
        raise ValueError(
            "Continuous: leave out guidance and nets.Potential beside mean_velocities; got "
            f"guidance={guidance}" + (" and a potential" if potential else "")
        )
    if isinstance(evaluation, MeanSteps) and not asked:
        raise ValueError(
            "Continuous: MeanSteps are of layers with mean_velocities=True, that train.MeanFlow "
            "was given"
        )


def check_leaps(y: Array, x: Array, event_ndim: int, steps: int) -> None:
    """Refuses steps of x that are no bijection, where that can be seen."""
    failed = failed_points((y, event_ndim), (x, event_ndim))
    if failed.any():
        raise FloatingPointError(
            f"Continuous: MeanSteps({steps}) is no bijection at {int(np.sum(failed))} of "
            f"{failed.size} points, which cannot be taken back, or are turned over. Take more "
            "steps, train longer, or density.with_solver(functional.Adaptive())"
        )


def _moved(params: Any, x: Array) -> Array:
    """X at t, moved by the mean velocity over the length."""
    field, t, length = params
    return x + length * field.func.mean_velocity(*field.args[:2], t, length, x)
