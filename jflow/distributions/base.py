"""Base distributions, as hashable descriptions of Distrax ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

# Makes a distribution of one event, given its shape and dtype: anything with Distrax's
# `sample(seed=, sample_shape=)`, `log_prob` and `mean`.
Base = Callable[[tuple[int, ...], DTypeLike], Any]


@dataclass(frozen=True)
class StandardNormal:
    """Independent standard normals: log p(x) = -|x|^2 / 2 - D log(2 pi) / 2."""

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        import distrax

        return _independent(distrax.Normal, event_shape, dtype)


@dataclass(frozen=True)
class StandardLogistic:
    """Independent standard logistics: log p(x) = sum of -x - 2 log(1 + e^-x) (NICE, eq. 3.3)."""

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        import distrax

        return _independent(distrax.Logistic, event_shape, dtype)


@dataclass(frozen=True)
class StandardUniform:
    """Independent uniforms on [0, 1]: log p(x) is 0 inside, and -inf outside."""

    def __call__(self, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The distribution of events of that shape."""
        import distrax

        return _independent(distrax.Uniform, event_shape, dtype)


def _independent(family: Any, event_shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    import distrax  # on demand everywhere here: it takes as long to import as JAX

    zeros, ones = jnp.zeros(event_shape, dtype), jnp.ones(event_shape, dtype)
    return distrax.Independent(family(zeros, ones), reinterpreted_batch_ndims=len(event_shape))
