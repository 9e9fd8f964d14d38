"""In which order positions depend on each other."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

NAMES = ("natural", "reversed", "random")
Graph = tuple[tuple[bool, ...], ...]


def checked_order(order: str | Sequence[Any] | np.ndarray) -> Any:
    """A name, a permutation as a tuple, or a graph as a tuple of tuples of bools.

    Raises:
      ValueError: it is none of these, or has a cycle.
    """
    if isinstance(order, str) and order in NAMES:
        return order
    try:
        given: np.ndarray = np.asarray(order)
    except ValueError:  # of lists of several lengths
        given = np.zeros(())
    whole = given.dtype == bool or np.issubdtype(given.dtype, np.integer)
    if given.ndim not in (1, 2) or not given.size or not whole:
        raise ValueError(
            f"MaskedAutoregressive: order must be one of {NAMES}, a permutation, or the (D, D) "
            f"matrix of a graph; got {order!r}"
        )
    if given.ndim == 2:
        return _checked_graph(given)
    permutation = tuple(int(i) for i in given)
    if sorted(permutation) != list(range(len(permutation))):
        raise ValueError(
            f"MaskedAutoregressive: order must be a permutation of 0..n-1; got {permutation}"
        )
    return permutation


def _checked_graph(matrix: np.ndarray) -> Graph:
    if matrix.shape[0] != matrix.shape[1] or not np.isin(matrix, (0, 1)).all():
        raise ValueError(
            "MaskedAutoregressive: order, as a graph, must be a (D, D) matrix of 0 and 1, where "
            f"entry i, j tells whether feature i depends on feature j; got {matrix.tolist()}"
        )
    graph = tuple(map(tuple, matrix.astype(bool).tolist()))
    sorted_features(graph)
    return graph


@lru_cache(maxsize=64)
def sorted_features(graph: Graph) -> tuple[int, ...]:
    """The features, each after all that it depends on; otherwise in their order.

    Raises:
      ValueError: features depend on each other in a cycle.
    """
    matrix = np.array(graph)
    missing, done = matrix.sum(axis=1), np.zeros(len(graph), bool)
    found: list[int] = []
    while len(found) < len(graph):
        ready = np.flatnonzero(~done & (missing == 0))
        if not ready.size:
            raise ValueError(
                "MaskedAutoregressive: order, as a graph, must have no cycles; features "
                f"{np.flatnonzero(~done).tolist()} depend on themselves or on each other in one"
            )
        found.append(int(ready[0]))
        done[ready[0]] = True
        missing -= matrix[:, ready[0]]
    return tuple(found)


@lru_cache(maxsize=64)
def sorted_graph(graph: Graph) -> Graph:
    """The graph of the features in that order."""
    order = np.array(sorted_features(graph))
    return tuple(map(tuple, np.array(graph)[np.ix_(order, order)].tolist()))
