"""Two ways into a slide file behind one small protocol: OpenSlide, and tifffile for TIFFs that OpenSlide refuses."""

from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import openslide
import tifffile
import zarr

from preprocessing.errors import SlideError

UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
"""Micrometres in a TIFF ResolutionUnit: 2 is the inch, 3 the centimetre; 1 has no length."""


class Backend(Protocol):
    """An open slide file. Level 0 is the finest; sizes are (width, height)."""

    vendor: str
    level_sizes: list[tuple[int, int]]
    stated_mpp: tuple[float, float] | None
    """What the file says of its resolution, x and y, micrometres per pixel of level 0; objective power is not that."""

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """RGB (h, w, 3) of `size` pixels of a level, on white: what is transparent or outside of the slide is white.

        Raises:
            Exception: Whatever the library raises for data that it cannot decode.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_backend(path: Path) -> Backend:
    """Open a slide with OpenSlide, or else with tifffile.

    Raises:
        SlideError: The file is missing or empty, or neither library can read it; with the reasons of both.
    """
    if not path.is_file():
        raise SlideError("there is no such file", where=path, fix="check the path, or the manifest that names it")
    if path.stat().st_size == 0:
        raise SlideError("the file is empty", where=path, fix="copy the slide again from where it came")
    try:
        return OpenSlideBackend(path)
    except openslide.OpenSlideError as error:
        refusal = f"OpenSlide: {error}"
    try:
        return TiffBackend(path)
    except Exception as error:  # tifffile and the codecs behind it raise anything on damaged files
        reason = error.what if isinstance(error, SlideError) else f"{type(error).__name__}: {error}"
        raise SlideError(
            f"no library can read this slide ({refusal}; tifffile: {reason})",
            where=path,
            fix="copy it again if it is damaged, else convert it to an 8-bit RGB pyramidal TIFF (`vips tiffsave`)",
        ) from error


def on_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay RGBA (h, w, 4), not premultiplied, on white: RGB (h, w, 3)."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgb)
    weight = alpha.astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


class OpenSlideBackend:
    """Whatever OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        self._slide = openslide.OpenSlide(path)
        properties = self._slide.properties
        self.vendor = properties[openslide.PROPERTY_NAME_VENDOR]
        self.level_sizes = list(self._slide.level_dimensions)
        x, y = properties.get(openslide.PROPERTY_NAME_MPP_X), properties.get(openslide.PROPERTY_NAME_MPP_Y)
        self.stated_mpp = None if x is None or y is None else (float(x), float(y))

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `Backend.read`."""
        return on_white(np.asarray(self._slide.read_region(xy_l0, level, size)))

    def close(self) -> None:
        """See `Backend.close`."""
        self._slide.close()


class TiffBackend:
    """An 8-bit RGB or RGBA TIFF, with or without a pyramid, tiled or in strips; pixels are read by region."""

    def __init__(self, path: Path) -> None:
        self.vendor = "tifffile"
        with ExitStack() as undo:
            self._file = undo.enter_context(tifffile.TiffFile(path))
            series = max(self._file.series, key=lambda candidate: candidate.size)
            _refuse_pixels(path, series, series.keyframe)
            self._levels = [zarr.open_array(level.aszarr(), mode="r") for level in series.levels]
            self.level_sizes = [(level.shape[1], level.shape[0]) for level in self._levels]
            self.stated_mpp = _mpp_from_tags(series.keyframe)
            undo.pop_all()  # all went well: the file stays open

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `Backend.read`."""
        (width, height), (width_l0, height_l0) = self.level_sizes[level], self.level_sizes[0]
        x, y = round(xy_l0[0] * width / width_l0), round(xy_l0[1] * height / height_l0)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
        region = np.full((size[1], size[0], 3), 255, np.uint8)
        if left < right and top < bottom:
            pixels = np.asarray(self._levels[level][top:bottom, left:right])
            region[top - y : bottom - y, left - x : right - x] = pixels if pixels.shape[2] == 3 else on_white(pixels)
        return region

    def close(self) -> None:
        """See `Backend.close`."""
        self._file.close()


def _refuse_pixels(path: Path, series: tifffile.TiffPageSeries, page: tifffile.TiffPage) -> None:
    colour = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if not (colour and page.dtype == np.uint8 and series.axes == "YXS" and page.samplesperpixel in (3, 4)):
        found = f"{page.dtype} {tifffile.PHOTOMETRIC(page.photometric).name}, axes {series.axes} of {series.shape}"
        raise SlideError(f"not 8-bit RGB but {found}", where=path, fix="convert it to an 8-bit RGB pyramidal TIFF")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise SlideError(
            f"TIFF compression {page.compression} has no decoder", where=path, fix="convert it to JPEG compression"
        )


def _mpp_from_tags(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Micrometres per pixel from XResolution, YResolution and ResolutionUnit (TIFF 6.0, section 8), if stated."""
    tags = [page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    if None in tags or tags[2] not in UM_PER_UNIT or 0 in (*tags[0], *tags[1]):
        return None
    (x, x_per), (y, y_per), unit = tags
    return UM_PER_UNIT[unit] * x_per / x, UM_PER_UNIT[unit] * y_per / y
