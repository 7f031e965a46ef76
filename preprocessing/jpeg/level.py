"""A slide level in the scanner's own JPEG tiles, which are fetched without decoding or decoded at a scale.

OpenSlide reads the same tiles, but only decoded, at one size, and at a third of the speed. The offsets of the tiles
come from the tags of a TIFF (`preprocessing.jpeg.from_tiff`) or from a DICOM file (`preprocessing.jpeg.from_dicom`).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import simplejpeg

from preprocessing.jobs.system import read_at
from preprocessing.jpeg.codec import decode_into, empty_pixels
from preprocessing.jpeg.markers import FRAMES, START, find_markers, is_whole, scan_start, segments

SCALES = (1, 2, 4, 8)
"""Factors by which a tile can be reduced while it is decoded, which is faster than decoding it at full size."""
MAX_TILE_PIXELS = 1 << 24
"""Pixels of the largest tile that is decoded here, 4096 x 4096; tiles of scanners have 240 to 1024 pixels a side."""
MAX_TILE_BYTES = 1 << 27
"""Bytes of the longest tile that is read; more than the largest tile takes decoded."""
ADOBE = START + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Start of a JPEG with its APP14 segment up to the last byte, the colour space (Adobe Technical Note 5116)."""
ADOBE_COLOURS = {"RGB": b"\x00", "YCbCr": b"\x01"}
JFIF, APP14 = 0xE0, 0xEE
"""Segments that determine the colour space."""
MAX_HEADERS = 4
LOOKED_AT = 16
"""Maximum number of tiles tried until one is readable and gives the chroma subsampling of all."""
MAX_GAP = 1 << 14
"""Bytes between two tiles in the file up to which both are read at once; the bytes between them are discarded."""
WHITE = 255

Fetched = tuple[bytes, memoryview] | ValueError | None
"""Pieces of a tile's JPEG, or the reason why it is unusable; None if the scanner omitted the tile."""
Decode = Callable[[int, int, int, int], npt.NDArray[np.uint8]]
"""Function (row, column, scale, channels) -> pixels of a tile, like `JpegLevel.decode`."""


