"""What a base distribution is."""

import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jflow.functional.arrays import is_hidden
from jflow.functional.supports import Interval, Supports

# Makes a distribution of one event. Either a hashable callable `(event_shape, dtype)`, or, with
# parameters or for a context, a Flax module called with `(event_shape, dtype, context)`.
# The distribution has Distrax's `sample(seed=, sample_shape=)`, `log_prob` and `mean`; for a
# context (*batch, C) it may be a batch of distributions, one for each row, and its mean shows it.
# If it can be narrowed, it has `tempered(temperature)`, which returns the narrower distribution.
# It has `support(event_shape)`, if it does not live on the line.
# A base whose samples are not differentiable with respect to all of its parameters says so by an
# attribute `reparameterized` that is False.
Base = Callable[..., Any]


def build(
    base: Base, event_shape: tuple[int, ...], dtype: DTypeLike, context: Array | None = None
) -> Any:
    """The distribution of events of that shape. A base that is no module gets no context."""
    if isinstance(base, nn.Module):
        return base(event_shape, dtype, context)
    return base(event_shape, dtype)


def check_base(base: Base, event_shape: tuple[int, ...]) -> None:
    """Refuses a base that does not make distributions of events of that shape.

    What a module makes is seen when it has parameters: `Flow.log_prob` looks at it.

    Raises:
      TypeError: it cannot be called, or is not hashable.
      ValueError: its log_prob does not take such events, or give one number for each.
    """
    if not callable(base):
        raise TypeError(
            "base must make a distribution: a function of (event_shape, dtype), such as "
            f"jflow.StandardNormal(), or a Flax module; got {type(base).__name__}. Put "
            "lambda event_shape, dtype: before a distribution"
        )
    if not isinstance(base, Hashable):
        raise TypeError(
            f"base must be hashable, such as a frozen dataclass; got {type(base).__name__}. It "
            "tells flows apart, so that equal ones compile once"
        )
    if not isinstance(base, nn.Module):
        _check_made(base, event_shape)


@lru_cache(maxsize=256)
def _check_made(base: Base, event_shape: tuple[int, ...]) -> None:
    events = jax.ShapeDtypeStruct((5, *event_shape), jax.dtypes.canonicalize_dtype(float))
    try:
        with default_promotion():
            found = jax.eval_shape(
                lambda x: build(base, event_shape, x.dtype).log_prob(x), events
            ).shape
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"base must be of events {event_shape}; its log_prob of five of them raises {error}"
        ) from error
    if found != (5,):
        raise ValueError(of_wrong_shape(event_shape, (5,), found))


def of_wrong_shape(
    event_shape: tuple[int, ...], wanted: tuple[int, ...], found: tuple[int, ...]
) -> str:
    """What to say of a log_prob of that shape."""
    return (
        f"base must give one log_prob for each event {event_shape}: {wanted} of them, not {found}. "
        "Sum over the event, as distrax.Independent does, and make it of the event's size"
    )


@contextmanager
def default_promotion() -> Iterator[Any]:
    """Distrax relies on implicit promotion, which the user may have switched off."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def own_batch(distribution: Any, event_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The batch shape of a distribution: () or, if it depends on a context, that of the context."""
    shape = jnp.shape(distribution.mean())
    return shape[: max(0, len(shape) - len(event_shape))]


def draw(
    distribution: Any, key: Array, shape: tuple[int, ...], event_shape: tuple[int, ...]
) -> Array:
    """Draws (*shape, *event). The distribution's own batch shape is () or the end of `shape`."""
    own = own_batch(distribution, event_shape)
    return distribution.sample(seed=key, sample_shape=shape[: len(shape) - len(own)])


def support_of(base: Base, event_shape: tuple[int, ...]) -> Supports:
    """Where the base lives."""
    own = getattr(base, "support", None)
    if own is not None:
        return own(event_shape)
    return Interval(source=getattr(base, "__name__", type(base).__name__))


def reparameterized(base: Base) -> bool:
    """Whether samples of the base are differentiable with respect to all of its parameters."""
    return getattr(base, "reparameterized", True)


def as_temperature(temperature: float | Array | None) -> float | Array | None:
    """A temperature as it is, or None for 1, which every base has.

    Raises:
      ValueError: it is not one number of 0 or more.
    """
    if temperature is None or is_hidden(temperature):
        return temperature
    if np.ndim(temperature) or not temperature >= 0:
        raise ValueError(f"temperature must be one number, 0 or more; got {temperature}")
    return None if temperature == 1 else temperature


def tempered(distribution: Any, temperature: float | Array) -> Any:
    """The distribution with its spread scaled.

    Raises:
      ValueError: it does not define what that is.
    """
    if not hasattr(distribution, "tempered"):
        raise ValueError(
            f"temperature must be 1 for this base: {type(distribution).__name__.strip('_')} has no "
            "narrower distribution. Normals, logistics, Student-t's and mixtures have, and so has "
            "a base of your own whose distribution has a method tempered(temperature)"
        )
    return distribution.tempered(temperature)


def inverse_softplus(y: float) -> float:
    """The r with softplus(r) = y: where a learned positive number starts."""
    return y + math.log(-math.expm1(-y))
