"""The slides of a cohort, with ids and stated resolutions, from slides, folders, patterns, and lists of slides."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from preprocessing.errors import CohortError, SlideError, few, printable, short
from preprocessing.jobs.files import is_plain_name
from preprocessing.slides.dicom import slide_file
from preprocessing.slides.names import has_ending, other_kind, without_ending
from preprocessing.tables.rows import read_cells
from preprocessing.tiling.search import is_pattern, matches, slides_below
from preprocessing.tiling.slide_lists import GDC, TRIDENT, Lookup, qupath_images

PLAIN_LISTS = (".txt", ".lst")
"""Endings of lists with a path per line, unless their first line has the columns of a manifest."""
LISTS = (".csv", ".tsv", ".xlsx", ".parquet", ".csv.gz", ".csv.zip", ".tsv.gz", ".tsv.zip", *PLAIN_LISTS)
"""Endings, in lower case, of tables and lists of slides."""
COLUMNS = frozenset({"slide_id", "path", "mpp", TRIDENT, *GDC})
"""Columns of manifests and of other programs' lists; a line without any of them is no header."""
PROJECT = ".qpproj"
"""Ending of QuPath's projects."""
MAX_BYTES = 1 << 25
"""Largest size of a list with a path per line; a list of 100,000 slides has a third of it."""
MOST_NAMED = 10
"""Number of faulty rows that an error lists; further rows are counted only."""

IdFrom = Literal["name", "folder"]
Cells = dict[str, str]
Row = tuple[int, Cells]
"""Line number and cells of a row."""


@dataclass(frozen=True)
class SlideEntry:
    """A slide of the cohort."""

    slide_id: str
    path: Path
    mpp: float | None = None
    """Resolution of level 0 in the manifest, micrometres per pixel; None if the manifest states none."""
    md5: str | None = None
    """MD5 of the file in a manifest of the Genomic Data Commons, hexadecimal; None without such a manifest."""


def read_manifest(
    slides: Path | Sequence[Path],
    folder: Path | None = None,
    id_from: IdFrom = "name",
    note: Callable[[str], None] = lambda sentence: None,
) -> list[SlideEntry]:
    """Return the slides of a cohort.

    A manifest is a table in a form of `preprocessing.tables` with columns `slide_id`, `path` (relative to the manifest)
    and optionally `mpp`. A folder is searched below (`slides_below`). A slide that is missing or cannot be read is
    listed, too: it will fail later, without stopping other slides.

    Args:
        slides: Slides, folders, patterns (`slides/*/*.svs`), or lists: a manifest, a manifest of gdc-client, TRIDENT's
            `wsi,mpp`, a file with a path per line, or a QuPath project.
        folder: Folder of the files of a list; by default the folder of the list.
        id_from: `name` makes the id of a slide of its file's name, `folder` of `<its folder>_<its name>`. Ids in a
            manifest are not changed.
        note: Function that is called with a sentence about each list that has files of other kinds.

    Raises:
        CohortError: A path does not exist or is not a slide, there are no slides, two slides have one id, or rows
            cannot be used; the error names such rows.
    """
    given = [slides] if isinstance(slides, Path) else list(slides)
    entries: dict[SlideEntry, None] = {}
    repeated: list[SlideEntry] = []
    for place in (place for one in given for place in (matches(one) if is_pattern(one) else [one])):
        found = _from_place(place, folder, id_from, note)
        repeated += (entry for entry, times in Counter(found).items() if times > 1)
        entries |= dict.fromkeys(found)  # a slide that two patterns match is listed once
    _refuse_ids([*entries, *repeated], few([str(place) for place in given]))
    return list(entries)


def _from_place(place: Path, folder: Path | None, id_from: IdFrom, note: Callable[[str], None]) -> list[SlideEntry]:
    try:
        if place.is_dir():
            found = slides_below(place)
        elif not place.exists():
            what = "the slide, folder or manifest does not exist"
            raise CohortError(what, where=place.absolute(), fix="check the path")
        elif place.suffix.lower() == PROJECT:
            lookup = Lookup(folder or place.parent.parent)
            paths = [Path(name) for name in qupath_images(place)]
            found = [(path.name, lookup.file(path)) for path in paths]
        elif place.name.lower().endswith(LISTS):
            return _from_table(place, folder or place.parent, id_from, note)
        else:
            if not has_ending(place.name) and (kind := other_kind(place)):
                fix = "give a slide, a folder of slides, or a CSV with columns slide_id and path"
                raise CohortError(f"this is {kind}, not a slide", where=place.absolute(), fix=fix)
            found = [(place.name, place)]
    except ValueError as error:
        raise CohortError(str(error), where=place, fix="give the folder that has each file once") from error
    except OSError as error:  # for example a name that is too long, or a folder without permission
        what = f"the slides cannot be read: {error.strerror}"
        raise CohortError(what, where=error.filename or place, fix="check the path and permissions") from error
    return [SlideEntry(_id_of(name, path, id_from), path) for name, path in found]


def _id_of(name: str, path: Path, id_from: IdFrom) -> str:
    name = without_ending(name)
    parent = path.parent.absolute().name
    return name if id_from == "name" or name == parent else f"{parent}_{name}"


