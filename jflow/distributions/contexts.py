"""What a flow is conditioned on: its shape, its checks, its units."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jax import Array

from jflow.bijectors.base import Bijector
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import align, as_wide
from jflow.functional.moments import channel_log_std, channel_mean

# Shapes of a context: of an array, or of arrays by name.
Shapes = Any
# Of so many axes: what a context is, and their names.
_KINDS = {1: ("a vector", "C"), 2: ("a sequence", "SC"), 3: ("an image", "HWC")}
_PLAIN = re.compile(r"[^/.]+").fullmatch


def as_shapes(given: Any) -> Shapes:
    """The shape of a context as flows keep it: None, a tuple, or a frozen dict of such.

    Raises:
      ValueError: it is neither a width, nor a shape, nor a dict of shapes.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        if not given or not all(isinstance(name, str) and _PLAIN(name) for name in given):
            raise ValueError(
                "Flow: context_shape must have names as its keys, without '/' and '.'; got "
                f"{given!r}"
            )
        return FrozenDict({name: as_shapes(given[name]) for name in sorted(given)})
    shape = tuple(given) if isinstance(given, tuple | list) else (given,)
    for size in shape:
        check_counts("Flow", context_shape=size)
    return tuple(map(int, shape))


def as_json(shapes: Shapes) -> Any:
    """The same as JSON can hold it."""
    if isinstance(shapes, Mapping):
        return {name: as_json(shape) for name, shape in shapes.items()}
    return None if shapes is None else list(shapes)


def leaves(shapes: Shapes, context: Any, name: str = "context") -> list[tuple[str, Any, Any]]:
    """Name, shape and array of each part of a context; the array is None where it is missing.

    Raises:
      ValueError: names that do not fit.
    """
    if not isinstance(shapes, Mapping):
        return [] if shapes is None else [(name, shapes, context)]
    if not isinstance(context, Mapping) or set(context) != set(shapes):
        got: Any = sorted(context) if isinstance(context, Mapping) else type(context).__name__
        if (shape := getattr(context, "shape", None)) is not None:
            got = f"an array {shape}"
        raise ValueError(f"{name} must be a dict of {sorted(shapes)}; got {got}")
    return [
        leaf
        for part, shape in shapes.items()
        for leaf in leaves(shape, context[part], f"{name}[{part!r}]")
    ]


def converted(context: Any, change: Callable[[Any], Any]) -> Any:
    """The context with each of its parts, which only dicts hold, changed; None stays None."""
    if isinstance(context, Mapping):
        return {name: converted(part, change) for name, part in context.items()}
    return None if context is None else change(context)


def points(shapes: Shapes, context: Any) -> list[tuple[Any, int]]:
    """The arrays of a context, and how many trailing axes of each belong to one."""
    return [(array, len(shape)) for _, shape, array in leaves(shapes, context)]


def each(change: Callable[..., Any], shapes: Shapes, *contexts: Any) -> Any:
    """change(shape, array, ...) of each part of contexts that have those names; None for none."""
    if isinstance(shapes, Mapping):
        return {name: each(change, shapes[name], *(c[name] for c in contexts)) for name in shapes}
    return None if shapes is None else change(shapes, *contexts)


def batch_of(shapes: Shapes, context: Any) -> tuple[int, ...] | None:
    """The batch shape that all parts of a context have; None if it has another shape than wanted.

    Without a context, it is that of one for all: ().
    """
    if shapes is None or context is None:
        return () if shapes is None and context is None else None
    try:
        found = {_batch(array, shape) for _, shape, array in leaves(shapes, context)}
    except ValueError:
        return None
    return found.pop() if len(found) == 1 else None


