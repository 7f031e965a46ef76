"""Slides in the formats of scanners, and DICOM, through OpenSlide."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide

from preprocessing.alpha import on_white
from preprocessing.resolution import as_number


class OpenSlideBackend:
    """Whatever OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        self._path, self._slide = path, openslide.OpenSlide(path)
        self.vendor = self._slide.properties[openslide.PROPERTY_NAME_VENDOR]
        self.level_sizes = list(self._slide.level_dimensions)
        x, y = self._number(openslide.PROPERTY_NAME_MPP_X), self._number(openslide.PROPERTY_NAME_MPP_Y)
        self.stated_mpp = None if x is None or y is None else (x, y)
        self.objective_power = self._number(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
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
            # After one error a handle gives nothing but that error, to other threads too, and for whole tiles.
            fresh = openslide.OpenSlide(self._path)
            pixels = _rgb(fresh, xy_l0, level, size)
            self._slide = fresh
            return pixels

    def close(self) -> None:
        """See `Backend.close`."""
        self._slide.close()

    def _number(self, name: str) -> float | None:
        value = self._slide.properties.get(name)
        return None if value is None else as_number(value)


def _rgb(
    slide: openslide.OpenSlide, xy_l0: tuple[int, int], level: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    return on_white(np.asarray(slide.read_region(xy_l0, level, size)))
