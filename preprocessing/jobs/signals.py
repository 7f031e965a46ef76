"""SIGINT and SIGTERM as one exception, so that every verb cleans up and ends with the signal's exit code."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C; and kill, scancel, docker stop."""


class Stopped(BaseException):
    """A signal asked this process to end.

    Not a KeyboardInterrupt: Lightning turns that into exit code 1, and its own handling of SIGTERM into exit code 0.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """The code by which shells report the signal: 130 or 143."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"interrupted ({self.number.name}); what is done is kept, and the same command goes on from there"


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` where SIGINT or SIGTERM arrives in this block; a second signal ends the process at once.

    Outside of the main thread, which alone may handle signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if arrived:
            os._exit(128 + number)
        arrived.append(number)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
