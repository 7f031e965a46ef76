"""Protocol of the backends that read slide files, and the choice of a backend for a file."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import openslide

from preprocessing.errors import SlideError, short
from preprocessing.slides.names import other_kind
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.tiff import TiffBackend

GENERIC_TIFF = "generic-tiff"
"""OpenSlide's vendor name for a TIFF without a scanner's format.

Such files are read with tifffile, for the reasons given in `preprocessing.slides.tiff`.
"""

NEXT_LIBRARY = ("aperio", "dicom")
"""Vendors whose slides another library may read if OpenSlide cannot; those of others overlap tiles or have gaps."""

TIFFS = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide", ".qptiff")
"""Endings of files that are TIFFs; the first bytes of other slide files may be those of other kinds of files."""

DICOM_MAGIC = slice(128, 132), b"DICM"
"""Position of the four bytes of every DICOM file, and their value (DICOM PS3.10, 7.1)."""

FIX = "copy it again if it is damaged, else convert it to an 8-bit RGB pyramidal TIFF (`vips tiffsave`)"


class Backend(Protocol):
    """Open slide file. Level 0 is the finest level, sizes are (width, height), and threads may read concurrently."""

    vendor: str
    level_sizes: list[tuple[int, int]]
    stated_mpp: tuple[float, float] | None
    """Resolution in the file's metadata, x and y, micrometres per pixel of level 0; NaN if it is not a number."""
    objective_power: float | None
    """Magnification of the objective in the file's metadata; a resolution cannot be derived from it exactly."""
    tagged_mpp: tuple[float, float] | None
    """Resolution in the TIFF tags of a file that states it also elsewhere; None if they state none."""
    bounds_l0: tuple[int, int, int, int] | None
    """Left, top, width and height of the scanned part of a slide with empty borders, level-0 pixels; None if the file
    states none."""
    decoded_pixels: int
    """Pixels of the largest tile or strip, which can only be decoded as a whole; 0 if the format has no such size."""

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Read `size` pixels of a level as RGB, (h, w, 3); transparent, omitted and outside pixels are white.

        Raises:
            Exception: Any error of the library for data that it cannot decode.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_backend(path: Path) -> Backend:
    """Open a slide in a scanner's format or in DICOM with OpenSlide, other DICOM frames and TIFFs with other libraries.

    Raises:
        SlideError: The file is missing or empty, or no library can read it; the reasons of both are included.
    """
    if not path.is_file():
        raise SlideError("there is no such file", where=path, fix="check the path, or the manifest that contains it")
    if path.stat().st_size == 0:
        raise SlideError("the file is empty", where=path, fix="copy the slide again from its source")
    refusal, vendor = "", openslide.OpenSlide.detect_format(path)
    if vendor not in (None, GENERIC_TIFF):
        try:
            return OpenSlideBackend(path)
        except openslide.OpenSlideError as error:
            if vendor not in NEXT_LIBRARY:
                what = f"OpenSlide cannot read this slide of {vendor}: {short(str(error), 300)}"
                raise SlideError(what, where=path, fix=FIX) from error
            refusal = f"OpenSlide: {error}"
    if _is_dicom(path):
        return _open_dicom(path, refusal or "OpenSlide: not a supported format")
    try:
        return TiffBackend(path)
    except SlideError as error:
        if refusal:
            error.add_note(refusal)
        raise
    except Exception as error:  # tifffile and its codecs raise any exception on damaged files
        kind = other_kind(path) if path.suffix.lower() in TIFFS else None
        what = f"this is {kind}, not a slide" if kind else "no library can read this slide"
        raise SlideError(
            f"{what} ({refusal or 'OpenSlide: not a supported format'}; tifffile: {type(error).__name__}: {error})",
            where=path,
            fix=FIX,
        ) from error


def _open_dicom(path: Path, refusal: str) -> Backend:
    from preprocessing.slides.dicom_backend import DicomBackend  # here, since pydicom loads slowly

    try:
        return DicomBackend(path)
    except Exception as error:  # pydicom raises any exception on a damaged header
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise SlideError(
            f"no library can read this DICOM slide ({short(refusal, 300)}; pydicom: {short(what, 300)})",
            where=path,
            fix="put all files of its series into one folder; if they are complete and not damaged, convert the slide "
            "to JPEG baseline frames (for example with wsidicomizer)",
        ) from error


def _is_dicom(path: Path) -> bool:
    place, magic = DICOM_MAGIC
    with path.open("rb") as file:
        return file.read(place.stop)[place] == magic
