"""The files that a store is made from: which they are, what is written down of them, and whether they are the same."""

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
"""Of a list of files; a longer one is none."""
LISTED = re.compile(rb"=[ \t]*([^/\\\r\n]{1,255})\r?$", re.MULTILINE)
"""What Hamamatsu's .vms and .vmu give as values of keys; names of files beside them are among it."""


def slide_files(path: Path) -> list[Path]:
    """The files of a slide, the one that is opened first: that of most formats, more of DICOM, MIRAX, VMS and VMU."""
    suffix, more = path.suffix.lower(), []
    if not path.is_file():  # which will be said when it is opened
        return [path]
    if suffix == ".dcm":
        more = series_files(path)
    elif suffix == ".mrxs":
        more = path.with_suffix("").glob("*")
    elif suffix in (".vms", ".vmu"):
        more = (path.parent / os.fsdecode(name) for name in set(LISTED.findall(_head(path))))
    return [path, *sorted(file for file in more if file != path and file.is_file())]


def describe(files: Sequence[Path]) -> Source:
    """What is written down of the files of a slide, or of a mask."""
    first, *more = files
    names = tuple(file.relative_to(first.parent).as_posix() for file in more)
    size = sum(file.stat().st_size for file in files)
    return Source(name=first.name, more=names, size=size, sha256=sha256(files))


def identity(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """What is another for each file that was replaced or written to; None for one that is not there."""
    stats = [file.stat() if file.exists() else None for file in files]
    return [now and (now.st_ino, now.st_size, now.st_mtime_ns) for now in stats]


def has_changed(path: Path, source: Source, document: Path) -> bool:
    """Whether the slide or mask at `path` is not the one that a store was made from.

    Names and size tell without reading it. Only a file that was written after the store is compared by its hash; if it
    turns out to be the same, the store's document gets the file's time, and the next run need not read it again.

    Args:
        path: The file that is opened.
        source: What was written down of it.
        document: The store's, written when the store was.
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
        with suppress(OSError):  # where the store cannot be written the slide is read at every run
            os.utime(document, ns=(latest, latest))
    return not same


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIST_BYTES)


def sha256(files: Sequence[Path]) -> str:
    """Hash of files one after another, hexadecimal; in large pieces, since each waits for its turn with Python."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(HASHED_BYTES))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(piece):
                digest.update(piece[:size])
    return digest.hexdigest()
