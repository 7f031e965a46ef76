"""Lossless re-tiling of a level's JPEG tiles to another grid: the coefficients stay as the scanner wrote them.

It requires that the sides of the slide's tiles and of the new tiles are multiples of the JPEG's units (8 or 16 pixels).
Then every unit of a new tile is a unit of the slide: Aperio's tiles of 240 pixels give tiles of 256. `jpegtran -crop`
and `-drop` do the same for one image. Here all tiles of a region are made at once, in about a quarter of the time of
decoding and encoding.
"""

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from preprocessing.jpeg.codec import Pieces
from preprocessing.jpeg.huffman import Scan, read_scan
from preprocessing.jpeg.level import Fetched, JpegLevel
from preprocessing.jpeg.markers import END, FRAMES, START, segments

HEADER_BYTES, MOST_BYTES = 1 << 16, 4
"""Maximum bytes of a tile: of its header, and per pixel. JPEGs are shorter; longer tiles would exhaust memory."""
SAMPLES = 16
"""Number of tiles, spread over the level, whose headers are compared."""


@dataclass(frozen=True)
class RetiledLevel:
    """Lossless re-tiling of one level; threads may share an instance."""

    level: JpegLevel
    side: int
    """Side of the new tiles, pixels."""
    header: bytes = field(repr=False)
    """Header of the slide's tiles before their scan, without the start of image."""
    scan: Scan = field(repr=False)

    @classmethod
    def of(cls, level: JpegLevel, side: int) -> Self | None:
        """Return the re-tiling of a level to tiles of `side` pixels; None if blocks do not fit or headers differ."""
        present = np.argwhere(level.lengths > 0)
        level.fetch(present[:: -(-len(present) // SAMPLES) or 1])
        most = HEADER_BYTES + MOST_BYTES * level.tile[0] * level.tile[1]
        if len(set(level.headers)) != 1 or level.lengths.max() > most:
            return None
        header = level.headers[0][len(START) :]
        try:
            scan = read_scan(level.head + header)
        except ValueError:
            return None
        fits = not any(
            length % unit for unit, tile in zip(scan.mcu, level.tile, strict=True) for length in (tile, side)
        )
        return cls(level, side, header, scan) if fits else None

    def tiles(self, rc: npt.NDArray[np.integer]) -> list[Pieces | None]:
        """Return the new tiles at rows and columns `rc`, (n, 2), near each other and within the level.

        A new tile is None if it needs a tile of the slide that is missing, damaged or coded differently.
        """
        from preprocessing.jpeg.entropy import (  # here, since Numba loads slowly
            COLOURS,
            SPARE,
            ScanIndex,
            join,
            walk,
        )

        if not len(rc):
            return []
        rc = rc.astype(np.int64)
        tile, unit = np.array(self.level.tile[::-1]), np.array(self.scan.mcu[::-1])
        first, last = rc * self.side // tile, ((rc + 1) * self.side - 1) // tile
        corner = first.min(axis=0)
        touched = np.zeros(last.max(axis=0) - corner + 1, bool)
        for (top, left), (bottom, right) in zip((first - corner).tolist(), (last - corner).tolist(), strict=True):
            touched[top : bottom + 1, left : right + 1] = True
        places = np.argwhere(touched)
        scans = [self._scan_of(fetched) for fetched in self.level.fetch(places + corner)]
        lengths = np.array([len(scan) for scan in scans])
        ends, source = np.cumsum(lengths), np.frombuffer(b"".join(scans), np.uint8)
        k, n = len(scans), int((tile // unit).prod())
        walked = ScanIndex(
            words=np.empty(len(source) // 4 + k * (SPARE + 2), np.uint32),
            units=np.empty((k, n + 1), np.int64),
            dc_places=np.empty((k, n, COLOURS, 2), np.int64),
            dc_values=np.empty((k, n, COLOURS, 2), np.int32),
        )
        del scans  # frees the memory; `source` contains the same bytes
        good = walk(source, ends - lengths, ends - len(END), self.scan, walked)
        numbers = np.full(touched.shape, -1)
        numbers[touched] = np.where(good, np.arange(k), -1)
        corners, side = (rc * self.side - corner * tile) // unit, np.array([self.side, self.side]) // unit
        data, begins = join(corners, side, tile // unit, numbers, walked, self.scan)
        pieces, pairs = memoryview(data), zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True)
        return [(self._head, pieces[begin:end], END) if begin < end else None for begin, end in pairs]

    @cached_property
    def _head(self) -> bytes:
        """Bytes of the new tiles before their scan: the header of the slide's tiles with the new size."""
        head = self.level.head + self.header
        [(_, frame, _)] = (segment for segment in segments(head) if segment[0] in FRAMES)
        return head[: frame + 1] + struct.pack(">HH", self.side, self.side) + head[frame + 5 :]

    def _scan_of(self, fetched: Fetched) -> bytes | memoryview:
        """Return the scan of a tile with its end marker, or only the marker if the tile is missing or unusable."""
        if fetched is None or isinstance(fetched, ValueError) or fetched[1][: len(self.header)] != self.header:
            return END
        scan = fetched[1][len(self.header) :]
        return scan if scan[-len(END) :] == END else bytes(scan).rpartition(END)[0] + END
