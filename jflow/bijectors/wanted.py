"""Whether log-determinants are wanted, for layers where a compiler cannot leave them out."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WANTED = ContextVar("log_det_wanted", default=True)


@contextmanager
def values_alone() -> Iterator[None]:
    """Layers that are traced here need not find log-determinants: what they give is not used."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


def log_det_wanted() -> bool:
    """Whether what is being traced needs log-determinants."""
    return _WANTED.get()