@dataclass(frozen=True)
class JpegLevel:
    """Slide level in JPEG tiles. Sizes are (width, height) and positions (x, y), in pixels of this level."""

    size: tuple[int, int]
    tile: tuple[int, int]
    head: bytes = field(repr=False)
    """Bytes to put before every tile: start of image, colour space, shared tables."""
    offsets: npt.NDArray[np.int64] = field(repr=False)
    """Offset of each tile in the file, bytes, (rows, columns)."""
    lengths: npt.NDArray[np.int64] = field(repr=False)
    """Length of each tile, bytes, (rows, columns); 0 if the scanner omitted it."""
    descriptor: int = field(repr=False)
    headers: list[bytes] = field(default_factory=list, repr=False)
    """Headers of tiles that were checked; nearly all tiles of a level have the same."""
    plain: bool = False
    """Repeat subsampled chroma instead of interpolating it, so that subsampling it again restores the original."""

    def fetch(self, rc: npt.NDArray[np.integer]) -> list[Fetched]:
        """Return the tiles at rows and columns `rc`, (n, 2), as whole JPEGs, checked in form but not decoded.

        Neighbours in the file are read and checked at once; otherwise threads would wait more for Python's lock than
        for the disk.
        """
        starts, lengths = self.offsets[rc[:, 0], rc[:, 1]], self.lengths[rc[:, 0], rc[:, 1]]
        order = np.argsort(starts, kind="stable")
        gaps = starts[order][1:] - (starts + lengths)[order][:-1]
        tiles: list[Fetched] = [None] * len(rc)
        for run in np.split(order, np.flatnonzero((gaps < 0) | (gaps > MAX_GAP)) + 1) if len(rc) else ():
            first = int(starts[run[0]])
            data = read_at(self.descriptor, int(starts[run[-1]] + lengths[run[-1]]) - first, first)
            markers, begins = find_markers(data), starts[run] - first
            for i, begin, end in zip(run.tolist(), begins.tolist(), (begins + lengths[run]).tolist(), strict=True):
                tiles[i] = self._whole(data, begin, end, markers)
        return tiles

    def _whole(self, data: bytes, start: int, end: int, markers: list[int]) -> Fetched:
        """Complete a tile, stored in the data from `start` to `end`, to a whole JPEG."""
        if start == end:
            return None
        if end > len(data):
            return ValueError("the tile's bytes are missing")
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
        """Decode one tile, (height / scale, width / scale, channels); pixels beyond the level's edge are white.

        Args:
            row: Row of the tile.
            column: Column of the tile.
            scale: Factor by which the tile is reduced, one of `SCALES`.
            channels: 3 for RGB, 1 for luma only.

        Raises:
            ValueError: The tile is cut short, damaged, not a JPEG of this level's tile size, or cannot be decoded.
        """
        width, height = self.tile[0] // scale, self.tile[1] // scale
        length = int(self.lengths[row, column])
        data = read_at(self.descriptor, length, int(self.offsets[row, column]))
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
        """Return whether the APP14 segment in `head` determines the colours of the level's first tile.

        It does not if the tile has an APP14 segment with other colours, since the later one applies. Nor does it if the
        tile has a JFIF header or subsampled colours, which means YCbCr, and `head` has other colours; nor if its
        colours are named R, G and B, and `head` has YCbCr.
        """
        head_says = self.head[len(ADOBE) : len(ADOBE) + 1]
        is_ycbcr = head_says == ADOBE_COLOURS["YCbCr"]
        for row, column in np.argwhere(self.lengths > 0)[:1].tolist():
            data = read_at(self.descriptor, int(self.lengths[row, column]), int(self.offsets[row, column]))
            for kind, begin, end in segments(data):
                if kind == JFIF and not is_ycbcr:
                    return False
                if kind in FRAMES:  # per colour its name, its sampling factors and its table
                    names, factors = data[begin + 6 : end : 3], data[begin + 7 : end : 3]
                    if (names == b"RGB") if is_ycbcr else len(set(factors)) > 1:
                        return False
                if kind == APP14 and data[begin:end].startswith(b"Adobe") and data[end - 1 : end] != head_says:
                    return False
        return True

    def subsampling(self) -> str:
        """Return the chroma subsampling of the first readable tile: 444, 422, 420 ...; 444 without a readable tile."""
        for place in np.argwhere(self.lengths > 0)[:LOOKED_AT]:
            (tile,) = self.fetch(place[None])
            if not isinstance(tile, tuple):  # damaged or missing
                continue
            with suppress(ValueError, TypeError):  # the tile is damaged, or its subsampling has no name
                return simplejpeg.decode_jpeg_header(b"".join(tile))[3]
        return "444"

    def can_scale(self, scale: int) -> bool:
        """Return whether tiles reduced by `scale` have whole pixels."""
        return scale in SCALES and self.tile[0] % scale == 0 and self.tile[1] % scale == 0

    def read(
        self,
        xy: tuple[int, int],
        size: tuple[int, int],
        scale: int = 1,
        decode: Decode | None = None,
        channels: int = 3,
    ) -> npt.NDArray[np.uint8]:
        """Read a rectangle, (h, w, channels), in pixels of the level reduced by `scale`; white outside of the level.

        Args:
            xy: Top-left corner.
            size: Width and height.
            scale: Factor by which tiles are reduced, one of `SCALES`.
            decode: `self.decode` or a caching version of it; the arrays that it returns are not modified.
            channels: 3 for RGB, 1 for luma only.

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
                left, top = column * width - x, row * height - y  # position of the tile in the region
                into = region[max(0, top) : top + height, max(0, left) : left + width]
                pixels = decode(row, column, scale, channels)[max(0, -top) :, max(0, -left) :]
                into[:] = pixels[: into.shape[0], : into.shape[1]]
        return region
