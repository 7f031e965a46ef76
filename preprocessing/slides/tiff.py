"""TIFFs of no scanner's own format, through tifffile: generic, BigTIFF and OME-TIFF, pyramids or single pictures.

OpenSlide reads some of them too, but takes 16 bits for 8 and sees neither the levels nor the resolution of an OME-TIFF.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from preprocessing.errors import SlideError
from preprocessing.slides.ome import ome_mpp, ome_objective_power
from preprocessing.slides.tiff_level import WHITE, TiffLevel

UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
"""Micrometres in a TIFF ResolutionUnit: 2 is the inch, 3 the centimetre; 1 has no length."""
COLOURS_TURNED_TO_RGB = (COMPRESSION.JPEG, COMPRESSION.OJPEG)
"""Compressions whose decoder turns YCbCr into RGB; others would give YCbCr for RGB."""


class TiffBackend:
    """An 8-bit RGB or RGBA TIFF in tiles or strips, whose levels follow it or hang below it as SubIFDs."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as undo:
            self._file = undo.enter_context(tifffile.TiffFile(path))
            series = max(self._file.series, key=lambda candidate: candidate.size, default=None)
            if series is None or not _is_listed_to_its_end(self._file):
                raise SlideError(
                    "the file ends before the list of its images: it was not copied whole",
                    where=path,
                    fix="copy the slide again from where it came, and compare the sizes",
                )
            pages = [level.keyframe for level in series.levels]
            for page in pages:
                _refuse_pixels(path, series.axes, page)
            self.vendor = "ome-tiff" if self._file.is_ome else "generic-tiff"
            self.stated_mpp, self.objective_power = self._stated(pages[0])
            self.bounds_l0 = None
            self._levels = [TiffLevel(path, page) for page in pages]
            self.level_sizes = [level.size for level in self._levels]
            self.decoded_pixels = max(level.piece[0] * level.piece[1] for level in self._levels)
            undo.pop_all()  # all went well: the file stays open

    def read(self, xy_l0: tuple[int, int], level: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """See `Backend.read`."""
        (width, height), (width_l0, height_l0) = self.level_sizes[level], self.level_sizes[0]
        x, y = round(xy_l0[0] * width / width_l0), round(xy_l0[1] * height / height_l0)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
        region = np.full((size[1], size[0], 3), WHITE, np.uint8)
        if left < right and top < bottom:
            region[top - y : bottom - y, left - x : right - x] = self._levels[level].read(left, top, right, bottom)
        return region

    def close(self) -> None:
        """See `Backend.close`."""
        for level in self._levels:
            level.close()
        self._file.close()

    def _stated(self, page: tifffile.TiffPage) -> tuple[tuple[float, float] | None, float | None]:
        """Micrometres per pixel and objective power; OME's description goes before the tags, often left at defaults."""
        if not self._file.is_ome:
            return mpp_of_tags(page), None
        xml = self._file.ome_metadata
        return ome_mpp(xml, (page.imagewidth, page.imagelength)) or mpp_of_tags(page), ome_objective_power(xml)


def mpp_of_tags(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Micrometres per pixel from XResolution, YResolution and ResolutionUnit (TIFF 6.0, section 8), if stated."""
    tags = [page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    if None in tags or tags[2] not in UM_PER_UNIT or 0 in (*tags[0], *tags[1]):
        return None
    (x, x_per), (y, y_per), unit = tags
    return UM_PER_UNIT[unit] * x_per / x, UM_PER_UNIT[unit] * y_per / y


def _is_listed_to_its_end(file: tifffile.TiffFile) -> bool:
    """Whether the list of a file's images ends with a zero, as it must (TIFF 6.0, section 2).

    Scanners write each image's entry behind it, so of a file that was cut off the first ones are there, and the next is
    said to lie beyond the end.
    """
    file.filehandle.seek(file.pages.next_page_offset)
    return file.filehandle.read(file.tiff.offsetsize) == bytes(file.tiff.offsetsize)


def _refuse_pixels(path: Path, axes: str, page: tifffile.TiffPage) -> None:
    # Aperio's JPEG 2000 in YCbCr does not say so inside; OpenSlide knows, and reads it in slides that are Aperio's.
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
