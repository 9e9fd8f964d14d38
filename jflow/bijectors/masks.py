"""Which part of an event sets a coupling's transform, and which part is transformed.

A mask is True where the event passes through unchanged and sets the transform of the rest.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

from jflow.functional.arrays import batch_shape, permute
from jflow.functional.supports import Support, Supports, each, entries, joined, mixed

Mask: TypeAlias = str | tuple[Any, ...]

_VECTOR = {
    "half": lambda features: np.arange(features) < features // 2,
    "alternating": lambda features: np.arange(features) % 2 == 0,
}
_CHANNEL = {"channel": _VECTOR["half"]}


def _checkerboard(height: int, width: int) -> np.ndarray:
    return (np.arange(height)[:, None] + np.arange(width)) % 2 == 0


_SWAPPED = "_swapped"
MASK_NAMES = tuple(
    name + suffix for name in (*_VECTOR, *_CHANNEL, "checkerboard") for suffix in ("", _SWAPPED)
)


class Partition(Protocol):
    """Splits events into the kept and the moved part, and puts them together again."""

    event_ndim: int
    outputs: int  # how many numbers the net returns at each position, per parameter

    def split(self, x: Array) -> tuple[Array, Array]:
        """What the net sees, and the part that is transformed."""
        ...

    def params(self, outputs: Array, num_params: int) -> Array:
        """The net's outputs as (*moved part, num_params)."""
        ...

    def merge(self, x: Array, moved: Array) -> Array:
        """x with its moved part replaced."""
        ...

    def support(self, support: Supports, move: Callable[[Support], Support]) -> Supports:
        """Where the whole lives when the moved part does where `move` brings it."""
        ...


class FeaturePartition:
    """Splits the last axis: the net sees the kept features alone."""

    def __init__(self, mask: np.ndarray, event_ndim: int):
        self.event_ndim = event_ndim
        self._mask = mask
        kept, moved = np.flatnonzero(mask), np.flatnonzero(~mask)
        self.outputs = len(moved)
        self._kept = len(kept)
        # Contiguous halves are slices; every other split is one permutation, then a slice.
        self._swapped = bool((np.diff(np.concatenate([moved, kept])) == 1).all())
        order = np.concatenate([kept, moved])
        self._order = None if self._swapped or (np.diff(order) == 1).all() else order

    def split(self, x: Array) -> tuple[Array, Array]:
        if self._swapped:
            return x[..., self.outputs :], x[..., : self.outputs]
        if self._order is not None:
            x = permute(x, self._order)
        return x[..., : self._kept], x[..., self._kept :]

    def params(self, outputs: Array, num_params: int) -> Array:
        # Parameter by parameter, so that the transformer reads contiguous slices.
        parts = outputs.reshape(*outputs.shape[:-1], num_params, self.outputs)
        return jnp.swapaxes(parts, -1, -2)

    def merge(self, x: Array, moved: Array) -> Array:
        kept, _ = self.split(x)
        if self._swapped:
            return jnp.concatenate([moved, kept], axis=-1)
        both = jnp.concatenate([kept, moved], axis=-1)
        return both if self._order is None else permute(both, np.argsort(self._order))

    def support(self, support: Supports, move: Callable[[Support], Support]) -> Supports:
        parts = zip(self._mask, entries(support, len(self._mask)), strict=True)
        return joined(part if kept else move(part) for kept, part in parts)


