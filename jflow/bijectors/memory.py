"""What of a layer is kept for the backward pass."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax

from jflow.bijectors.base import Bijector, OfTransformer
from jflow.functional.sharding import in_parts, products_saveable

# After the colon, one of `jax.checkpoint_policies`.
Memory = Literal[
    "store",
    "remat",
    "remat:dots_saveable",
    "remat:dots_with_no_batch_dims_saveable",
    "reversible",
]


def kept(memory: str, layer: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function of modules that keeps of its layer what `memory` says, if not "reversible".

    Of parameters in parts, what is gathered for a layer is not kept: there "store" keeps products.
    """
    kind, _, policy = memory.partition(":")
    if kind != "remat":
        if not in_parts():
            return layer
        return nn.remat(layer, policy=products_saveable, **options)
    chosen = getattr(jax.checkpoint_policies, policy) if policy else None
    return nn.remat(layer, policy=chosen, **options)


def check_memory(owner: str, memory: str, bijector: Bijector) -> None:
    """Refuses an unknown `memory`, and layers that cannot be run backwards as it asks.

    Raises:
      ValueError: naming the part.
    """
    if memory not in get_args(Memory):
        raise ValueError(f"{owner}: memory must be one of {get_args(Memory)}; got {memory!r}")
    if memory == "reversible":
        _check_reversible(owner, bijector)


def _check_reversible(owner: str, bijector: Bijector) -> None:
    for part in bijector.parts:
        _check_reversible(owner, part)
    kinds = bijector.log_det_kind, bijector.forward_kind, bijector.inverse_kind
    if not bijector.parts and kinds != ("exact", "closed form", "closed form"):
        raise ValueError(
            f"{owner}: memory='reversible' computes the inputs of layers from their outputs, and "
            "needs both directions in closed form and exact log-determinants; "
            f"{type(bijector).__name__} has log_det_kind {kinds[0]!r}, forward_kind {kinds[1]!r}, "
            f"inverse_kind {kinds[2]!r}. Use memory='remat'"
        )
    if isinstance(bijector, OfTransformer):
        x, y = bijector.transformer.supports
        if x != y:
            raise ValueError(
                f"{owner}: memory='reversible' computes the inputs of layers from their outputs, "
                f"and {type(bijector).__name__}({type(bijector.transformer).__name__}) maps {x} to "
                f"{y}, where many inputs round to one output. Put it outside, or use "
                "memory='remat'"
            )
