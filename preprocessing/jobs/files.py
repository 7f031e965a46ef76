"""Files that are whole or absent: written under another name, then renamed; and names that may become files."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from preprocessing.errors import OutputError

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.partial")
"""Temporary names, which no other program gives; at most 25 bytes, so that they fit wherever the target's name does."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""The system's error number in the text of Rust libraries (safetensors)."""
FIXES = {
    errno.ENOSPC: "make room on that disk, then run the same command again; finished results are kept",
    errno.EDQUOT: "make room in your quota, then run the same command again; finished results are kept",
    errno.EROFS: "choose another --out: this file system cannot be written to",
    errno.ENAMETOOLONG: "choose a shorter --out, or shorter slide ids",
    errno.EIO: "check the disk (or the network share), then run the same command again",
}
"""Fix for each error number of the system; all others are permissions, or files where folders should be."""
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Error numbers that only writing has."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` if the block ends well; make its folder.

    Readers see the old file or the new one, never half of it. Each writer has a temporary name of its own, so that two
    writers do not disturb each other. If the block raises, the temporary file is removed and `path` stays as it was.

    Raises:
        OutputError: The system cannot write there: the disk is full, the file system read-only, the name too long.
    """
    temporary = path.with_name(f".{token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that their owner alone can read
        temporary.replace(path)
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        raise cannot_write(OSError(number, os.strerror(number)), path) from error
    finally:
        remove_quietly(temporary)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file of UTF-8 text or of bytes by `written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files that killed writers left below a folder; the caller must be its only writer."""
    for parent, _, names in os.walk(folder):
        for name in filter(_TEMPORARY.fullmatch, names):
            remove_quietly(Path(parent, name))


def remove_quietly(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    with suppress(OSError):  # a read-only file system, on which nothing was written
        path.unlink(missing_ok=True)


def cannot_write(error: OSError, path: Path | str | None = None) -> OutputError:
    """Return the error that a user sees where the system refused to write.

    Args:
        error: The system's.
        path: The target; by default the file that the system names.
    """
    fix = FIXES.get(error.errno or 0, "choose another --out, or change the permissions there")
    return OutputError(f"cannot write: {error.strerror or error}", where=path or error.filename or "output", fix=fix)


def is_plain_name(name: str) -> bool:
    """Return whether a name can be a file's anywhere, and an id in a table.

    It has no separators and no leading dot, nor a leading = + - or @ (spreadsheets take those for formulas, command
    lines - for a flag); all of it is printable, and it takes at most 200 bytes.
    """
    plain = bool(name) and name[0] not in ".=+-@" and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    return plain and name.isprintable() and len(name.encode()) <= 200


def _error_number(error: BaseException | None) -> int | None:
    """The system's error number, of an OSError, of one that another error wraps, or in a Rust library's text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := _OS_ERROR.search(str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None
