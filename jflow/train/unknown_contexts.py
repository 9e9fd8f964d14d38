"""Likelihood of flows with guidance, whose context is left out at times: NaN, not known."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jflow.distributions.exchange import guidance_of
from jflow.distributions.flow import Flow
from jflow.functional.arguments import check_numbers
from jflow.functional.arrays import as_wide


def check_guided(flow: Flow, share: float) -> None:
    """Refuses what a flow with guidance cannot be trained with.

    Raises:
      ValueError: no contexts are left out, or an encoder is to make something of those.
    """
    if not guidance_of(flow):
        return
    check_numbers("MaximumLikelihood, with guidance", above=0, drop_context=share)
    if flow.encoder is not None:
        raise ValueError(
            "MaximumLikelihood: a flow with guidance goes without its context at times, which an "
            "encoder does not know: give what it makes as the context, and leave it out"
        )


def check_unknown(flow: Flow, variables: Any, y: Any, context: Any) -> None:
    """Refuses flows of which a part takes the context as it is, also where it is not known.

    Raises:
      ValueError: log p is NaN without a context.
    """
    if context is None or not guidance_of(flow):
        return
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(variables)):
        return  # only shapes are asked for
    rngs, unknown = {"noise": jax.random.key(0)}, jnp.full_like(as_wide(context), jnp.nan)
    run = jax.jit(lambda v: flow.apply(v, y, unknown, method="log_prob", rngs=rngs))
    if jnp.isnan(run(variables)).all():  # type: ignore[arg-type]
        raise ValueError(
            "MaximumLikelihood: every part of a flow with guidance that takes the context must "
            "have guidance, for it is left out at times: give it to all autoregressive layers, and "
            "leave out other layers, and bases, that take a context"
        )


def dropped(flow: Flow, context: Any, share: float, key: Array) -> Any:
    """Contexts (n, ...) of a flow with guidance, a share of them NaN; of others as they are.

    Raises:
      ValueError: the flow's guidance is not 1.
    """
    weights = set(guidance_of(flow))
    if not weights:
        return context
    if weights != {1}:
        raise ValueError(
            "MaximumLikelihood: a flow is trained with guidance=1.0, as it is to be learned; take "
            f"density.with_guidance(w) after that; got {sorted(weights)}"
        )
    context = as_wide(context)
    kept = jax.random.bernoulli(key, 1 - share, (len(context), *(1,) * (context.ndim - 1)))
    return jnp.where(kept, context, jnp.nan)
