"""Checks of arguments that recipes share."""


def pairs(recipe: str, layers: int) -> int:
    """How many pairs of layers make `layers`; refuses odd numbers and none."""
    if layers < 2 or layers % 2:
        raise ValueError(f"{recipe}: layers must be an even number, 2 or more; got {layers}")
    return layers // 2
