"""The cohort: a slide, a folder of slides or a CSV -> which slides, under which ids, at which stated resolution."""

import csv
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unicodedata import normalize

from preprocessing.errors import CohortError, SlideError, few
from preprocessing.jobs.files import is_plain_name
from preprocessing.slides.dicom import series_uid, slide_file

SUFFIXES = frozenset((".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".dcm", ".svslide"))
"""Endings, in lower case, that make a file of a folder a slide."""

DELIMITERS = (",", ";", "\t")
"""What may stand between the cells of a manifest; spreadsheets write semicolons where the comma is a decimal point."""


MAX_BYTES = 1 << 25
"""Size of a manifest; one of 100,000 slides has a third of it."""
MOST_NAMED = 10
"""Faults of rows that an error lists; it counts the others."""


@dataclass(frozen=True)
class SlideEntry:
    """One slide of the cohort; `mpp` is the resolution of level 0 that the manifest states, micrometres per pixel."""

    slide_id: str
    path: Path
    mpp: float | None = None


def read_manifest(slides: Path) -> list[SlideEntry]:
    """The slides that `slides` names: one slide, those directly in a folder, or the rows of a CSV.

    A CSV is UTF-8 and has columns `slide_id`, `path` (relative to the CSV) and optionally `mpp`. In a folder, the DICOM
    files of one series are one slide, and so is a folder in it that holds such files. A slide that does not exist or
    cannot be read, or a link to nowhere, is listed: it will fail alone.

    Raises:
        CohortError: Nothing is there, no slide is, or rows cannot be used; every such row is named.
    """
    try:
        if slides.is_dir():
            entries = _from_folder(slides)
        elif not slides.exists():
            raise CohortError(
                "there is no such slide, folder or manifest", where=slides.absolute(), fix="check the path"
            )
        elif slides.suffix.lower() == ".csv":
            entries = _from_csv(slides)
        else:
            entries = [SlideEntry(slides.stem, slides)]
    except OSError as error:  # a name too long, a folder without permission
        what = f"the slides cannot be read: {error.strerror}"
        raise CohortError(what, where=error.filename or slides, fix="check the path and permissions") from error
    _refuse_ids(entries, slides)
    return entries


def _refuse_ids(entries: list[SlideEntry], where: Path) -> None:
    """Slide ids become file names, so each must be a plain name, and each must be one slide's only."""
    wrong = [f"{entry.slide_id!r} is not a plain name" for entry in entries if not is_plain_name(entry.slide_id)]
    # File systems of macOS and Windows do not tell A.zarr from a.zarr, nor an umlaut from a letter and its dots.
    folded = Counter(normalize("NFC", entry.slide_id.casefold()) for entry in entries)
    wrong += [f"{name!r} names {times} slides" for name, times in folded.items() if times > 1]
    if wrong:
        raise CohortError(
            "slide ids cannot be used: " + few(wrong, MOST_NAMED, "; "),
            where=where,
            fix="list the slides in a CSV with columns slide_id and path, each slide_id a plain name and used once",
        )


def _from_folder(folder: Path) -> list[SlideEntry]:
    visible = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    first_of_series: dict[str, Path] = {}
    for path in visible:
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            first_of_series.setdefault(_series(path), path)
    entries = [SlideEntry(file.stem, file) for file in first_of_series.values()]
    entries += [SlideEntry(path.name, _opened(path)) for path in visible if _holds_dicom(path)]
    if not entries:
        raise CohortError(
            f"no file of this folder ends like a slide ({' '.join(sorted(SUFFIXES))})",
            where=folder,
            fix="name the folder that holds the slides themselves, or a CSV with columns slide_id and path",
        )
    return entries


def _holds_dicom(path: Path) -> bool:
    with suppress(OSError):  # a folder that cannot be read is somebody else's
        return path.is_dir() and any(file.suffix.lower() == ".dcm" for file in path.iterdir())
    return False


def _series(file: Path) -> str:
    """What the files of one slide share: the series of a DICOM file, else the file itself."""
    if file.suffix.lower() == ".dcm" and file.is_file():
        with suppress(OSError):
            return series_uid(file) or str(file)
    return str(file)


def _opened(path: Path) -> Path:
    """The file to open for a slide; a folder that is none stays as it is, to fail alone."""
    with suppress(SlideError):
        return slide_file(path)
    return path


def _from_csv(table: Path) -> list[SlideEntry]:
    entries, wrong = [], []
    for line, row in _rows(table):
        try:
            entries.append(_entry(row, table.parent))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong or not entries:
        what = few(wrong, MOST_NAMED, "; ") or "the manifest has no rows"
        raise CohortError(what, where=table, fix="give every row a slide_id, a path and a number or nothing as mpp")
    return entries


def _rows(table: Path) -> list[tuple[int, dict[str, str | None]]]:
    """Line number and cells of every row."""
    text = _decoded(table)
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = reader.fieldnames or []
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        fix = "close every quote, or save the table again as CSV"
        raise CohortError(f"after line {reader.line_num}: {error}", where=table, fix=fix) from error
    missing = [column for column in ("slide_id", "path") if column not in columns]
    if missing:
        raise CohortError(
            f"the manifest has no column {' and no column '.join(missing)}, it has {', '.join(columns) or 'none'}",
            where=table,
            fix="give it the columns slide_id and path, and mpp if slides do not state their resolution",
        )
    return rows


def _decoded(table: Path) -> str:
    """The table's text; another encoding is refused, since a guess would change names."""
    if table.stat().st_size > MAX_BYTES:
        raise CohortError(
            f"the manifest has more than {MAX_BYTES >> 20} MB",
            where=table,
            fix="give a table of slides, a row for each",
        )
    data = table.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CohortError(
            f"line {line}: the manifest is not UTF-8", where=table, fix="save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def _entry(row: dict[str, str | None], folder: Path) -> SlideEntry:
    if None in row:  # where DictReader puts what is too much
        raise ValueError("more cells than columns (quote a cell that holds the delimiter)")
    slide_id, path, mpp = ((row.get(column) or "").strip() for column in ("slide_id", "path", "mpp"))
    if not slide_id or not path:
        raise ValueError("slide_id or path is empty")
    if not mpp.isascii() or "_" in mpp:
        raise ValueError(f"mpp is not a number: {mpp[:20]!r}")
    return SlideEntry(slide_id, _opened(folder / path), float(mpp) if mpp else None)
