"""A target's density, as one of a flow's latents."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jflow.distributions import Density
from jflow.distributions.targets import check_target
from jflow.functional.arguments import as_key
from jflow.functional.arrays import batch_shape
from jflow.interop.bound import Bound, check_latents_on_line


@dataclass(frozen=True, eq=False)
class PulledBack:
    """The density of latents z whose images y = f(z) follow a target.

        log p(z) = log target(f(z)) + log|det df/dz|

    Where f has learned the target, p is nearly the base: round, of equal scales, so that any
    sampler moves well in it (Parno and Marzouk, 2018, https://arxiv.org/abs/1412.5492; Hoffman et
    al., 2019, https://arxiv.org/abs/1903.03704). However badly f has learned, chains that have p
    as their law give exact draws of the target, where f reaches all of it.

    Attributes:
      bound: the flow that has learned, with its context.
      target: of y (n, *event) to (n,): log-densities up to a constant.
    """

    bound: Bound
    target: Callable[..., Array]

    def log_prob(self, z: Array) -> Array:
        """log p of z (*batch, *latent) up to a constant, (*batch); -inf where it is NaN."""
        flow = self.bound.flow
        y, log_det = self.bound.forward(z)
        batch = batch_shape(y, len(flow.event_shape))
        found = self.target(y.reshape(-1, *flow.event_shape)).reshape(batch) + log_det
        return jnp.where(jnp.isnan(found), -jnp.inf, found)

    def points(self, z: Array) -> Array:
        """The images f(z), (*batch, *event)."""
        return self.bound.forward(z)[0]

    def start(self, key: Array | int, shape: tuple[int, ...] = ()) -> Array:
        """Draws of the flow's base, (*shape, *latent): where chains may start."""
        bound = self.bound
        return bound.call("sample_latents", as_key("start", key), shape, bound.context)


def pulled_back(density: Density, target: Callable[..., Array], context: Any = None) -> PulledBack:
    """A target as a density of the flow's latents, for samplers that move among these.

        p = pulled_back(density, target)
        any_sampler(p.log_prob, p.start(key))            # draws of z
        y = p.points(z)                                  # draws of the target

    Args:
      density: of a flow that has learned the target, as by `jflow.fit_to_target`.
      target: of y (n, *event) to log-densities (n,), up to a constant, as for `fit_to_target`.
      context: (*context_shape), of a conditional flow; the target knows its own.

    Raises:
      TypeError: that is no density.
      ValueError: the flow's values are drawn, or its latents do not live on the line, or the target
        gives something else than a number for each y.
    """
    bound = Bound.of("pulled_back", density, context, "forward")
    check_latents_on_line("pulled_back", density.flow)
    check_target(density.flow, target, None)
    if bound.batch_shape:
        raise ValueError(
            f"pulled_back: context must be one, (*context_shape); got a batch {bound.batch_shape}"
        )
    return PulledBack(bound, target)
