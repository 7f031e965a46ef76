"""Slide files of a folder, searched below, and of a pattern such as `slides/*/*.svs`."""

import glob
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from preprocessing.errors import CohortError
from preprocessing.slides.dicom import series_uid
from preprocessing.slides.names import ENDINGS, has_ending

LEFT_OUT = {"logs", "__MACOSX"}
"""Folders that are not searched: gdc-client writes logs there, and a Mac's archives have no slides there."""
MAX_FILES = 10_000_000
"""Largest number of files and folders that are listed; a search that starts at the root of a disk ends here."""


def is_pattern(path: Path) -> bool:
    """Return whether a path that does not exist has the wildcards of a pattern."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def matches(pattern: Path) -> list[Path]:
    """Return the visible files and folders that match a pattern, sorted; `**` matches folders at any depth.

    Files without the ending of a slide are omitted.

    Raises:
        CohortError: Nothing matches.
    """
    found = [Path(name) for name in sorted(glob.iglob(str(pattern), recursive=True))]
    kept = [path for path in found if path.is_dir() or has_ending(path.name)]
    if not kept:
        what = f"{len(found)} files match, none with a slide's ending" if found else "nothing matches this pattern"
        raise CohortError(what, where=pattern.absolute(), fix="check the pattern, and put it in quotes")
    return kept


def slides_below(folder: Path) -> list[tuple[str, Path]]:
    """Return name and opened file of every slide in a folder and below it.

    Hidden files, unfinished downloads (`*.partial`), folders of logs and stores, and the data folder next to an MRXS
    file are left out. A folder that several links lead to is searched once. The DICOM files of a series are one slide;
    it has the name of its folder if nothing else is in that subfolder, else of its first file.

    Raises:
        CohortError: There are no slides; the endings of the files that are there are listed.
        OSError: The folder cannot be read.
    """
    found, others = [], Counter[str]()
    for place, names in _folders(folder):
        slides = [name for name in names if has_ending(name)]
        others.update(Path(name).suffix.lower() or "without an ending" for name in names if name not in slides)
        found += _in_one(place, slides, is_root=place == folder)
    if not found:
        there = ", ".join(f"{times} {ending}" for ending, times in others.most_common(5)) or "no files"
        raise CohortError(
            f"no file in this folder or below has a slide's ending ({' '.join(sorted(ENDINGS))}); there are: {there}",
            where=folder.absolute(),
            fix="give the folder that contains the slides, or a CSV with columns slide_id and path",
        )
    times = Counter(name for name, _ in found)
    first: dict[tuple[str, Path], tuple[str, Path]] = {}
    for name, path in found:  # a link and its target, both in the folder and of one name, are one slide
        first.setdefault((name, path.resolve() if times[name] > 1 else path), (name, path))
    return list(first.values())


def files_below(folder: Path) -> dict[str, list[Path]]:
    """Return the files in a folder and below it, by name; the same files as `slides_below` searches."""
    found: dict[str, list[Path]] = {}
    for place, names in _folders(folder):
        for name in names:
            found.setdefault(name, []).append(place / name)
    return found


def _in_one(place: Path, names: list[str], is_root: bool) -> list[tuple[str, Path]]:
    """Return name and opened file of the slides of one folder."""
    first: dict[str, Path] = {}
    for name in names:
        first.setdefault(_series(place / name), place / name)
    if len(first) == 1 and not is_root and all(name.lower().endswith(".dcm") for name in names):
        return [(place.name, file) for file in first.values()]
    return [(file.name, file) for file in first.values()]


def _series(file: Path) -> str:
    """Return the series of a DICOM file, which the files of a slide share; for other files the path."""
    if file.suffix.lower() == ".dcm" and file.is_file():
        with suppress(OSError):
            return series_uid(file) or str(file)
    return str(file)


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder from `root` on with the names of its visible files, in sorted order."""
    seen, waiting, listed = set(), [root], 0
    while waiting:
        place = waiting.pop()
        try:
            status = place.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                visible = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")
        except OSError:
            if place == root:
                raise
            continue  # a subfolder that cannot be read may belong to another user
        listed += len(visible)
        if listed > MAX_FILES:
            fix = "give the folder that contains the slides"
            raise CohortError(f"there are more than {MAX_FILES} files below", where=root.absolute(), fix=fix)
        names = [name for name, is_folder in visible if not is_folder]
        data = {name[: -len(".mrxs")] for name in names if name.lower().endswith(".mrxs")}
        below = [name for name, is_folder in visible if is_folder and name not in LEFT_OUT | data]
        waiting += [place / name for name in reversed(below) if not name.endswith(".zarr")]
        yield place, names
