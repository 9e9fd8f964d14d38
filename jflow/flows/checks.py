"""What recipes share: checks of arguments, and what mixes features between layers."""

from jflow.bijectors import (
    Bijector,
    Chain,
    Conv1x1,
    EmergingConv,
    Linear,
    PeriodicConv,
    Permute,
    Reverse,
    WoodburyConv,
)

_LEARNED = (
    "plu", "dense", "qr", "householder", "cayley", "expm", "low_rank", "circulant", "butterfly",
)  # fmt: skip
_IMAGES = ("emerging", "periodic", "woodbury")


def pairs(recipe: str, layers: int) -> int:
    """How many pairs of layers make `layers`; refuses odd numbers and none."""
    if layers < 2 or layers % 2:
        raise ValueError(f"{recipe}: layers must be an even number, 2 or more; got {layers}")
    return layers // 2


def mixer(recipe: str, mixing: str, event_ndim: int = 1) -> Bijector:
    """What stands between layers and mixes features, or an image's channels, by name.

    "reverse" and "permute" (random) rearrange; learned matrices are "plu" (or "lu") and the other
    kinds of `Linear`; for images, "emerging" and "periodic" also convolve, and "woodbury" adds
    low-rank updates over channels and pixels.
    """
    names = ("reverse", "permute", "lu", *_LEARNED, *(_IMAGES if event_ndim == 3 else ()))
    if mixing not in names:
        raise ValueError(f"{recipe}: mixing must be one of {', '.join(names)}; got {mixing!r}")
    if mixing == "reverse":
        return Reverse(event_ndim)
    if mixing == "permute":
        return Permute(event_ndim=event_ndim)
    if mixing == "emerging":
        return Chain((Conv1x1(), EmergingConv()))
    if mixing == "periodic":
        return Chain((Conv1x1(), PeriodicConv()))
    if mixing == "woodbury":
        return Chain((Conv1x1(), WoodburyConv(1, 1)))
    kind = "plu" if mixing == "lu" else mixing
    return Linear(kind) if event_ndim == 1 else Conv1x1(kind)
