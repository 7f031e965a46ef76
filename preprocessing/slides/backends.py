"""Ways into a slide file behind one small protocol, and which of them a file takes."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import openslide

from preprocessing.errors import SlideError
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.tiff import TiffBackend

GENERIC_TIFF = "generic-tiff"
"""What OpenSlide calls a TIFF of no scanner; those are read with tifffile (why, `preprocessing.slides.tiff` says)."""


class Backend(Protocol):
    """An open slide file. Level 0 is the finest; sizes are (width, height). Threads may read at the same time."""

    vendor: str
    level_sizes: list[tuple[int, int]]
    stated_mpp: tuple[float, float] | None
    """What the file says of its resolution, x and y, micrometres per pixel of level 0; NaN where that is no number."""
    objective_power: float | None
    """What the file says of its magnification, which is not a resolution."""
    bounds_l0: tuple[int, int, int, int] | None
    """Left, top, width and height of the part that was scanned, for a slide with empty borders, if the file says."""
    decoded_pixels: int
    """Pixels of the largest tile or strip, which is decoded whole; 0 if the format does not say."""

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """RGB (h, w, 3) of `size` pixels of a level, on white: what is transparent, left out or outside is white.

        Raises:
            Exception: Whatever the library raises for data that it cannot decode.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_backend(path: Path) -> Backend:
    """Open a slide of a scanner's format or DICOM with OpenSlide, and any other TIFF with tifffile.

    Raises:
        SlideError: The file is missing or empty, or neither library can read it; with the reasons of both.
    """
    if not path.is_file():
        raise SlideError("there is no such file", where=path, fix="check the path, or the manifest that names it")
    if path.stat().st_size == 0:
        raise SlideError("the file is empty", where=path, fix="copy the slide again from where it came")
    refusal = ""
    if openslide.OpenSlide.detect_format(path) not in (None, GENERIC_TIFF):
        try:
            return OpenSlideBackend(path)
        except openslide.OpenSlideError as error:
            refusal = f"OpenSlide: {error}"
    try:
        return TiffBackend(path)
    except SlideError as error:
        if refusal:
            error.add_note(refusal)
        raise
    except Exception as error:  # tifffile and the codecs behind it raise anything on damaged files
        raise SlideError(
            f"no library can read this slide ({refusal or 'OpenSlide: no format it knows'}; "
            f"tifffile: {type(error).__name__}: {error})",
            where=path,
            fix="copy it again if it is damaged, else convert it to an 8-bit RGB pyramidal TIFF (`vips tiffsave`)",
        ) from error
