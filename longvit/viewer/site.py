"""Page as a set of named files, made on request: the server serves them, `--static` writes them, a notebook shows them.

A name is looked up and never joined to a path. Slides are numbered; a name that is neither in the table nor of the form
of a slide's own file does not exist.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache, cached_property, partial
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from longvit import __version__
from longvit.viewer.find import ViewerSources
from longvit.viewer.mask import MASK_COLOURS
from longvit.viewer.resource import CSS, HTML, JPEG, SCRIPT, TEXT, Resource, script
from longvit.viewer.scene import QUALITY, Scene, tag_of
from preprocessing.errors import PipelineError
from preprocessing.store.store import open_store

START = "index.html"
LIBRARY = "openseadragon/openseadragon.min.js"
SCRIPTS = (
    "dom.js",
    "data.js",
    "colours.js",
    "legend.js",
    "layers.js",
    "picture.js",
    "scalebar.js",
    "places.js",
    "survival.js",
    "patient.js",
    "slides.js",
    "main.js",
)
"""Scripts of the page, in loading order."""
PAGE = {
    START: HTML,
    "style.css": CSS,
    LIBRARY: SCRIPT,
    "openseadragon/LICENSE.txt": TEXT,
    **dict.fromkeys(SCRIPTS, SCRIPT),
}
"""Files of the page that are the same for every slide."""
OF_SLIDE = re.compile(r"data/([0-9]{1,6})/([a-z0-9_/.]+)")
THUMBNAIL_PX = 144
"""Longer side of a slide's picture in the list, pixels."""


class Site:
    """Page of some slides.

    Args:
        found: Content of the page.
        max_px: Longest side of a slide's finest picture, pixels; None for full resolution.
    """

    def __init__(self, found: ViewerSources, max_px: int | None = None) -> None:
        self.found, self.max_px = found, max_px
        self.slide_ids = list(found.stores)
        self._scenes: dict[int, Scene] = {}
        self._opening = Lock()

    def paths(self) -> Iterator[str]:
        """Yield the path of every file that `find` returns, first the files that all slides share."""
        yield from (*PAGE, "data/index.js")
        for number in range(len(self.slide_ids)):
            yield from (f"data/{number}/{name}" for name in ("thumbnail.jpg", *self._scene(number).names()))

    def find(self, path: str) -> Resource | None:
        """Return the file of this path, or None. For an unreadable slide, `slide.js` contains the error.

        Raises:
            PipelineError: The file is another file of a slide that cannot be read.
        """
        if path in PAGE:
            return Resource(PAGE[path], __version__, partial(page_file, path))
        if path == "data/index.js":
            return script("", path, lambda: self.document)
        match = OF_SLIDE.fullmatch(path)
        if match is None or int(match[1]) >= len(self.slide_ids):
            return None
        number = int(match[1])
        if match[2] == "thumbnail.jpg":
            store = self.found.stores[self.slide_ids[number]]
            return Resource(JPEG, tag_of(store), partial(_thumbnail, store))
        try:
            return self._scene(number).find(match[2])
        except PipelineError as error:
            if match[2] != "slide.js":
                raise
            said = self._said(error)
            return script("", path, lambda: {"error": said})

    @cached_property
    def document(self) -> dict[str, Any]:
        """Return the data that the page loads before any slide."""
        held_out = self.found.held_out
        return {
            "title": self.found.title,
            "slides": [self._summary(slide_id) for slide_id in self.slide_ids],
            "cohort": held_out and held_out.document(),
            "mask": MASK_COLOURS,
        }

    def _summary(self, slide_id: str) -> dict[str, Any]:
        held_out = self.found.held_out
        patient = held_out and held_out.patient(slide_id)
        return {"slide_id": slide_id, "explained": slide_id in self.found.explanations, "patient": patient}

    def _said(self, error: PipelineError) -> dict[str, str]:
        """Return an error for the page, without folders; with pseudonyms, its details go to the terminal instead."""
        if self.found.names.key is None:
            return {"what": error.what, "where": Path(str(error.where)).name, "fix": error.fix}
        print(f"error: {error}", file=sys.stderr)
        return {"what": "the slide cannot be read", "where": "", "fix": "see the terminal"}

    def _scene(self, number: int) -> Scene:
        with self._opening:
            if number not in self._scenes:
                place = f"data/{number}/"
                self._scenes[number] = Scene.open(place, self.slide_ids[number], self.found, self.max_px)
            return self._scenes[number]


@cache
def page_file(name: str) -> bytes:
    """Return the content of a file that is the same for every slide, one of `PAGE`."""
    return files("longvit.viewer").joinpath("page", name).read_bytes()


def _thumbnail(store: Path) -> bytes:
    image = Image.fromarray(open_store(store).overview)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), QUALITY, "RGB", "420")
