"""What flows of contractions need: converged norms, and a check of these."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array, lax

from jflow.bijectors.base import Bijector, DirectionKind
from jflow.distributions.contexts import each
from jflow.distributions.flow import Flow, zeros
from jflow.functional.arrays import wide_dtype
from jflow.functional.convergence import failed_points

# Of the bounds on norms, what rounding and unconverged iterations may take away.
_SLACK = 1.001
_STEPS = 400


def check_converged(
    bijector: Bijector,
    kind: DirectionKind,
    found: tuple[Array, int],
    *given: tuple[Any, int],
) -> None:
    """Raises where iterations did not converge: inside jit, they give NaN.

    Args:
      bijector: what ran.
      kind: that of the direction that ran.
      found: the result, and how many trailing axes belong to one point.
      given: what it was made of, likewise. Points that are not finite there do not count.

    Raises:
      FloatingPointError: outside jit, a result is NaN.
    """
    if kind == "closed form" or not bijector.may_fail:
        return
    failed = failed_points(found, *given)
    if failed.any():
        raise FloatingPointError(
            f"an iteration did not converge for {failed.sum()} of {failed.size} points (of a "
            "residual layer, sweeps of Jacobi, or the solve of a continuous layer: a larger "
            "`max_steps` or `tolerance` of its `evaluation`; or of MeanSteps that are no bijection "
            "there: more of them, or Adaptive()); flow.apply(..., mutable=['solver']) "
            "reports iterations, bounds, norms and steps"
        )


def _reports(flow: Flow, variables: Any, collection: str) -> Any:
    """What the parts of the flow leave in a collection, whatever the point; the rest is not run."""
    dtype = wide_dtype(jax.tree.leaves(variables["params"])[0].dtype)
    context = each(lambda shape: jnp.zeros(shape, dtype), flow.context_shape)
    _, reports = flow.apply(  # type: ignore[misc]
        variables,
        zeros(flow, dtype=dtype),
        context,
        method="log_prob",
        mutable=[collection],
        rngs={"noise": jax.random.key(0)},
    )
    return reports[collection]  # type: ignore[index]


@partial(jax.jit, static_argnums=0)
def _norms(flow: Flow, variables: Any) -> Any:
    return _reports(flow, variables, "solver")


def check_norms(flow: Flow, variables: Mapping[str, Any], owner: str) -> None:
    """Refuses networks that do not contract as they should, measured from the weights.

    Raises:
      ValueError: naming the layer and its norm.
    """
    reports = jax.device_get(_norms(flow, variables))
    found: dict[Any, np.ndarray] = flatten_dict(reports)  # type: ignore[assignment]
    for path, value in found.items():
        if path[-1] != "norm":
            continue
        norm, bound = np.max(value), np.max(found[(*path[:-1], "coefficient")])
        if not norm <= _SLACK * bound:
            raise ValueError(
                f"{owner}: the layer {'/'.join(path[:-1])} has norm {norm:.4g}, and may have "
                f"{bound:.4g}: the network does not contract, and the flow would not be "
                "invertible. The vectors in the collection 'lipschitz' are not those of these "
                "kernels, or the kernels are not finite; fit the flow again"
            )


@partial(jax.jit, static_argnums=0)
def _settle(flow: Flow, variables: Any) -> Any:
    def step(_: Array, kept: Any) -> Any:
        return _reports(flow, {**variables, "lipschitz": kept}, "lipschitz")

    return lax.fori_loop(0, _STEPS, step, variables["lipschitz"])


def settled(flow: Flow, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The variables with power iterations that have converged, which evaluation then starts from.

    Not to be called on parameters that are still moving: it takes some hundred iterations.
    """
    if "lipschitz" not in variables:
        return variables
    return {**variables, "lipschitz": _settle(flow, variables)}
