"""Files of one DICOM slide in a folder: the files of one series, each of which is a level or a label image."""

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from preprocessing.errors import SlideError

SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI(..)", re.DOTALL)
"""DICOM element (0020,000E), SeriesInstanceUID, in explicit VR little-endian, up to the length of its value."""
HEAD_BYTES = 1 << 16
"""Bytes at the beginning of a file in which the series is searched; it precedes the pixels."""
REMEMBERED = 1 << 16
"""Number of files whose series is cached; with all slides in one folder, each slide needs the series of every file."""


def series_uid(file: Path) -> str | None:
    """Return the SeriesInstanceUID of a DICOM file, or None if its first `HEAD_BYTES` contain none."""
    return _read_series_uid(file, file.stat().st_mtime_ns)


@lru_cache(REMEMBERED)
def _read_series_uid(file: Path, _written_at: int) -> str | None:
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    found = SERIES_UID.search(head)
    if found is None:
        return None
    length = int.from_bytes(found[1], "little")
    return head[found.end() : found.end() + length].rstrip(b"\0 ").decode("ascii", "replace")


def series_files(file: Path) -> list[Path]:
    """Return a DICOM file and the files of its series in the same folder; only the file if it has no series."""
    series, found = series_uid(file), [file]
    for other in dicom_files(file.parent) if series else ():
        with suppress(OSError):  # an unreadable file may belong to another user
            found += [other] if other != file and series_uid(other) == series else []
    return found


def dicom_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are named `*.dcm` and not hidden, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".dcm" and file.name[0] != ".")


def slide_file(path: Path) -> Path:
    """Return the file to open for a slide: `path`, or the first DICOM file if `path` is the folder of a DICOM slide.

    Raises:
        SlideError: The folder contains no DICOM file or files of several series, or it cannot be read.
    """
    try:
        if not path.is_dir():
            return path
        files = dicom_files(path)
        series = {series_uid(file) for file in files}
    except OSError as error:
        what = f"the slide cannot be read: {error.strerror}"
        raise SlideError(what, where=path, fix="check the path and permissions") from error
    if len(series) == 1:
        return files[0]
    what = f"the folder contains DICOM files of {len(series)} series" if files else "the folder contains no DICOM files"
    raise SlideError(what, where=path, fix="give the file of a slide, or a folder with the .dcm files of one slide")