class PositionPartition:
    """Splits an event by positions: the net sees all of it, with its moved part set to zero.

    Positions are those of all axes but the last: the pixels of an image. Transforms are computed
    for the moved part alone, as a flat vector.
    """

    def __init__(self, mask: np.ndarray):
        self._mask, self.event_ndim = mask, mask.ndim
        self.outputs = mask.shape[-1]
        flat = mask.ravel()
        self._order = np.concatenate([np.flatnonzero(flat), np.flatnonzero(~flat)])
        self._kept = int(flat.sum())

    def split(self, x: Array) -> tuple[Array, Array]:
        mask = self._mask.reshape((1,) * (x.ndim - self.event_ndim) + self._mask.shape)
        return jnp.where(mask, x, 0), self._flat(x)[..., self._kept :]

    def params(self, outputs: Array, num_params: int) -> Array:
        batch = batch_shape(outputs, self.event_ndim)
        positions = self._mask.size // self.outputs
        parts = outputs.reshape(*batch, positions, num_params, self.outputs)
        parts = jnp.moveaxis(parts, -2, 0).reshape(num_params, *batch, self._mask.size)
        return jnp.moveaxis(permute(parts, self._order)[..., self._kept :], 0, -1)

    def merge(self, x: Array, moved: Array) -> Array:
        both = jnp.concatenate([self._flat(x)[..., : self._kept], moved], axis=-1)
        return permute(both, np.argsort(self._order)).reshape(x.shape)

    def support(self, support: Supports, move: Callable[[Support], Support]) -> Supports:
        # Of each channel some pixels are kept, and others moved.
        return each(lambda part: mixed("Coupling", (part, move(part))), support)

    def _flat(self, x: Array) -> Array:
        flat = x.reshape(*batch_shape(x, self.event_ndim), self._mask.size)
        return permute(flat, self._order)


def freeze_mask(mask: str | Sequence[Any] | np.ndarray) -> Mask:
    """A mask as a hashable: a checked name, or nested tuples of bools.

    Raises:
      ValueError: an unknown name, values other than 0 and 1, or no axes.
    """
    if isinstance(mask, str):
        if mask not in MASK_NAMES:
            raise ValueError(
                f"Coupling: mask must be one of {', '.join(MASK_NAMES)}, or a boolean array; "
                f"got {mask!r}"
            )
        return mask
    array = np.asarray(mask)
    if array.ndim < 1 or not np.isin(array, (0, 1)).all():
        raise ValueError(
            "Coupling: a mask must have the axes of an event, such as (features,) or (height, "
            f"width, channels), and hold 0 and 1; got shape {array.shape} and values "
            f"{np.unique(array)[:5]}"
        )
    return _as_tuples(array.astype(bool).tolist())


def mask_event_ndim(mask: Mask) -> int:
    """How many event axes a mask implies: of names, 1 for vectors and 3 for images."""
    if isinstance(mask, str):
        return 1 if mask.removesuffix(_SWAPPED) in _VECTOR else 3
    return np.ndim(mask)


@cache
def partition(mask: Mask, event_shape: tuple[int, ...]) -> Partition:
    """The split that `mask` (from `freeze_mask`) makes of events of that shape.

    Raises:
      ValueError: the mask does not fit the event shape, or leaves one part empty.
    """
    if len(event_shape) != mask_event_ndim(mask):
        raise ValueError(
            f"Coupling: mask {_describe(mask)} is for events with {mask_event_ndim(mask)} axes; "
            f"got event shape {event_shape}"
        )
    array = _array(mask, event_shape)
    if array.all() or not array.any():
        raise ValueError(
            f"Coupling: mask {_describe(mask)} leaves one part of {event_shape} empty; "
            "both parts need one element or more"
        )
    if all(size == 1 for size in array.shape[:-1]):
        features = np.broadcast_to(array.ravel(), event_shape[-1:])
        return FeaturePartition(features, event_ndim=len(event_shape))
    return PositionPartition(np.broadcast_to(array, event_shape))


def _array(mask: Mask, event_shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(mask, str):
        name = mask.removesuffix(_SWAPPED)
        if name == "checkerboard":
            array = _checkerboard(*event_shape[:2])[..., None]
        else:
            makers: dict[str, Callable[[int], np.ndarray]] = {**_VECTOR, **_CHANNEL}
            array = makers[name](event_shape[-1]).reshape((1,) * (len(event_shape) - 1) + (-1,))
        return ~array if mask.endswith(_SWAPPED) else array
    array = np.asarray(mask)
    if any(m not in (1, n) for m, n in zip(array.shape, event_shape, strict=True)) or (
        array.shape[-1] != event_shape[-1] and array.ndim == 1
    ):
        raise ValueError(
            f"Coupling: the mask has shape {array.shape}, which does not fit {event_shape}"
        )
    return array


def _describe(mask: Mask) -> str:
    return repr(mask) if isinstance(mask, str) else f"of shape {np.shape(mask)}"


def _as_tuples(nested: Any) -> Any:
    return tuple(_as_tuples(item) for item in nested) if isinstance(nested, list) else nested
