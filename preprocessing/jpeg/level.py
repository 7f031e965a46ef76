"""One level of a slide in JPEG tiles as the scanner wrote them: fetched whole without decoding, or decoded at a scale.

OpenSlide reads the same tiles, but gives them decoded, at one size only and at a third of the speed. Where they lie is
said by a TIFF's tags (`preprocessing.jpeg.tiff`) or found in a DICOM file (`preprocessing.jpeg.dicom`).
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import simplejpeg

from preprocessing.jpeg.codec import decode_into, empty_pixels
from preprocessing.jpeg.markers import START, find_markers, is_whole, scan_start, segments

SCALES = (1, 2, 4, 8)
"""A tile can be decoded at one pixel of so many, for less than decoding it whole."""
MAX_TILE_PIXELS = 1 << 24
"""The largest tile that is decoded here, 4096 x 4096 pixels; those of scanners have 240 to 1024 a side."""
MAX_TILE_BYTES = 1 << 27
"""The longest tile that is read: more than the largest has pixels, in bytes."""
ADOBE = START + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""A JPEG's start and APP14 up to its last byte, which says what the colours are (Adobe's Technical Note 5116)."""
ADOBE_COLOURS = {"RGB": b"\x00", "YCbCr": b"\x01"}
JFIF, APP14 = 0xE0, 0xEE
"""Segments that say what colours are."""
MAX_HEADERS = 4
LOOKED_AT = 16
"""Tiles that are looked at until one says how all are coded."""
MAX_GAP = 1 << 14
"""Bytes between two tiles in the file that are read and thrown away rather than begin another read."""
WHITE = 255

Fetched = tuple[bytes, memoryview] | ValueError | None
"""The pieces of a tile's JPEG, or what is wrong with it; None where the scanner left the tile out."""
Decode = Callable[[int, int, int, int], npt.NDArray[np.uint8]]
"""Row, column, scale, channels -> the pixels of a tile, as `JpegLevel.decode`."""


