"""Checks of arguments that several rooms share."""

from numbers import Integral
from typing import Any


def check_counts(owner: str, least: int = 1, /, **counts: Any) -> None:
    """Refuses what is not a whole number, `least` or more.

    Args:
      owner: whose arguments they are.
      least: what they must be at least.
      counts: their names and values.

    Raises:
      ValueError: one of them is not.
    """
    for name, count in counts.items():
        whole = isinstance(count, Integral) and not isinstance(count, bool)
        if not (whole and int(count) >= least):
            raise ValueError(
                f"{owner}: {name} must be a whole number, {least} or more; got {count!r}"
            )
