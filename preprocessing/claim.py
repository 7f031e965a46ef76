"""Building a folder so that it is whole or absent, whatever dies in between, and built by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocessing.errors import StoreError


@contextmanager
def claimed(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, and put it in the target's place if the block ends well.

    The folder is `.<name>.partial`, held by a file lock, which the system releases when its owner dies: what a dead run
    left is emptied and used again, what a living run builds is left alone. If the block raises, the folder is removed.

    Raises:
        StoreError: Another process is building the same target.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        _lock(lock, partial, target)
        _empty(partial)
        try:
            yield partial
            _replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _lock(lock: int, partial: Path, target: Path) -> None:
    busy = StoreError("another process is writing this store", where=target, fix="wait for it, then run again")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    # Between our open and our lock its owner may have finished and renamed it: then we hold the finished store.
    if not (partial.exists() and os.path.samestat(os.fstat(lock), partial.stat())):
        raise busy


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _replace(partial: Path, target: Path) -> None:
    """Rename over an existing folder, which the system allows for empty ones only: so the old one steps aside first."""
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        target.rename(aside)
    partial.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
