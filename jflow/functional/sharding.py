"""Parameters that live in parts on several devices."""

from typing import Any, TypeVar

import jax
from jax import lax
from jax.sharding import PartitionSpec

T = TypeVar("T")

FSDP = "fsdp"  # the axis of devices that each have a part of the parameters


def in_parts() -> bool:
    """Whether parameters are in parts: whether this is traced in the context of such a mesh.

    That is one with several devices along an axis "fsdp", as fully sharded training sets. Others
    that a user may have set change nothing.
    """
    return jax.sharding.get_abstract_mesh().shape.get(FSDP, 1) > 1


def gathered(tree: T) -> T:
    """The arrays of one layer, whole on each device, if they are in parts.

    Compilers are free to split a product by its weights, and then they gather the examples on
    every device. Weights that are gathered where a layer uses them leave the examples where they
    are.
    """
    if not in_parts():
        return tree
    return jax.tree.map(lambda a: lax.with_sharding_constraint(a, PartitionSpec()), tree)


def products_saveable(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: matrix products and convolutions are kept.

    All else is computed again: parameters are gathered again, too, so that no device ever has those
    of all layers.
    """
    return primitive.name in ("dot_general", "conv_general_dilated")
