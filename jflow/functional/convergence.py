"""Iterations that may fail: their results are NaN in compiled programs, and errors outside."""

from typing import Any

import numpy as np

from jflow.functional.arrays import is_hidden


def failed_points(found: tuple[Any, int], *given: tuple[Any, int]) -> np.ndarray:
    """Which results are NaN although what they were made of is finite, (*batch).

    None, if that cannot be looked at here.

    Args:
      found: the results, and how many trailing axes belong to one point.
      given: what they were made of, likewise; an array may be None, or shared by all points.
    """
    given = tuple(pair for pair in given if pair[0] is not None)
    if any(is_hidden(array) for array, _ in (found, *given)):
        return np.zeros(0, bool)
    failed = np.isnan(found[0]).any(axis=_trailing(found[1]))
    for array, event_ndim in given:
        failed = failed & np.isfinite(array).all(axis=_trailing(event_ndim))
    return np.asarray(failed)


def _trailing(event_ndim: int) -> tuple[int, ...]:
    return tuple(range(-event_ndim, 0))
