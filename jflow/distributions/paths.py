"""What continuous flows make of points on the way from the base to the data."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jflow.bijectors import Chain, Continuous
from jflow.bijectors.base import Bijector
from jflow.distributions.events import checked
from jflow.distributions.flow import Flow


class Paths(NamedTuple):
    """Points on their way from the base to the data, at T equal times from 0 to 1.

    Attributes:
      times: (T,).
      values: where they are, (T, *batch, *event): what the layers nearer to the data would make of
        the state of the continuous one.
      log_prob: log of the density that the base has become there, (T, *batch), nats.
    """

    times: Array
    values: Array
    log_prob: Array


def parts_of(bijector: Bijector) -> list[Any]:
    """Those of compositions, from the data to the base."""
    if not isinstance(bijector, Chain):
        return [bijector]
    return [part for own in bijector.bijectors for part in parts_of(own)]


@partial(jax.jit, static_argnums=(0, 4))
def paths(flow: Flow, variables: Any, z: Array, context: Any, times: int, key: Array) -> Paths:
    """Of latents z (*batch, *latent); see `Density.paths`.

    Raises:
      TypeError: the flow's layer nearest to the base is no `Continuous`.
    """
    rngs = {"noise": key}
    found: Any = flow.apply(variables, z, context, times, method=_paths, rngs=rngs)
    return found


def _paths(flow: Flow, z: Array, context: Any, times: int) -> Paths:
    *outer, layer = parts_of(flow.bijector)
    if not isinstance(layer, Continuous):
        raise TypeError(
            "paths: the flow must end, nearest to the base, in one Continuous layer, as "
            f"flows.ffjord(features) does; it ends in {type(layer).__name__}. "
            "density.trajectory(y) goes layer by layer"
        )
    _, _, log_base = flow.pulled_back(z, context)
    z, batch = checked("z", z, flow.latent_shape, flow.latent_support)
    given = flow.given(context, batch)
    values, log_det = layer.states(z, times - 1, given)
    if given is not None and given.ndim > 1:
        given = jnp.broadcast_to(given, (times, *given.shape))
    for part in reversed(outer):
        values, own = part.forward_and_log_det(values, given)
        log_det = log_det + own
    return Paths(jnp.linspace(0, 1, times), values, log_base[None] - log_det)
