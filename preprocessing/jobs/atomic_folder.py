"""Folders built atomically and by one process at a time: after a crash a folder is complete or absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preprocessing.errors import BusyError, OutputError, StoreError
from preprocessing.jobs.files import CANNOT_WRITE, cannot_write
from preprocessing.jobs.system import lock_file, remove_locked


@contextmanager
def claimed(target: Path, mark: str) -> Iterator[Path]:
    """Yield an empty folder next to `target`, and move it to `target` if the block succeeds.

    Only the process that holds the lock on `.<name>.lock` builds. The system releases the lock when that process dies.
    The next run then undoes the half-finished build. A build still in progress is left alone, also on other machines
    that share the file system's locks. If the block raises or writes nothing, the folder is removed and the target
    keeps its old contents.

    Args:
        target: The folder to build.
        mark: Name of a file or folder that every such folder contains. A target without it was not made by this command
            and is not replaced.

    Raises:
        BusyError: Another process is building the same target.
        StoreError: The file system cannot lock files.
        OutputError: Another file or folder has the target's name, or the disk is full or read-only.
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
    """Return whether a process is building `target`, or died during the build and left files to clean up."""
    return _beside(target, "lock").exists()


@contextmanager
def locked(path: Path, work: Path) -> Iterator[None]:
    """Hold the lock on the file `path` while the block runs; the file is created before it and removed after it.

    Args:
        path: The lock file.
        work: The file or folder that the lock protects, named in the error.

    Raises:
        BusyError: Another process holds the lock.
        StoreError: The file system cannot lock files.
    """
    lock = _acquire(path, work)
    try:
        yield
    finally:
        remove_locked(path, lock)


def _acquire(path: Path, work: Path) -> int:
    """Create the lock file, lock it, and return its descriptor.

    A separate file is used because network file systems cannot lock folders.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock_file(lock)
            # Its owner may have removed the file between our open and our lock; then other processes cannot see it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BlockingIOError:
            os.close(lock)
            fix = "wait until it has finished and run again, or choose another --out"
            raise BusyError("another process is writing here", where=work, fix=fix) from None
        except OSError as error:
            os.close(lock)
            path.unlink(missing_ok=True)  # no process can hold a lock here
            raise StoreError(
                f"the file system cannot lock files ({error.strerror}), so two processes could write at the same time",
                where=work.parent,
                fix="write to a local disk and copy the result there, or mount it with locks (Lustre: -o flock)",
            ) from error
        os.close(lock)


def _refuse_foreign(target: Path, mark: str) -> None:
    if not os.path.lexists(target) or (target / mark).exists() or (target.is_dir() and not any(target.iterdir())):
        return
    raise OutputError(
        f"another file or folder has this name: it has no {mark}, so it was not made by this command",
        where=target,
        fix="move it elsewhere, or choose another --out",
    )


def _replace(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`, and remove the old target.

    The system renames onto empty folders only, so the old target is renamed first.
    """
    aside = _beside(target, "old")
    with suppress(FileNotFoundError):
        target.rename(aside)
    partial.rename(target)
    _remove(aside)


def _undo_half_done(target: Path) -> None:
    """Restore the old target if a run died between the two renames of `_replace`, and remove its unfinished build."""
    aside = _beside(target, "old")
    if os.path.lexists(aside) and not os.path.lexists(target):
        aside.rename(target)
    _remove(aside)
    _remove(_beside(target, "partial"))


def _remove(path: Path) -> None:
    """Remove a folder with its contents, a file, or a link; the target of a link is kept."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _beside(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.{role}")
