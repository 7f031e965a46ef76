"""Which files of a folder are one DICOM slide: those of one series, each a level or a label."""

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from preprocessing.errors import SlideError

SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI(..)", re.DOTALL)
"""DICOM element (0020,000E), SeriesInstanceUID, as explicit little-endian VR writes it; its length follows."""
HEAD_BYTES = 1 << 16
"""The series is named before the pixels, within this."""
REMEMBERED = 1 << 16
"""Files whose series is remembered: where all slides lie in one folder, each asks for that of every file."""


def series_uid(file: Path) -> str | None:
    """The SeriesInstanceUID of a DICOM file; None if its head names none."""
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
    """The DICOM files beside a file, itself among them, that are of its series; only itself if it names none."""
    series, found = series_uid(file), [file]
    for other in dicom_files(file.parent) if series else ():
        with suppress(OSError):  # what cannot be read is somebody else's
            found += [other] if other != file and series_uid(other) == series else []
    return found


def dicom_files(folder: Path) -> list[Path]:
    """What looks like a DICOM file in a folder, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".dcm" and file.name[0] != ".")


def slide_file(path: Path) -> Path:
    """The file to open for a slide: `path` itself or, of a folder with the DICOM files of one slide, the first.

    Raises:
        SlideError: The folder holds no DICOM file, or those of several series, or it cannot be read.
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
    what = f"the folder holds DICOM files of {len(series)} series" if files else "it is a folder without DICOM files"
    raise SlideError(what, where=path, fix="name a slide's file, or a folder that holds the .dcm files of one slide")
