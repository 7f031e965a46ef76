"""The cohort: a slide, a folder of slides or a CSV -> which slides, under which ids, at which stated resolution."""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from preprocessing.errors import CohortError

SUFFIXES = frozenset((".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".dcm", ".svslide"))
"""Endings, in lower case, that make a file of a folder a slide."""

SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI(..)", re.DOTALL)
"""DICOM element (0020,000E), SeriesInstanceUID, as explicit little-endian VR writes it; its length follows."""


@dataclass(frozen=True)
class SlideEntry:
    """One slide of the cohort; `mpp` is the resolution of level 0 that the manifest states, micrometres per pixel."""

    slide_id: str
    path: Path
    mpp: float | None = None


def read_manifest(slides: Path) -> list[SlideEntry]:
    """The slides that `slides` names: one slide, those directly in a folder, or the rows of a CSV.

    A CSV has columns `slide_id`, `path` (relative to the CSV) and optionally `mpp`. In a folder, the DICOM files of one
    series are one slide. A file that a CSV names need not exist: that slide will fail alone.

    Raises:
        CohortError: Nothing is there, no slide is, or rows cannot be used; every such row is named.
    """
    if slides.is_dir():
        entries = _from_folder(slides)
    elif not slides.exists():
        raise CohortError("there is no such slide, folder or manifest", where=slides, fix="check the path")
    elif slides.suffix.lower() == ".csv":
        entries = _from_csv(slides)
    else:
        entries = [SlideEntry(slides.stem, slides)]
    _refuse_ids(entries, slides)
    return entries


def is_plain_name(name: str) -> bool:
    """Whether a name can be a file's anywhere: no separators, no leading dot, all printable, at most 200 bytes."""
    plain = bool(name) and not name.startswith(".") and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    return plain and name.isprintable() and len(name.encode()) <= 200


def _refuse_ids(entries: list[SlideEntry], where: Path) -> None:
    """Slide ids become file names, so each must be a plain name, and each must be one slide's only."""
    wrong = [f"{entry.slide_id!r} is not a plain name" for entry in entries if not is_plain_name(entry.slide_id)]
    # File systems of macOS and Windows do not tell A.zarr from a.zarr.
    folded = Counter(entry.slide_id.casefold() for entry in entries)
    wrong += [f"{name!r} names {times} slides" for name, times in folded.items() if times > 1]
    if wrong:
        raise CohortError(
            "slide ids cannot be used: " + "; ".join(wrong),
            where=where,
            fix="list the slides in a CSV with columns slide_id and path, each slide_id a plain name and used once",
        )


def _from_folder(folder: Path) -> list[SlideEntry]:
    files = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != "." and file.is_file()
    )
    if not files:
        raise CohortError(
            f"no file of this folder ends like a slide ({' '.join(sorted(SUFFIXES))})",
            where=folder,
            fix="name the folder that holds the slides themselves, or a CSV with columns slide_id and path",
        )
    first_of_series: dict[str, Path] = {}
    for file in files:
        first_of_series.setdefault(_series(file), file)
    return [SlideEntry(file.stem, file) for file in first_of_series.values()]


def _series(file: Path) -> str:
    """What the files of one slide share: the series of a DICOM file, else the file itself."""
    if file.suffix.lower() != ".dcm":
        return str(file)
    with file.open("rb") as opened:
        header = opened.read(1 << 16)
    found = SERIES_UID.search(header)
    if found is None:
        return str(file)
    length = int.from_bytes(found[1], "little")
    return header[found.end() : found.end() + length].decode("ascii", "replace")


def _from_csv(table: Path) -> list[SlideEntry]:
    with table.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened)
        columns = reader.fieldnames or []
        missing = [column for column in ("slide_id", "path") if column not in columns]
        if missing:
            raise CohortError(
                f"the manifest has no column {' and no column '.join(missing)}, it has {', '.join(columns) or 'none'}",
                where=table,
                fix="give it the columns slide_id and path, and mpp if slides do not state their resolution",
            )
        rows = [(reader.line_num, row) for row in reader]
    entries, wrong = [], []
    for line, row in rows:
        try:
            entries.append(_entry(row, table.parent))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong or not entries:
        what = "; ".join(wrong) or "the manifest has no rows"
        raise CohortError(what, where=table, fix="give every row a slide_id, a path and a number or nothing as mpp")
    return entries


def _entry(row: dict[str, str | None], folder: Path) -> SlideEntry:
    slide_id, path, mpp = ((row.get(column) or "").strip() for column in ("slide_id", "path", "mpp"))
    if not slide_id or not path:
        raise ValueError("slide_id or path is empty")
    return SlideEntry(slide_id, folder / path, float(mpp) if mpp else None)
