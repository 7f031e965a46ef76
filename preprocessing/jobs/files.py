"""Files that are complete or absent, being written under a temporary name and renamed; and checks of file names."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from preprocessing.errors import OutputError

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.partial")
"""Temporary names, used by no other program. They have 25 bytes, short enough for every file system."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""System error number in the messages of Rust libraries (safetensors)."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices, in every folder and with every ending."""
FIXES = {
    errno.ENOSPC: "make room on that disk, then run the same command again; finished work is kept",
    errno.EDQUOT: "make room in your quota, then run the same command again; finished work is kept",
    errno.EROFS: "choose another --out: this file system is read-only",
    errno.ENAMETOOLONG: "choose a shorter --out, or shorter slide ids",
    errno.EIO: "check the disk (or the network share), then run the same command again",
}
"""Fix by system error number; all other errors are missing permissions, or files in place of folders."""
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""System error numbers that only writing causes."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` if the block succeeds; create its folder.

    Readers see the old or the new file, never a partial file. Each writer has its own temporary name, so that two
    writers do not disturb each other. If the block raises, the temporary file is removed and `path` is unchanged.

    Raises:
        OutputError: The system cannot write there: the disk is full, the file system read-only, the name too long.
    """
    temporary = path.with_name(f".{token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files readable by their owner only
        temporary.replace(path)
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        raise cannot_write(OSError(number, os.strerror(number)), path) from error
    finally:
        remove_quietly(temporary)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write UTF-8 text or bytes to a file atomically (`written_whole`)."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files of killed writers from a folder and its subfolders; the caller must be its only writer."""
    for parent, _, names in os.walk(folder):
        for name in filter(_TEMPORARY.fullmatch, names):
            remove_quietly(Path(parent, name))


def remove_quietly(path: Path) -> None:
    """Remove a file if it exists; ignore errors of the system."""
    with suppress(OSError):  # on a read-only file system the file was never written
        path.unlink(missing_ok=True)


def cannot_write(error: OSError, path: Path | str | None = None) -> OutputError:
    """Return the `OutputError` that the user sees for a failed write.

    Args:
        error: Error of the system.
        path: The target; by default the file named in `error`.
    """
    fix = FIXES.get(error.errno or 0, "choose another --out, or change the permissions there")
    return OutputError(f"cannot write: {error.strerror or error}", where=path or error.filename or "output", fix=fix)


def is_plain_name(name: str) -> bool:
    """Return whether a name is safe as a file name on this system and as an id in a table.

    A safe name has no path separators, no leading dot, and no leading = + - or @: spreadsheets read these four as
    formulas, command lines read - as a flag. All its characters are printable, and it has at most 200 bytes. On Windows
    it is not the name of a device; elsewhere, patients may be called COM1.
    """
    if sys.platform == "win32" and _DEVICES.fullmatch(name):
        return False
    plain = bool(name) and name[0] not in ".=+-@" and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    return plain and name.isprintable() and len(name.encode()) <= 200


def _error_number(error: BaseException | None) -> int | None:
    """Return the system error number of an error, or of an error that caused it; None if there is none.

    It is taken from an OSError or from the message of a Rust library.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := _OS_ERROR.search(str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None
