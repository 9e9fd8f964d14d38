"""What recipes share: checks of arguments, and what mixes features between layers."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any, Literal

from jflow.bijectors import (
    Bijector,
    Chain,
    Conv1x1,
    Dequantize,
    Elementwise,
    EmergingConv,
    Invert,
    Linear,
    PeriodicConv,
    Permute,
    Reverse,
    WoodburyConv,
)
from jflow.functional.arguments import check_counts
from jflow.transformers import FixedAffine, Sigmoid

_LEARNED = (
    "plu", "dense", "qr", "householder", "cayley", "expm", "low_rank", "circulant", "butterfly",
)  # fmt: skip
_IMAGES = ("emerging", "periodic", "woodbury")


def pairs(recipe: str, count: int, name: str = "layers") -> int:
    """How many pairs make so many layers, or what else is named; refuses odd numbers and none."""
    check_counts(recipe, 2, **{name: count})
    if count % 2:
        raise ValueError(f"{recipe}: {name} must be an even number, 2 or more; got {count}")
    return count // 2


def directed(recipe: str, bijector: Bijector, own: str, direction: str) -> Bijector:
    """The bijector, whose fast direction is `own`, or its inverse, so that this is `direction`."""
    if direction not in ("forward", "inverse"):
        raise ValueError(f"{recipe}: direction must be 'forward' or 'inverse'; got {direction!r}")
    return bijector if direction == own else Invert(bijector)


def of_values(
    values: int | Literal["auto"] | None, bijector: Bijector, event_ndim: int = 1
) -> Bijector:
    """The bijector, under dequantized grey levels where data are such: "auto" for 256 of images."""
    if values == "auto":
        values = 256 if event_ndim == 3 else None
    return bijector if values is None else Chain((Dequantize(values, event_ndim), bijector))


def check_one_size(recipe: str, features: Any, image_shape: Any) -> None:
    """Refuses both sizes, and none."""
    if (features is None) == (image_shape is None):
        raise ValueError(f"{recipe}: give features or image_shape; got {features=}, {image_shape=}")


def pixels(alpha: float | None) -> Bijector:
    """What brings pixels in [0, 1] to the line: a logit with that margin; None for a shift."""
    move = FixedAffine(shift=0.5) if alpha is None else Sigmoid(alpha)
    return Elementwise(move, event_ndim=3)


def checked_image(
    recipe: str, image_shape: Any, levels: int, *, first: bool = False
) -> tuple[int, int, int]:
    """The shape of an image that can be halved at all levels but the first, or there, too.

    Raises:
      ValueError: it is none.
    """
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    check_counts(recipe, levels=levels)
    good = len(shape) == 3 and all(isinstance(n, Integral) and int(n) > 0 for n in shape)
    times, power = (levels, "2^levels") if first else (levels - 1, "2^(levels - 1)")
    if not good or any(size % 2**times for size in shape[:2]):
        raise ValueError(
            f"{recipe}: image_shape must be (height, width, channels), and {power} divide "
            f"height and width; got {image_shape!r} and levels={levels}"
        )
    height, width, channels = (int(n) for n in shape)
    return height, width, channels


def mixer(recipe: str, mixing: str, event_ndim: int = 1, *, halves: bool = False) -> Bijector:
    """What stands between layers and mixes features, or an image's channels, by name.

    "reverse" and "permute" (random) rearrange; learned matrices are "plu" (or "lu") and the other
    kinds of `Linear`; for images, "emerging" and "periodic" also convolve, and "woodbury" adds
    low-rank updates over channels and pixels. `halves`, between couplings, is for random orders
    that exchange the halves, so that no feature is kept by every layer; see `Permute`.
    """
    names = ("reverse", "permute", "lu", *_LEARNED, *(_IMAGES if event_ndim == 3 else ()))
    if mixing not in names:
        raise ValueError(f"{recipe}: mixing must be one of {', '.join(names)}; got {mixing!r}")
    if mixing == "reverse":
        return Reverse(event_ndim)
    if mixing == "permute":
        return Permute(event_ndim=event_ndim, halves=halves)
    if mixing == "emerging":
        return Chain((Conv1x1(), EmergingConv()))
    if mixing == "periodic":
        return Chain((Conv1x1(), PeriodicConv()))
    if mixing == "woodbury":
        return Chain((Conv1x1(), WoodburyConv(1, 1)))
    kind = "plu" if mixing == "lu" else mixing
    return Linear(kind) if event_ndim == 1 else Conv1x1(kind)
