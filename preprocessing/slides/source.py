"""Source files of a store: their list, their record in the store, and the detection of changes."""

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from preprocessing.slides.dicom import series_files
from preprocessing.store.schema import Source

HASHED_BYTES = 1 << 20
"""Bytes of a file that are hashed at once."""
LIST_BYTES = 1 << 20
"""Bytes of a list of files that are read; real lists are shorter."""
LISTED = re.compile(rb"=[ \t]*([^/\\\r\n]{1,255})\r?$", re.MULTILINE)
"""Values of keys in Hamamatsu's .vms and .vmu files; some are names of files in the same folder."""


def slide_files(path: Path) -> list[Path]:
    """Return the files of a slide, the opened file first; only DICOM, MIRAX, VMS and VMU slides have several."""
    suffix, more = path.suffix.lower(), []
    if not path.is_file():  # reported when the slide is opened
        return [path]
    if suffix == ".dcm":
        more = series_files(path)
    elif suffix == ".mrxs":
        more = path.with_suffix("").glob("*")
    elif suffix in (".vms", ".vmu"):
        with path.open("rb") as file:
            names = set(LISTED.findall(file.read(LIST_BYTES)))
        more = (path.parent / os.fsdecode(name) for name in names)
    return [path, *sorted(file for file in more if file != path and file.is_file())]


def describe(files: Sequence[Path]) -> Source:
    """Return the record of the files of a slide or a mask: their names, total size and hash."""
    first, *more = files
    names = tuple(file.relative_to(first.parent).as_posix() for file in more)
    size = sum(file.stat().st_size for file in files)
    return Source(name=first.name, more=names, size=size, sha256=sha256(files))


def identity(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """Return (inode, size, mtime in ns) of each file, or None if it is missing; used to detect changes."""
    stats = [file.stat() if file.exists() else None for file in files]
    return [now and (now.st_ino, now.st_size, now.st_mtime_ns) for now in stats]


def has_changed(path: Path, source: Source, document: Path) -> bool:
    """Return whether the slide or mask at `path` differs from the source of a store.

    Names and size are compared without reading the files. Their hash is compared only if a file was written after the
    store. If the hash is equal, the store's document gets the time of the latest file, so that the next run need not
    read the files again.

    Args:
        path: The file that is opened.
        source: Record of the files in the store.
        document: Metadata document of the store; its mtime is the time at which the store was written.
    """
    files = [path, *(path.parent / name for name in source.more)]
    if path.name != source.name or not all(file.is_file() for file in files):
        return True
    stats = [file.stat() for file in files]
    if sum(now.st_size for now in stats) != source.size:
        return True
    latest = max(now.st_mtime_ns for now in stats)
    if latest <= document.stat().st_mtime_ns:
        return False
    same = sha256(files) == source.sha256
    if same:
        with suppress(OSError):  # on a read-only file system the slide is read again at every run
            os.utime(document, ns=(latest, latest))
    return not same


def sha256(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the concatenated files, hexadecimal.

    Files are read in large pieces, because after each piece a thread waits for Python's lock.
    """
    digest, piece = hashlib.sha256(), memoryview(bytearray(HASHED_BYTES))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(piece):
                digest.update(piece[:size])
    return digest.hexdigest()
