"""What recipes share: checks of arguments, and what mixes features between layers."""

from typing import Literal

from jflow.bijectors import Bijector, Conv1x1, Permute, Reverse

Mixing = Literal["reverse", "permute", "lu"]


def pairs(recipe: str, layers: int) -> int:
    """How many pairs of layers make `layers`; refuses odd numbers and none."""
    if layers < 2 or layers % 2:
        raise ValueError(f"{recipe}: layers must be an even number, 2 or more; got {layers}")
    return layers // 2


def mixer(recipe: str, mixing: Mixing) -> Bijector:
    """What stands between layers of vectors: "reverse", "permute" (random) or "lu" (learned)."""
    if mixing == "lu":
        return Conv1x1(event_ndim=1)
    if mixing not in ("reverse", "permute"):
        raise ValueError(f"{recipe}: mixing must be 'reverse', 'permute' or 'lu'; got {mixing!r}")
    return Reverse() if mixing == "reverse" else Permute()