def _refuse_ids(entries: list[SlideEntry], where: str) -> None:
    """Refuse slide ids that are not plain names, or that two slides share, because slide ids become file names."""
    wrong = [f"{entry.slide_id!r} is not a plain name" for entry in entries if not is_plain_name(entry.slide_id)]
    paths: dict[str, list[Path]] = {}
    for entry in entries:
        # On macOS and Windows A.zarr and a.zarr are one file; so are an umlaut and a letter with combining dots.
        paths.setdefault(normalize("NFC", entry.slide_id.casefold()), []).append(entry.path)
    shared = {name: files for name, files in paths.items() if len(files) > 1}
    wrong += [
        f"{name!r} is the id of {len(files)} slides: {few([str(file) for file in files], 2)}"
        for name, files in shared.items()
    ]
    if wrong:
        raise CohortError(
            "slide ids cannot be used: " + few(wrong, MOST_NAMED, "; ", longest=600),
            where=where,
            fix="list the slides in a CSV with columns slide_id and path, each slide_id a plain name and used once"
            + ("; or name slides by folder and file with --id-from folder" if shared else ""),
        )


def _opened(path: Path) -> Path:
    """Return the file to open for a slide; a folder that is not a slide is returned as it is, and fails later."""
    with suppress(SlideError):
        return slide_file(path)
    return path


def _from_table(table: Path, folder: Path, id_from: IdFrom, note: Callable[[str], None]) -> list[SlideEntry]:
    """Return the slides of a manifest, of a manifest of gdc-client, of a list of TRIDENT, or of a path per line."""
    with table.open("rb") as file:
        head = file.readline(MAX_BYTES).decode(errors="replace").strip()
    named = not COLUMNS.isdisjoint(cell.strip('\ufeff "') for cell in re.split("[,;\t]", head))
    plain = not named and (has_ending(head) or table.name.lower().endswith(PLAIN_LISTS))
    rows = _lines(_decoded(table)) if plain else _rows(table)
    kept = [(line, row) for line, row in rows if not GDC.issubset(row) or has_ending(row["filename"])]
    if len(kept) < len(rows):
        note(f"{table.name}: {len(rows) - len(kept)} of {len(rows)} files are left out, which are not slides")
    lookup, entries, wrong = Lookup(folder), [], []
    for line, row in kept:
        try:
            entries.append(_entry(row, lookup, id_from))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong or not entries:
        what = few(wrong, MOST_NAMED, "; ") or f"the manifest has no {'slides' if rows else 'rows'}"
        raise CohortError(what, where=table, fix="give every row a slide_id, a path and a number or nothing as mpp")
    return entries


def _lines(text: str) -> list[Row]:
    """Return the lines that are not empty and not a comment, each as a row with the column `line`."""
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, {"line": line}) for number, line in lines if line and line[0] != "#"]


def _rows(table: Path) -> list[Row]:
    """Return line number and cells of every row."""
    cells = read_cells(table, "manifest", COLUMNS)
    for note in cells.notes:
        print(printable(f"note: {table} {note}"), file=sys.stderr)
    missing = [column for column in ("slide_id", "path") if column not in cells.columns]
    if missing and TRIDENT not in cells.columns and not GDC.issubset(cells.columns):
        raise CohortError(
            f"the manifest has no column {' and no column '.join(missing)}, it has {few(cells.columns, 12)}",
            where=table,
            fix="add the columns slide_id and path, and mpp if slides do not state their resolution",
        )
    rows = (dict(zip(cells.columns, row, strict=True)) for row in cells.rows)
    return list(zip(cells.lines, rows, strict=True))


def _decoded(table: Path) -> str:
    """Return the text of the table; encodings other than UTF-8 are refused, because a guess could change names."""
    if table.stat().st_size > MAX_BYTES:
        raise CohortError(
            f"the manifest has more than {MAX_BYTES >> 20} MB",
            where=table,
            fix="give a table with one row per slide",
        )
    data = table.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CohortError(
            f"line {line}: the manifest is not UTF-8", where=table, fix="save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def _entry(row: Cells, lookup: Lookup, id_from: IdFrom) -> SlideEntry:
    """Return the slide of a row."""
    if "line" in row:
        path = lookup.folder / row["line"]
        if not has_ending(path.name) and not path.is_dir():
            raise ValueError(f"{short(row['line'], 50)!r} does not have a slide's ending")
        return SlideEntry(_id_of(path.name, path, id_from), _opened(path))
    if GDC.issubset(row):
        folder, name, md5 = row["id"], row["filename"], row["md5"].lower()
        if not is_plain_name(folder) or not is_plain_name(name):
            raise ValueError(f"id or filename is not a plain name: {short(folder, 50)!r}, {short(name, 50)!r}")
        path = lookup.file(f"{folder}/{name}", name)
        return SlideEntry(_id_of(name, path, id_from), path, md5=md5 or None)
    slide_id, path, mpp = (row.get(column, "") for column in ("slide_id", "path", "mpp"))
    if TRIDENT in row:
        slide_id, path = without_ending(Path(row[TRIDENT]).name), row[TRIDENT]
    if not slide_id or not path:
        raise ValueError("slide_id or path is empty" if TRIDENT not in row else f"{TRIDENT} is empty")
    if not mpp.isascii() or "_" in mpp:
        raise ValueError(f"mpp is not a number: {mpp[:20]!r}")
    file = lookup.file(path) if TRIDENT in row else lookup.folder / path
    slide_id = _id_of(slide_id, file, id_from) if TRIDENT in row else slide_id
    return SlideEntry(slide_id, _opened(file), float(mpp) if mpp else None)