def _batch(array: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    split = jnp.ndim(array) - len(shape)
    return jnp.shape(array)[:split] if split >= 0 and jnp.shape(array)[split:] == shape else None


def check_batch_of(shapes: Shapes, context: Any, batch: tuple[int, ...]) -> tuple[int, ...]:
    """The batch shape of a context: that given, or its last axes.

    Raises:
      ValueError: another shape; or a context where there should be none.
    """
    if shapes is None:
        if context is not None:
            raise ValueError(
                "context is given to a flow without one; build the flow with context_shape="
            )
        return ()
    for name, shape, array in leaves(shapes, context):
        own = None if array is None else _batch(array, shape)
        if own is None or own != batch[len(batch) - len(own) :]:
            wanted = f"{name} must be {shape} or {(*batch, *shape)}"
            wanted += ", or have the last axes of that" if len(batch) > 1 else ""
            raise ValueError(f"{wanted}; got {None if array is None else jnp.shape(array)}")
    own = batch_of(shapes, context)
    if own is None:
        raise ValueError(
            f"the parts of context must have one batch shape, {batch} or its last axes, all of "
            f"them; got {each(lambda shape, array: _batch(array, shape), shapes, context)}"
        )
    return own


class Standardize(nn.Module):
    """Contexts in units of the first ones: (c - mean) / std, of each channel (the last axis).

    The statistics are those of the contexts that `init` is given, over all other axes, and are kept
    in the collection "constants". Channels that hold nothing but 0 and 1 there (one-hot classes,
    masks) stay as they are, and so do all where there is one context for all points; constant ones
    are shifted alone.
    """

    @nn.compact
    def __call__(self, context: Any, own: tuple[int, ...]) -> Any:
        """The context, whose batch shape is `own`, with all of its parts standardised."""
        return self._parts("", context, own)

    def _parts(self, name: str, context: Any, own: tuple[int, ...]) -> Any:
        if isinstance(context, Mapping):
            return {key: self._parts(f"{name}{key}.", context[key], own) for key in context}
        if context.ndim == len(own):  # a number alone is one channel
            return self._part(name, context[..., None], bool(own))[..., 0]
        return self._part(name, context, bool(own))

    def _part(self, name: str, part: Array, several: bool) -> Array:
        rows = tuple(range(part.ndim - 1))

        def of(statistic: Callable[[Array], Array]) -> Array:
            stays = jnp.all((part == 0) | (part == 1), axis=rows) | (not several)
            found = statistic(part)
            return jnp.where(stays, jnp.zeros_like(found), found)

        shift = self.variable("constants", f"{name}mean", of, channel_mean)
        scale = self.variable("constants", f"{name}log_std", of, channel_log_std)
        return (part - align(shift.value, part)) * jnp.exp(-align(scale.value, part))


def context_ndims(event_shape: tuple[int, ...], bijector: Bijector) -> tuple[int, ...]:
    """How many axes layers' contexts may have: vectors, or images for images; or sequences."""
    if bijector.takes_sequences:
        return (2,)
    return (1, 3) if len(event_shape) == 3 else (1,)


def encoded(
    context: Any, own: tuple[int, ...], batch: tuple[int, ...], ndims: tuple[int, ...], encoder: Any
) -> Array:
    """What layers are given: vectors (C,) or (*batch, C), sequences (S, C), images (H, W, C).

    Raises:
      ValueError: the encoder returned something else.
    """
    if encoder is not None:
        # It always is given one batch axis, and need not provide for none or for several.
        count = math.prod(own)
        rows = lambda part: part.reshape(count, *part.shape[len(own) :])  # noqa: E731
        context = encoder(converted(context, rows))
        if getattr(context, "shape", (None,))[:1] == (count,):
            context = context.reshape(*own, *context.shape[1:])
    got: Any = getattr(context, "shape", type(context).__name__)
    shape = got[len(own) :] if got[: len(own)] == own else ()
    if len(shape) in ndims:
        # One vector for all stays one, which layers need not copy. A sequence could be taken for a
        # batch of vectors.
        alone = not own and len(shape) == 1
        return context if alone else jnp.broadcast_to(context, (*batch, *shape))
    wanted = " or ".join(f"({', '.join([*map(str, own), *_KINDS[n][1]])})" for n in ndims)
    raise ValueError(f"Flow: encoder must return an array {wanted}{_hint(ndims)}; got {got}")


def check_encoder(shapes: Shapes, encoder: Any, ndims: tuple[int, ...]) -> None:
    """Refuses contexts that layers cannot take without an encoder, and encoders without contexts.

    Raises:
      ValueError: naming what is missing.
    """
    if encoder is not None and not isinstance(encoder, nn.Module):
        raise ValueError(f"Flow: encoder must be a Flax module; got {type(encoder).__name__}")
    if shapes is None and encoder is not None:
        raise ValueError("Flow: an encoder needs the shape of the context; give context_shape")
    plain = isinstance(shapes, tuple) and len(shapes) in ndims
    if shapes is not None and encoder is None and not plain:
        wanted = " or ".join(
            f"{kind} (*batch, {', '.join(axes)})" for kind, axes in (_KINDS[n] for n in ndims)
        )
        raise ValueError(
            f"Flow: a context of shape {as_json(shapes)} needs an encoder, a Flax module that "
            f"makes {wanted} of it, which is what layers take{_hint(ndims)}"
        )


def _hint(ndims: tuple[int, ...]) -> str:
    """Which layers take what others do not."""
    alone = ndims == (2,)
    return f"; networks with context='cross' take sequences{' alone' if alone else ''}"


def in_units_of(
    variables: Mapping[str, Any], context: Any, rows: tuple[int, ...]
) -> dict[str, Any]:
    """The variables of a flow, with the units of its contexts taken from others, (*rows, ...)."""
    constants = dict(variables.get("constants", {}))
    if "context_scale" not in constants:
        return dict(variables)
    made = Standardize().init(jax.random.key(0), converted(context, as_wide), rows)
    constants["context_scale"] = made["constants"]
    return {**variables, "constants": constants}
