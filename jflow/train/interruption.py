"""Ending a run on SIGTERM without losing a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Preempted(SystemExit):
    """SIGTERM came, and a checkpoint was written. Left alone, it ends Python with status 75.

    75 is EX_TEMPFAIL: try again later.
    """

    def __init__(self) -> None:
        super().__init__(75)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


@contextmanager
def watch_for_termination(enabled: bool) -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM has come since.

    Only Python's main thread can handle signals; elsewhere, and if not enabled, SIGTERM does what
    it did before.
    """
    came = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
