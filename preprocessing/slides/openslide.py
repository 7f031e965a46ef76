"""Backend for slides in scanners' formats and DICOM, which reads with OpenSlide."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import tifffile

from preprocessing.errors import SlideError
from preprocessing.slides.alpha import on_white
from preprocessing.slides.resolution import as_number

UM_PER_UNIT = {"inch": 25_400.0, "centimeter": 10_000.0}
"""Micrometres per unit of the resolution in TIFF tags, by OpenSlide's name of the unit."""


class OpenSlideBackend:
    """Slide file that OpenSlide reads.

    Raises:
        SlideError: A tile or strip claims more bytes than the file has.
        OpenSlideError: OpenSlide cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        _refuse_lengths(path)
        self._path, self._slide = path, openslide.OpenSlide(path)
        self.vendor = self._slide.properties[openslide.PROPERTY_NAME_VENDOR]
        self.level_sizes = list(self._slide.level_dimensions)
        x, y = self._number(openslide.PROPERTY_NAME_MPP_X), self._number(openslide.PROPERTY_NAME_MPP_Y)
        self.stated_mpp = None if x is None or y is None else (x, y)
        self.tagged_mpp = self._tagged()
        self.objective_power = self._number(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        self.bounds_l0 = self._bounds()
        tiles = [
            [self._number(f"openslide.level[{level}].tile-{side}") or 0 for side in ("width", "height")]
            for level in range(len(self.level_sizes))
        ]
        self.decoded_pixels = max(int(width * height) for width, height in tiles)

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `Backend.read`."""
        try:
            return _rgb(self._slide, xy_l0, level, size)
        except openslide.OpenSlideError:
            # After an error a handle returns that error for every read, also of intact tiles and in other threads.
            fresh = openslide.OpenSlide(self._path)
            pixels = _rgb(fresh, xy_l0, level, size)
            self._slide = fresh
            return pixels

    def close(self) -> None:
        """See `Backend.close`."""
        self._slide.close()

    def _bounds(self) -> tuple[int, int, int, int] | None:
        """Return the scanned part of level 0, or None if the file states none that is within the slide."""
        numbers = [self._number(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
        left, top, width, height = (math.nan if number is None else number for number in numbers)
        right, bottom = self.level_sizes[0]
        if left >= 0 <= top and width >= 1 <= height and left + width <= right and top + height <= bottom:
            return int(left), int(top), int(width), int(height)
        return None

    def _tagged(self) -> tuple[float, float] | None:
        """Return the resolution in the TIFF tags, micrometres per pixel, or None without one."""
        unit = UM_PER_UNIT.get(self._slide.properties.get("tiff.ResolutionUnit", ""))
        x, y = (self._number(f"tiff.{axis}Resolution") for axis in "XY")
        return (unit / x, unit / y) if unit and x and y else None

    def _number(self, name: str) -> float | None:
        value = self._slide.properties.get(name)
        return None if value is None else as_number(value)


def _refuse_lengths(path: Path) -> None:
    """Refuse a tile or strip with more bytes than the file: OpenSlide allocates them, and GLib aborts if that fails.

    A long strip alone is allowed: a level of a Hamamatsu slide is one strip of gigabytes, which OpenSlide reads in
    parts.
    """
    longest, most = 0, path.stat().st_size
    with suppress(Exception), tifffile.TiffFile(path) as file:  # not a TIFF, or damage that OpenSlide reports
        for page in file.pages:
            longest = max((longest, *page.databytecounts))
    if longest > most:
        raise SlideError(
            f"a tile or strip claims {longest} bytes, more than the {most} of its file",
            where=path,
            fix="the file is damaged or forged: copy it again from its source, or leave it out",
        )


def _rgb(
    slide: openslide.OpenSlide, xy_l0: tuple[int, int], level: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    return on_white(np.asarray(slide.read_region(xy_l0, level, size)))
