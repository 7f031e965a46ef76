"""Building a folder so that it is whole or absent, whatever dies in between, and by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocessing.errors import BusyError, OutputError, StoreError
from preprocessing.jobs.files import CANNOT_WRITE, cannot_write


@contextmanager
def claimed(target: Path, mark: str) -> Iterator[Path]:
    """Yield an empty folder next to `target`, and put it in the target's place if the block ends well.

    Only the owner of a lock on the file `.<name>.lock` builds. The system releases it when its owner dies: what a dead
    run left half done is then undone, while what a living run builds, on any machine that shares the file system's
    locks, is left alone. If the block raises, the folder is removed and the target stays as it was; it stays, too, if
    the block writes nothing.

    Args:
        target: The folder to build.
        mark: A file or folder that every such folder has. A target without it is not ours and is not replaced.

    Raises:
        BusyError: Another process is building the same target.
        StoreError: The file system cannot lock files.
        OutputError: Something else has the target's name, or the disk is full or read-only.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(target, "partial")
    with locked(_beside(target, "lock"), target):
        _undo_half_done(target)
        _refuse_foreign(target, mark)
        partial.mkdir()
        try:
            yield partial
            if any(partial.iterdir()):
                _replace(partial, target)
        except OSError as error:
            if error.errno in CANNOT_WRITE:
                raise cannot_write(error, target) from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def is_claimed(target: Path) -> bool:
    """Return whether a process builds `target`, or died while it did and left things to clear away."""
    return _beside(target, "lock").exists()


@contextmanager
def locked(path: Path, work: Path) -> Iterator[None]:
    """Hold the lock on the file `path`, which is made and removed, while the block runs.

    Args:
        path: The file.
        work: The file or folder that one process at a time may write, for the error.

    Raises:
        BusyError: Another process holds the lock.
        StoreError: The file system cannot lock files.
    """
    lock = _acquire(path, work)
    try:
        yield
    finally:
        with suppress(OSError):  # the file system has become read-only
            path.unlink(missing_ok=True)  # while it is held: `_acquire` notices that what it waited for is gone
        os.close(lock)


def _acquire(path: Path, work: Path) -> int:
    """Descriptor of the lock file, locked. A file of its own, because network file systems lock no folders."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our open and our lock its owner may have removed it: then we hold what nobody else will see.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BlockingIOError:
            os.close(lock)
            fix = "wait for it and run again, or choose another --out"
            raise BusyError("another process is writing here", where=work, fix=fix) from None
        except OSError as error:
            os.close(lock)
            path.unlink(missing_ok=True)  # nobody can hold it here
            raise StoreError(
                f"the file system cannot lock files ({error.strerror}), so that two processes could write there",
                where=work.parent,
                fix="write to a local disk and copy the result there, or mount it with locks (Lustre: -o flock)",
            ) from error
        os.close(lock)


def _refuse_foreign(target: Path, mark: str) -> None:
    if not os.path.lexists(target) or (target / mark).exists() or (target.is_dir() and not any(target.iterdir())):
        return
    raise OutputError(
        f"something else has this name: it has no {mark}, so it was not made by this command",
        where=target,
        fix="move it away, or choose another --out",
    )


def _replace(partial: Path, target: Path) -> None:
    """Rename over an existing folder, which the system allows for empty ones only: so the old one steps aside first."""
    aside = _beside(target, "old")
    with suppress(FileNotFoundError):
        target.rename(aside)
    partial.rename(target)
    _remove(aside)


def _undo_half_done(target: Path) -> None:
    """Bring back the old target if a run died between stepping aside and replacing; clear away what it built."""
    aside = _beside(target, "old")
    if os.path.lexists(aside) and not os.path.lexists(target):
        aside.rename(target)
    _remove(aside)
    _remove(_beside(target, "partial"))


def _remove(path: Path) -> None:
    """Remove a folder with all in it, or a link, but never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _beside(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.{role}")