@dataclass(frozen=True)
class JpegLevel:
    """One level of a slide. Sizes are (width, height), places (x, y), pixels of this level."""

    size: tuple[int, int]
    tile: tuple[int, int]
    head: bytes = field(repr=False)
    """What every tile lacks in front of it: start of image, colours, shared tables."""
    offsets: npt.NDArray[np.int64] = field(repr=False)
    """Where in the file each tile begins, (rows, columns)."""
    lengths: npt.NDArray[np.int64] = field(repr=False)
    """Bytes of each tile, (rows, columns); 0 where the scanner left one out."""
    descriptor: int = field(repr=False)
    headers: list[bytes] = field(default_factory=list, repr=False)
    """Beginnings of tiles that were found right; a scanner gives nearly all tiles of a level the same."""
    plain: bool = False
    """Repeat subsampled chroma instead of interpolating it: what subsamples it again then gets back what was there."""

    def fetch(self, rc: npt.NDArray[np.integer]) -> list[Fetched]:
        """The tiles `rc` (n, 2) as whole JPEGs, their form checked but not decoded.

        Neighbours in the file are read and checked at once: else threads would wait for each other's turn with Python
        more than for the disk.
        """
        starts, lengths = self.offsets[rc[:, 0], rc[:, 1]], self.lengths[rc[:, 0], rc[:, 1]]
        order = np.argsort(starts, kind="stable")
        gaps = starts[order][1:] - (starts + lengths)[order][:-1]
        tiles: list[Fetched] = [None] * len(rc)
        for run in np.split(order, np.flatnonzero((gaps < 0) | (gaps > MAX_GAP)) + 1) if len(rc) else ():
            first = int(starts[run[0]])
            data = os.pread(self.descriptor, int(starts[run[-1]] + lengths[run[-1]]) - first, first)
            markers, begins = find_markers(data), starts[run] - first
            for i, begin, end in zip(run.tolist(), begins.tolist(), (begins + lengths[run]).tolist(), strict=True):
                tiles[i] = self._whole(data, begin, end, markers)
        return tiles

    def _whole(self, data: bytes, start: int, end: int, markers: list[int]) -> Fetched:
        """A whole JPEG from what the file has of a tile, which lies from `start` to `end` in the data."""
        if start == end:
            return None
        if end > len(data):
            return ValueError("the tile's bytes are not there")
        header = next((header for header in self.headers if data.startswith(header, start)), None)
        if header is None:
            try:
                header = data[start : scan_start(data, start, self.tile)]
            except ValueError as error:
                return error
            if len(self.headers) < MAX_HEADERS:
                self.headers.append(header)
        if not is_whole(data, start + len(header), end, markers):
            return ValueError("the tile's JPEG data is damaged")
        return self.head, memoryview(data)[start + len(START) : end]

    def decode(self, row: int, column: int, scale: int = 1, channels: int = 3) -> npt.NDArray[np.uint8]:
        """One tile (height / scale, width / scale, channels); what it holds beyond the level's edge is white.

        Args:
            row: Its row.
            column: Its column.
            scale: Decode one pixel of so many; one of `SCALES`.
            channels: 3 for RGB, 1 for luma alone.

        Raises:
            ValueError: It is cut short, damaged, no JPEG of this level's tile size, or its data cannot be decoded.
        """
        width, height = self.tile[0] // scale, self.tile[1] // scale
        length = int(self.lengths[row, column])
        data = os.pread(self.descriptor, length, int(self.offsets[row, column]))
        tile = self._whole(data, 0, length, find_markers(data))
        if isinstance(tile, ValueError):
            raise tile
        if tile is None:
            return np.full((height, width, channels), WHITE, np.uint8)
        pixels = empty_pixels(height, width, channels)
        decode_into(b"".join(tile), pixels, scale, plain=self.plain)
        pixels[max(0, self.size[1] // scale - row * height) :] = WHITE
        pixels[:, max(0, self.size[0] // scale - column * width) :] = WHITE
        return pixels

    def says_its_colours(self) -> bool:
        """Whether the APP14 put in front of its first tile decides its colours.

        It does not where the tile's own APP14, which comes later, says otherwise, or a JFIF header, which means YCbCr.
        """
        head_says = self.head[len(ADOBE) : len(ADOBE) + 1]
        for row, column in np.argwhere(self.lengths > 0)[:1].tolist():
            data = os.pread(self.descriptor, int(self.lengths[row, column]), int(self.offsets[row, column]))
            for kind, begin, end in segments(data):
                if kind == JFIF and head_says != ADOBE_COLOURS["YCbCr"]:
                    return False
                if kind == APP14 and data[begin:end].startswith(b"Adobe") and data[end - 1 : end] != head_says:
                    return False
        return True

    def subsampling(self) -> str:
        """Chroma subsampling of its tiles, as that of the first that can be read: 444, 422, 420 ..."""
        for place in np.argwhere(self.lengths > 0)[:LOOKED_AT]:
            (tile,) = self.fetch(place[None])
            with suppress(ValueError, TypeError):  # of what is damaged, missing, or sampled as it knows no name for
                return simplejpeg.decode_jpeg_header(b"".join(tile))[3]
        return "444"

    def can_scale(self, scale: int) -> bool:
        """Whether decoding at one pixel of `scale` gives tiles of whole pixels."""
        return scale in SCALES and self.tile[0] % scale == 0 and self.tile[1] % scale == 0

    def read(
        self,
        xy: tuple[int, int],
        size: tuple[int, int],
        scale: int = 1,
        decode: Decode | None = None,
        channels: int = 3,
    ) -> npt.NDArray[np.uint8]:
        """A rectangle (h, w, channels) given in pixels of the level decoded at `scale`; white outside of the level.

        Args:
            xy: Top-left corner.
            size: Width and height.
            scale: Decode one pixel of so many; one of `SCALES`.
            decode: `self.decode`, or one that remembers what it gave: its arrays are not written to.
            channels: 3 for RGB, 1 for luma alone.

        Raises:
            ValueError: A tile that the rectangle touches is damaged.
        """
        (x, y), (width, height) = xy, (self.tile[0] // scale, self.tile[1] // scale)
        rows, columns = self.offsets.shape
        decode = decode or self.decode
        one = size == (width, height) and x % width == y % height == 0
        if one and 0 <= x // width < columns and 0 <= y // height < rows:
            return decode(y // height, x // width, scale, channels)  # no copy
        region = np.full((size[1], size[0], channels), WHITE, np.uint8)
        for row in range(max(0, y // height), min(rows, -(-(y + size[1]) // height))):
            for column in range(max(0, x // width), min(columns, -(-(x + size[0]) // width))):
                left, top = column * width - x, row * height - y  # of the tile, in the region
                into = region[max(0, top) : top + height, max(0, left) : left + width]
                pixels = decode(row, column, scale, channels)[max(0, -top) :, max(0, -left) :]
                into[:] = pixels[: into.shape[0], : into.shape[1]]
        return region
