"""Sources of the page's pixels: the slide file if available, else the store, with its overview outside the tiles.

Each class reads a rectangle of the slide, given in level-0 pixels, as a picture of a given width and height. `size` is
the size of the finest picture, and `origin` is a text for the page about the source of the pixels.
"""

import sys
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from longvit.viewer.pyramid import Box
from preprocessing.errors import SlideError
from preprocessing.frames import px_from_l0, st_from_l0
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.store.store import PatchStore
from preprocessing.tiling.manifest import SlideEntry

RGB = npt.NDArray[np.uint8]
"""Picture (h, w, 3)."""
OVERVIEW_ENOUGH = 0.75
"""Size of a screen pixel, in overview pixels, from which the overview is used: it is at hand, and looks the same."""


class OverviewPixels:
    """Overview of a store, stretched over the slide; source of coarse pictures and of glass."""

    def __init__(self, store: PatchStore) -> None:
        height, width = store.overview.shape[:2]
        self.size = (width, height)
        self._px_l0 = tuple((np.array(store.size_l0) / self.size).tolist())
        self._image = Image.fromarray(store.overview)

    def fine_enough(self, box_l0: Box, size: tuple[int, int]) -> bool:
        """Return whether the overview is fine enough for a picture of this size."""
        return box_l0[2] / size[0] >= OVERVIEW_ENOUGH * self._px_l0[0]

    def read(self, box_l0: Box, size: tuple[int, int]) -> RGB:
        """Read the rectangle `box_l0` as a picture of `size` (width, height)."""
        left, top, width, height = box_l0
        edges_l0 = np.array([(left, top), (left + width, top + height)])
        (left, top), (right, bottom) = px_from_l0(edges_l0, self._px_l0).tolist()
        return _resampled(self._image, (left, top, right, bottom), size)


class StorePixels:
    """Tiles of a store, drawn over its overview."""

    def __init__(self, store: PatchStore) -> None:
        self._store, self._overview = store, OverviewPixels(store)
        width, height = np.rint(st_from_l0(store.size_l0, store.side_l0, store.tile_st)).astype(int).clip(1).tolist()
        self.size = (width, height)
        self.origin = f"the store's tiles, {store.mpp:.3g} µm per pixel; glass from its overview"
        self._present = np.zeros(store.grid_shape, bool)
        self._present[tuple(store.rc.T)] = True

    def read(self, box_l0: Box, size: tuple[int, int]) -> RGB:
        """Read the rectangle `box_l0` as a picture of `size` (width, height)."""
        if self._overview.fine_enough(box_l0, size):
            return self._overview.read(box_l0, size)
        corner_and_size_l0 = np.reshape(box_l0, (2, 2))
        (left, top), (width, height) = st_from_l0(corner_and_size_l0, self._store.side_l0, self._store.tile_st).tolist()
        right, bottom = left + width, top + height
        there = self._has_tile(left, right, top, bottom, size)
        if not there.any():
            return self._overview.read(box_l0, size)
        x_st, y_st = int(left), int(top)
        width_st, height_st = int(np.ceil(right)) - x_st, int(np.ceil(bottom)) - y_st
        region = Image.fromarray(self._store.read_region((x_st, y_st), (width_st, height_st)))
        edges = (left - x_st, top - y_st, min(right - x_st, width_st), min(bottom - y_st, height_st))
        tiles = _resampled(region, edges, size)
        return tiles if there.all() else np.where(there[..., None], tiles, self._overview.read(box_l0, size))

    def _has_tile(self, left: float, right: float, top: float, bottom: float, size: tuple[int, int]) -> np.ndarray:
        """Return, for every pixel (h, w) of a picture, whether the store has a tile there; edges in store pixels."""
        rows, columns = (
            np.clip((low + (np.arange(n) + 0.5) * (high - low) / n) // self._store.tile_st, 0, most - 1).astype(int)
            for low, high, n, most in zip((top, left), (bottom, right), size[::-1], self._present.shape, strict=True)
        )
        return self._present[rows[:, None], columns]


class SlidePixels:
    """Slide file, at any resolution up to its own."""

    def __init__(self, slide: Slide, store: PatchStore) -> None:
        self._slide, self._overview = slide, OverviewPixels(store)
        self.size = slide.size_l0
        self.origin = f"the slide file, {slide.mpp_l0:.3g} µm per pixel"

    def read(self, box_l0: Box, size: tuple[int, int]) -> RGB:
        """Read the rectangle `box_l0` as a picture of `size` (width, height)."""
        if self._overview.fine_enough(box_l0, size):
            return self._overview.read(box_l0, size)
        x_l0, y_l0, *size_l0 = box_l0
        return self._slide.read_scaled((round(x_l0), round(y_l0)), (size_l0[0], size_l0[1]), size)


Pixels = StorePixels | SlidePixels
"""Pixels of a slide to be shown."""


def open_pixels(store: PatchStore, slides: Mapping[str, SlideEntry]) -> Pixels:
    """Open the slide file if it can be read and is the store's source; else the store, with the reason in `origin`.

    A file counts as the same if its name and size are the same: hashing gigabytes takes too long for a reader.
    """
    pixels = StorePixels(store)
    if store.slide_id not in slides:
        return pixels
    path, source = slides[store.slide_id].path, store.source
    if not path.is_file() or (path.name, path.stat().st_size) != (source.name, source.size):
        pixels.origin += " (the slide file is not the file that was tiled)"
        return pixels
    try:
        return SlidePixels(read_slide(path, store.mpp_l0), store)
    except SlideError as error:
        print(f"warning: {error}", file=sys.stderr)
        pixels.origin += " (the slide file cannot be read)"
        return pixels


def _resampled(image: Image.Image, edges: tuple[float, float, float, float], size: tuple[int, int]) -> RGB:
    """Return the part of an image between `edges` (left, top, right, bottom) as `size`; edges may exceed the image."""
    left, top = min(edges[0], image.width - 1), min(edges[1], image.height - 1)
    right, bottom = min(max(edges[2], left + 1e-3), image.width), min(max(edges[3], top + 1e-3), image.height)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom)))
