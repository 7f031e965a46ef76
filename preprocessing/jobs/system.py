"""Operations that systems have under different names: reading at an offset, writing in pieces, locking files.

It is the only module that uses what Windows lacks.
"""

import os
import threading
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

from preprocessing.jobs.files import remove_quietly

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


def lock_file(descriptor: int) -> None:
    """Take the lock of an open file for this process, without waiting.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file system cannot lock files.
    """
    if fcntl:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[attr-defined]
        return
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except PermissionError as error:
        raise BlockingIOError(*error.args) from None


def remove_locked(path: Path, descriptor: int) -> None:
    """Remove and close a lock file that this process holds.

    It is removed first, because a closed file may already be another process's lock. Windows removes closed files only,
    and none that another process has opened.
    """
    if fcntl:
        remove_quietly(path)
        os.close(descriptor)
    else:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
        os.close(descriptor)
        remove_quietly(path)


def open_binary(path: Path) -> int:
    """Return the descriptor of a file opened to read its bytes; by default, Windows translates line ends."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


_seeking = threading.Lock()


def _read_by_seeking(descriptor: int, length: int, offset: int) -> bytes:
    """Read like `os.pread`; threads that read at the same time wait for each other."""
    with _seeking:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", _read_by_seeking)
"""Function (descriptor, length, offset) -> bytes of an open file; threads may share the descriptor.

The result is shorter if the file ends earlier."""


def write_pieces(file: FileIO, pieces: Sequence[bytes | memoryview]) -> None:
    """Write the pieces one after another, if possible without joining them first, which would copy each piece.

    Args:
        file: Unbuffered file.
        pieces: At most 1,024 pieces (IOV_MAX).
    """
    size, written = sum(map(len, pieces)), 0
    if hasattr(os, "writev"):
        written = os.writev(file.fileno(), pieces)  # type: ignore[attr-defined]
    while written < size:  # the disk is nearly full, a signal arrived, or there is no writev
        written += file.write(memoryview(b"".join(pieces))[written:])
