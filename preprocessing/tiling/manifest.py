"""The slides of a cohort, with ids and stated resolutions, from a slide, a folder of slides or a CSV."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from preprocessing.errors import CohortError, SlideError, few, printable
from preprocessing.jobs.files import is_plain_name
from preprocessing.slides.dicom import series_uid, slide_file
from preprocessing.tables.rows import read_cells

SUFFIXES = frozenset((".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".dcm", ".svslide"))
"""Endings, in lower case, of the files that are slides."""

TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".csv.gz", ".csv.zip", ".tsv.gz", ".tsv.zip")
"""Endings, in lower case, of the files that are manifests."""
MOST_NAMED = 10
"""Number of faulty rows that an error lists; further rows are counted only."""


@dataclass(frozen=True)
class SlideEntry:
    """A slide of the cohort."""

    slide_id: str
    path: Path
    mpp: float | None = None
    """Resolution of level 0 in the manifest, micrometres per pixel; None if the manifest states none."""


def read_manifest(slides: Path) -> list[SlideEntry]:
    """Return the slides of a cohort.

    A CSV (or a table in another form of `preprocessing.tables`) has columns `slide_id`, `path` (relative to the CSV)
    and optionally `mpp`. In a folder, the DICOM files of a series are one slide, and a subfolder with DICOM files is
    one slide. A slide that is missing or cannot be read is listed, too: it will fail later, without stopping other
    slides.

    Args:
        slides: A slide, a folder whose files are the slides, or a CSV with a row per slide.

    Raises:
        CohortError: The path does not exist, there are no slides, or rows cannot be used; the error names such rows.
    """
    try:
        if slides.is_dir():
            entries = _from_folder(slides)
        elif not slides.exists():
            raise CohortError(
                "the slide, folder or manifest does not exist", where=slides.absolute(), fix="check the path"
            )
        elif slides.name.lower().endswith(TABLES):
            entries = _from_csv(slides)
        else:
            entries = [SlideEntry(slides.stem, slides)]
    except OSError as error:  # for example a name that is too long, or a folder without permission
        what = f"the slides cannot be read: {error.strerror}"
        raise CohortError(what, where=error.filename or slides, fix="check the path and permissions") from error
    _refuse_ids(entries, slides)
    return entries


def _refuse_ids(entries: list[SlideEntry], where: Path) -> None:
    """Refuse slide ids that are not plain names, or that two slides share, because slide ids become file names."""
    wrong = [f"{entry.slide_id!r} is not a plain name" for entry in entries if not is_plain_name(entry.slide_id)]
    # On macOS and Windows A.zarr and a.zarr are one file; so are an umlaut and a letter with combining dots.
    folded = Counter(normalize("NFC", entry.slide_id.casefold()) for entry in entries)
    wrong += [f"{name!r} is the id of {times} slides" for name, times in folded.items() if times > 1]
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
            f"no file in this folder has a slide's ending ({' '.join(sorted(SUFFIXES))})",
            where=folder,
            fix="give the folder that contains the slides, or a CSV with columns slide_id and path",
        )
    return entries


def _holds_dicom(path: Path) -> bool:
    with suppress(OSError):  # a folder that cannot be read is not a slide
        return path.is_dir() and any(file.suffix.lower() == ".dcm" for file in path.iterdir())
    return False


def _series(file: Path) -> str:
    """Return the series of a DICOM file, which the files of a slide share; for other files the path."""
    if file.suffix.lower() == ".dcm" and file.is_file():
        with suppress(OSError):
            return series_uid(file) or str(file)
    return str(file)


def _opened(path: Path) -> Path:
    """Return the file to open for a slide; a folder that is not a slide is returned as it is, and fails later."""
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


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of every row."""
    cells = read_cells(table, "manifest", ("slide_id", "path", "mpp"))
    for note in cells.notes:
        print(printable(f"note: {table} {note}"), file=sys.stderr)
    missing = [column for column in ("slide_id", "path") if column not in cells.columns]
    if missing:
        raise CohortError(
            f"the manifest has no column {' and no column '.join(missing)}, it has {few(cells.columns, 12)}",
            where=table,
            fix="add the columns slide_id and path, and mpp if slides do not state their resolution",
        )
    for line, row in zip(cells.lines, cells.rows, strict=True):
        yield line, dict(zip(cells.columns, row, strict=True))


def _entry(row: dict[str, str], folder: Path) -> SlideEntry:
    slide_id, path, mpp = (row.get(column, "") for column in ("slide_id", "path", "mpp"))
    if not slide_id or not path:
        raise ValueError("slide_id or path is empty")
    if not mpp.isascii() or "_" in mpp:
        raise ValueError(f"mpp is not a number: {mpp[:20]!r}")
    return SlideEntry(slide_id, _opened(folder / path), float(mpp) if mpp else None)
