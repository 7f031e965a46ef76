"""Backend for TIFFs without a scanner's format: generic TIFF, BigTIFF and OME-TIFF, pyramids or single images.

It reads with tifffile. OpenSlide reads some of these files too, but takes 16 bits for 8 and ignores levels and
resolution of an OME-TIFF.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from preprocessing.errors import SlideError
from preprocessing.slides.ome import ome_mpp, ome_objective_power
from preprocessing.slides.tiff_level import TiffLevel
from preprocessing.slides.tiled import read_region

UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
"""Micrometres per TIFF ResolutionUnit: 2 is the inch, 3 the centimetre; 1 is not a length."""
COLOURS_TURNED_TO_RGB = (COMPRESSION.JPEG, COMPRESSION.OJPEG)
"""Compressions whose decoder converts YCbCr to RGB; other decoders return YCbCr unchanged."""


class TiffBackend:
    """8-bit RGB or RGBA TIFF in tiles or strips, whose levels are further pages or SubIFDs of the first page."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as undo:
            self._file = undo.enter_context(tifffile.TiffFile(path))
            series = max(self._file.series, key=lambda candidate: candidate.size, default=None)
            if series is None or not _is_listed_to_its_end(self._file):
                raise SlideError(
                    "the file ends before the list of its images: it was not copied whole",
                    where=path,
                    fix="copy the slide again from its source, and compare the sizes",
                )
            pages = [level.keyframe for level in series.levels]
            for page in pages:
                _refuse_pixels(path, series.axes, page)
            self.vendor = "ome-tiff" if self._file.is_ome else "generic-tiff"
            self.stated_mpp, self.objective_power = self._stated(pages[0])
            self.tagged_mpp = mpp_of_tags(pages[0])
            self.bounds_l0: tuple[int, int, int, int] | None = None
            self._levels = [TiffLevel(path, page) for page in pages]
            self.level_sizes = [level.size for level in self._levels]
            self.decoded_pixels = max(level.piece[0] * level.piece[1] for level in self._levels)
            undo.pop_all()  # no error: the file stays open

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `Backend.read`."""
        return read_region(self._levels, xy_l0, level, size)

    def close(self) -> None:
        """See `Backend.close`."""
        for level in self._levels:
            level.close()
        self._file.close()

    def _stated(self, page: tifffile.TiffPage) -> tuple[tuple[float, float] | None, float | None]:
        """Return micrometres per pixel and objective power; OME-XML is preferred to tags, which often have defaults."""
        xml = self._file.ome_metadata
        if xml is None:
            return mpp_of_tags(page), None
        return ome_mpp(xml, (page.imagewidth, page.imagelength)) or mpp_of_tags(page), ome_objective_power(xml)


def mpp_of_tags(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return micrometres per pixel, x and y, from XResolution, YResolution and ResolutionUnit, or None without them.

    The tags are defined in TIFF 6.0, section 8.
    """
    tags = [page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    if None in tags or tags[2] not in UM_PER_UNIT or 0 in (*tags[0], *tags[1]):
        return None
    (x, x_per), (y, y_per), unit = tags
    return UM_PER_UNIT[unit] * x_per / x, UM_PER_UNIT[unit] * y_per / y


def _is_listed_to_its_end(file: tifffile.TiffFile) -> bool:
    """Return whether the list of a file's images ends with a zero, as required (TIFF 6.0, section 2).

    Scanners write the entry of each image after its data. So a file that was cut off still has the entries of the first
    images, and the offset of the next entry is beyond the end of the file.
    """
    end = file.pages.next_page_offset
    if end is None:
        return False
    file.filehandle.seek(end)
    return file.filehandle.read(file.tiff.offsetsize) == bytes(file.tiff.offsetsize)


def _refuse_pixels(path: Path, axes: str, page: tifffile.TiffPage) -> None:
    # Aperio's JPEG 2000 in YCbCr lacks its colour space; OpenSlide handles it in slides of Aperio's own format.
    if page.compression not in tifffile.TIFF.DECOMPRESSORS or page.compression == COMPRESSION.APERIO_JP2000_YCBC:
        raise SlideError(
            f"TIFF compression {page.compression} has no decoder", where=path, fix="convert it to JPEG compression"
        )
    colour = page.photometric == PHOTOMETRIC.RGB or (
        page.photometric == PHOTOMETRIC.YCBCR and page.compression in COLOURS_TURNED_TO_RGB
    )
    plain = page.dtype == np.uint8 and axes in ("YXS", "SYX") and page.samplesperpixel in (3, 4)
    if not (colour and plain):
        found = f"{page.dtype} {PHOTOMETRIC(page.photometric).name}, axes {axes} of {page.shape}"
        raise SlideError(f"not 8-bit RGB but {found}", where=path, fix="convert it to an 8-bit RGB pyramidal TIFF")
