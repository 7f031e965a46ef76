"""Slide in the form that the page needs: picture pyramid, tissue mask, tiles, scores, patient."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from longvit.formats.explanation_json import EXPLANATION, ExplanationFolder
from longvit.viewer.find import ViewerSources
from longvit.viewer.mask import mask_picture
from longvit.viewer.pixels import Pixels, open_pixels
from longvit.viewer.pyramid import TILE_DZ, Box, Pyramid
from longvit.viewer.resource import JPEG, PNG, Resource, script
from preprocessing.store.store import PatchStore, open_store

QUALITY = 85
"""Quality of the JPEG tiles."""
TILE = re.compile(r"tiles/([0-9]{1,2})/([0-9]{1,6})_([0-9]{1,6})\.jpg")
_NO_LATTICE = "the tiles are not cells of one grid; each is drawn at the nearest cell"
LAYER = re.compile(r"layers/([0-9]{1,4})\.js")


@dataclass(frozen=True)
class Scene:
    """Opened slide. Threads share it, so its slide file stays open as long as the scene exists.

    Attributes:
        place: Path of its files on the page, `data/0/`.
        slide_id: Name of the slide on the page.
        store: Store of the slide.
        pixels: Source of its picture.
        pyramid: Division of the picture into tiles.
        explanation: Scores, if the slide was explained.
        patient: Place of its patient in the cohort, if a run held the patient out.
    """

    place: str
    slide_id: str
    store: PatchStore
    pixels: Pixels
    pyramid: Pyramid
    explanation: ExplanationFolder | None
    patient: dict[str, Any] | None

    @classmethod
    def open(cls, place: str, slide_id: str, found: ViewerSources, max_px: int | None) -> "Scene":
        """Open a slide with a picture of at most `max_px` pixels on its longer side.

        Raises:
            StoreError: The store cannot be read.
        """
        store = open_store(found.stores[slide_id])
        pixels = open_pixels(store, found.slides)
        pyramid = Pyramid.of(store.size_l0, pixels.size, max_px)
        patient = found.held_out.patient(slide_id) if found.held_out else None
        return cls(place, slide_id, store, pixels, pyramid, found.explanations.get(slide_id), patient)

    def names(self) -> Iterator[str]:
        """Yield the name of every file that `find` returns."""
        yield from ("slide.js", "mask.png")
        if self.explanation is not None:
            yield "tokens.js"
            yield from (f"layers/{i}.js" for i in range(len(self.explanation.layers)))
        for level in range(self.pyramid.min_level, self.pyramid.max_level + 1):
            columns, rows = self.pyramid.tiles(level)
            yield from (f"tiles/{level}/{x}_{y}.jpg" for y in range(rows) for x in range(columns))

    def find(self, name: str) -> Resource | None:
        """Return the file of this name, or None."""
        if match := TILE.fullmatch(name):
            tile = self.pyramid.tile(*map(int, match.groups()))
            return None if tile is None else Resource(JPEG, self._tag, partial(self._jpeg, *tile))
        if name == "mask.png":
            return Resource(PNG, self._tag, lambda: mask_picture(self.store.overview_mask))
        if name == "slide.js":
            return script(self._tag, self.place + name, self.document)
        return self._find_scores(self.explanation, name) if self.explanation else None

    def _find_scores(self, explanation: ExplanationFolder, name: str) -> Resource | None:
        if name == "tokens.js":
            return script(self._tag, self.place + name, lambda: packed(explanation.rc, "<i4"))
        match = LAYER.fullmatch(name)
        if match is None or int(match[1]) >= len(explanation.layers):
            return None
        key = explanation.layers[int(match[1])].key
        return script(self._tag, self.place + name, lambda: packed(explanation.scores(key), "<f4"))

    def document(self) -> dict[str, Any]:
        """Return the data of the slide that the page loads first."""
        store, explanation = self.store, self.explanation
        return {
            "slide_id": self.slide_id,
            "size_l0": store.size_l0,
            "mpp_l0": store.mpp_l0,
            "pixels": self.pixels.origin,
            "pyramid": {
                "size": self.pyramid.size_dz,
                "tile": TILE_DZ,
                "min_level": self.pyramid.min_level,
                "max_level": self.pyramid.max_level,
                "reduced": self.pyramid.size_dz != self.pixels.size,
            },
            "tiles": {
                "count": len(store),
                "side_l0": store.side_l0,
                "rc": packed(store.rc, "<i4"),
                "tissue": packed(store.tissue, "<f4"),
            },
            "explanation": explanation
            and explanation.model_dump(
                mode="json",
                include={"model", "target", "prediction", "side_l0", "layers"},
                exclude={"layers": {"__all__": {"layer", "head"}}},
            ),
            "patient": self.patient,
            "warnings": store.warnings if store.lattice else [*store.warnings, _NO_LATTICE],
        }

    @cached_property
    def _tag(self) -> str:
        """Return the tag of the scene, which changes when its content changes: the scene reads every file only once."""
        return tag_of(self.store.path, self.pixels.origin, self.explanation, self.patient, self.pyramid)

    def _jpeg(self, box_l0: Box, size: tuple[int, int]) -> bytes:
        image = np.ascontiguousarray(self.pixels.read(box_l0, size))
        return simplejpeg.encode_jpeg(image, QUALITY, "RGB", "420")


def tag_of(store: Path, *shown: object) -> str:
    """Return a tag that changes when a store, an explanation, or other shown content changes."""
    written = [(store / "zarr.json").stat().st_mtime_ns]
    written += [(one.folder / EXPLANATION).stat().st_mtime_ns for one in shown if isinstance(one, ExplanationFolder)]
    return hashlib.sha256(repr((store, written, shown)).encode()).hexdigest()[:20]


def packed(values: npt.NDArray[Any], dtype: str) -> str:
    """Return numbers as base64 of their bytes: a third larger than the bytes, and decoded at once."""
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
