"""Lists of slides as other programs write them: gdc-client's manifests, TRIDENT's lists, QuPath's projects, and lines.

Relative paths start at the list's folder, or at a folder that is given. A file that is not at its path is searched by
its name below that folder.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from preprocessing.errors import CohortError
from preprocessing.tiling.search import files_below

GDC = {"id", "filename", "md5"}
"""Columns of a manifest of the Genomic Data Commons (https://docs.gdc.cancer.gov/Data_Transfer_Tool)."""
TRIDENT = "wsi"
"""Column of the list that TRIDENT reads with `--custom_list_of_wsis`; its column `mpp` is the resolution."""


@dataclass(frozen=True)
class Lookup:
    """Files of a list, found at their paths or by their names below `folder`."""

    folder: Path

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return files_below(self.folder)

    def file(self, *places: str | Path) -> Path:
        """Return the first of several possible paths that exists, else the file of that name below the folder.

        A missing file is returned as the first path, and its slide fails by name later.

        Raises:
            ValueError: Several files below the folder have the name.
        """
        paths = [self.folder / place for place in places]
        for path in paths:
            if path.exists():
                return path
        found = self._by_name.get(paths[0].name, [])
        if len(found) > 1 and len({file.resolve() for file in found}) > 1:
            raise ValueError(f"several files have the name: {found[0]} and {found[1]}")
        return found[0] if found else paths[0]


def qupath_images(project: Path) -> Iterator[str]:
    """Yield the path of each image of a QuPath project (`project.qpproj`), without repetition.

    Raises:
        CohortError: The file is not a project, or an image is not a file.
    """
    fix = "give the project.qpproj of a QuPath project whose images are files"
    try:
        images = json.loads(project.read_text(encoding="utf-8"))["images"]
        uris = [next(_uris(image["serverBuilder"]), "") for image in images]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"this is not a QuPath project: {type(error).__name__}: {error}"
        raise CohortError(what, where=project, fix=fix) from error
    for number, uri in enumerate(dict.fromkeys(uris), 1):
        parts = urlsplit(uri)
        if parts.scheme != "file" or not parts.path:
            raise CohortError(f"image {number} is not a file: {uri[:200]!r}", where=project, fix=fix)
        yield unquote(parts.path)


def _uris(builder: object) -> Iterator[str]:
    """Yield the addresses in a server builder, which may contain other builders (rotated or cropped images)."""
    if isinstance(builder, dict):
        if isinstance(builder.get("uri"), str):
            yield builder["uri"]
        for inner in builder.values():
            yield from _uris(inner)
    elif isinstance(builder, list):
        for inner in builder:
            yield from _uris(inner)
