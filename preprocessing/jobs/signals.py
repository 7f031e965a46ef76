"""SIGINT and SIGTERM as one exception, so that every verb cleans up and exits with the signal's exit code."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a run: SIGINT (Ctrl-C) and SIGTERM (kill, scancel, docker stop)."""


class StopSignal(BaseException):
    """Request to end this process, received as a signal.

    It is not a KeyboardInterrupt, which Lightning turns into exit code 1; Lightning turns SIGTERM into exit code 0.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """Exit code by which shells report the signal: 130 or 143."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"interrupted ({self.number.name}); finished work is kept, and the same command resumes from there"


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `StopSignal` when SIGINT or SIGTERM arrives during the block; a second signal ends the process at once.

    In other threads than the main thread the block runs unchanged, because only the main thread may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if arrived:
            os._exit(128 + number)
        arrived.append(number)
        raise StopSignal(number)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
