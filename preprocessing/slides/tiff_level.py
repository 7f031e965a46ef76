"""TIFF levels decoded by tifffile and read by region, which decodes only the tiles or strips in the region."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from preprocessing.errors import SlideError
from preprocessing.jobs.system import read_at
from preprocessing.slides.alpha import on_white
from preprocessing.slides.tiled import CACHE_BYTES, WHITE, read_pieces


class TiffLevel:
    """TIFF level in tiles or strips of 8-bit RGB, with or without opacity, interleaved or in planes.

    Tiles are read at their offsets and decoded without Python's lock, so threads may share an instance.

    Attributes:
        size: (width, height), pixels.
        piece: (width, height) of its tiles or strips, pixels.

    Raises:
        SlideError: The table of tiles or strips has gaps, or offsets beyond the end of the file.
    """

    def __init__(self, path: Path, page: tifffile.TiffPage) -> None:
        self.size = (page.imagewidth, page.imagelength)
        self.piece = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
        self._grid = -(-self.size[1] // self.piece[1]), -(-self.size[0] // self.piece[0])
        self._page, self._tables = page, page.jpegtables
        self._planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
        self._alpha = page.extrasamples[0] if page.extrasamples else tifffile.EXTRASAMPLE.UNSPECIFIED
        self._decode_segment = page.decode  # created here, because threads must not create it concurrently
        self._descriptor = page.parent.filehandle.fileno()
        _refuse_table(path, page, self._planes * self._grid[0] * self._grid[1])
        kept = max(1, CACHE_BYTES // (self.piece[0] * self.piece[1] * 3))
        self._decoded = lru_cache(kept)(self._decode)

    def read(self, left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.uint8]:
        """Read a rectangle within the level as RGB, (bottom - top, right - left, 3); omitted tiles are white."""
        return read_pieces(self._decoded, self.piece, (left, top, right, bottom))

    def close(self) -> None:
        """Clear the cache of decoded tiles; the file is closed by its owner."""
        self._decoded.cache_clear()

    def _decode(self, row: int, column: int) -> npt.NDArray[np.uint8]:
        """Decode one tile or strip to RGB, (h, w, 3), on white."""
        in_plane = row * self._grid[1] + column
        segments = [self._segment(in_plane + plane * self._grid[0] * self._grid[1]) for plane in range(self._planes)]
        present = [segment for segment in segments if segment is not None]
        if len(present) < len(segments):
            return np.full((self.piece[1], self.piece[0], 3), WHITE, np.uint8)
        pixels = np.concatenate(present, axis=-1) if self._planes > 1 else present[0]
        if self._alpha == tifffile.EXTRASAMPLE.UNSPECIFIED:  # a fourth channel, but not an opacity
            return pixels[..., :3]
        return on_white(pixels, premultiplied=self._alpha == tifffile.EXTRASAMPLE.ASSOCALPHA)

    def _segment(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Decode one segment of the file, (h, w, samples); return None if the writer omitted it."""
        offset, length = self._page.dataoffsets[index], self._page.databytecounts[index]
        if not offset or not length:
            return None
        data = read_at(self._descriptor, length, offset)
        pixels, _, _ = self._decode_segment(data, index, jpegtables=self._tables)
        return None if pixels is None else pixels[0]


def _refuse_table(path: Path, page: tifffile.TiffPage, pieces: int) -> None:
    offsets, lengths = (np.array(values, np.uint64) for values in (page.dataoffsets, page.databytecounts))
    if not len(offsets) == len(lengths) == pieces:
        what = f"the file has {pieces} tiles or strips, but lists {len(offsets)}"
    elif (offsets + lengths).max(initial=0) > page.parent.filehandle.size:
        what = f"the file lists tiles or strips beyond its end, at {page.parent.filehandle.size} bytes: it was cut off"
    else:
        return
    raise SlideError(what, where=path, fix="the file is damaged: copy it again from its source")
