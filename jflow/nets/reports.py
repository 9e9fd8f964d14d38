"""What parts of a model say of themselves, where `apply` is asked for it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax import Array


def report(module: nn.Module, **values: Callable[[], Array]) -> None:
    """Leaves values in the collection "solver", where that is asked for (`mutable`)."""
    if module.is_mutable_collection("solver") and not module.is_initializing():
        for name, value in values.items():
            module.sow("solver", name, value(), init_fn=_nothing, reduce_fn=_last)


def _nothing() -> Any:
    return None


def _last(_: Any, new: Any) -> Any:
    return new
