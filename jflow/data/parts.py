"""Rows some at a time."""

from collections.abc import Iterator

import numpy as np


def all_over(count: int, most: int) -> np.ndarray:
    """`most` places, or all, evenly from first to last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def in_parts(count: int, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows in parts of one size, a power of two, so that few sizes are compiled; and their ends.

    The last part is filled up with the last row.
    """
    size = min(1 << max(0, count - 1).bit_length(), 1 << max(1, most).bit_length() - 1)
    for first in range(0, count, size):
        yield np.minimum(np.arange(first, first + size), count - 1), min(count, first + size)
