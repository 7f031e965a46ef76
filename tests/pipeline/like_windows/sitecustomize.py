"""A Linux that is like Windows: a Python with this folder in PYTHONPATH, and all Pythons that it starts, have no more.

Modules, functions and signals that Windows lacks are hidden. Open files cannot be removed, renamed or replaced, and a
rename does not replace. `msvcrt` locks files. Lines end with \\r\\n where Python decides it, and processes are spawned.
"""

import fcntl
import logging  # noqa: F401 - with the modules that it imports, it looks for msvcrt before there is one
import multiprocessing
import os
import random  # noqa: F401
import signal
import subprocess  # noqa: F401
import sys
from collections.abc import Callable
from types import ModuleType

from lacking import MODULES, OS, SIGNAL_CALLS, SIGNALS

NEEDED = {"posix", "register_at_fork", "uname", "WNOHANG", "SIGCHLD", "SIGKILL", "pthread_sigmask"}
"""Names that the standard library, numpy and torch use on Linux."""
REFUSED = 13, "The process cannot access the file because it is being used by another process"


def in_use(path: str) -> bool:
    """Return whether this process has a file open, or mapped into memory, that is `path` or below it."""
    whole = os.path.realpath(os.path.dirname(os.path.abspath(path))) + os.sep + os.path.basename(path)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        used = [line.split(maxsplit=5)[-1].rstrip("\n") for line in maps]
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            used.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # of the list itself
            continue
    return any(name == whole or name.startswith(whole + os.sep) for name in used)


def guarded(call: Callable[..., None], *, replaces: bool) -> Callable[..., None]:
    """Return a call that refuses files in use, as Windows does; a rename that does not replace refuses its target."""

    def guard(*paths: str, **more: object) -> None:
        for path in map(os.fspath, paths):
            if in_use(os.fsdecode(path)):
                raise PermissionError(*REFUSED, path)
        if len(paths) == 2 and not replaces and os.path.lexists(paths[1]):
            raise FileExistsError(17, "Cannot create a file when that file already exists", os.fspath(paths[1]))
        call(*paths, **more)

    return guard


def locking(descriptor: int, mode: int, n: int) -> None:
    """Lock or unlock an open file, with msvcrt's error if another process holds the lock."""
    assert n == 1
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None


msvcrt = ModuleType("msvcrt")
vars(msvcrt).update(locking=locking, LK_NBLCK=fcntl.LOCK_EX | fcntl.LOCK_NB, LK_UNLCK=fcntl.LOCK_UN)
sys.modules |= dict.fromkeys(set(MODULES.split()) - NEEDED) | {"msvcrt": msvcrt}
absent = {number.name for number in signal.Signals} - set(SIGNALS.split()) | set(SIGNAL_CALLS.split())
for module, names in ((os, set(OS.split())), (signal, absent)):
    for name in names - NEEDED:
        vars(module).pop(name, None)
os.linesep = "\r\n"
for name in ("remove", "unlink", "rmdir", "rename", "replace"):
    setattr(os, name, guarded(getattr(os, name), replaces=name == "replace"))
multiprocessing.set_start_method("spawn")
