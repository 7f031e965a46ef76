"""A level's JPEG tiles cut anew on another grid, without loss: the coefficients stay as the scanner wrote them.

Where the sides of the slide's tiles and of the wanted ones are whole numbers of the JPEG's units (8 or 16 pixels),
every unit of a new tile is one of the slide: Aperio's tiles of 240 pixels give tiles of 256. This is what `jpegtran
-crop` and `-drop` do for an image, for all tiles of a region at once, in about a quarter of decoding and encoding.
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
"""Of a tile's header, and for each of its pixels: longer ones are no JPEGs, but let a region take any memory."""
SAMPLES = 16
"""Tiles of a level that are looked at, all over it, to see whether one header serves for all."""


@dataclass(frozen=True)
class Recut:
    """Cuts a level's tiles anew; threads may share it."""

    level: JpegLevel
    side: int
    """Side of the new tiles, pixels."""
    header: bytes = field(repr=False)
    """What the slide's tiles have before their scan, less the start of image."""
    scan: Scan = field(repr=False)

    @classmethod
    def of(cls, level: JpegLevel, side: int) -> Self | None:
        """Tiles of `side` pixels from those of a level; None where its blocks do not fit, or its headers differ."""
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
        """The new tiles of those rows and columns (n, 2), near each other and within the level.

        None stands for one that needs a tile of the slide that is missing, damaged or coded unlike the others.
        """
        from preprocessing.jpeg.entropy import (  # here, since Numba takes its time to load
            COLOURS,
            SPARE,
            Walked,
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
        walked = Walked(
            words=np.empty(len(source) // 4 + k * (SPARE + 2), np.uint32),
            units=np.empty((k, n + 1), np.int64),
            dc_places=np.empty((k, n, COLOURS, 2), np.int64),
            dc_values=np.empty((k, n, COLOURS, 2), np.int32),
        )
        del scans  # what was read, which `source` has as well
        good = walk(source, ends - lengths, ends - len(END), self.scan, walked)
        numbers = np.full(touched.shape, -1)
        numbers[touched] = np.where(good, np.arange(k), -1)
        corners, side = (rc * self.side - corner * tile) // unit, np.array([self.side, self.side]) // unit
        data, begins = join(corners, side, tile // unit, numbers, walked, self.scan)
        pieces, pairs = memoryview(data), zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True)
        return [(self._head, pieces[begin:end], END) if begin < end else None for begin, end in pairs]

    @cached_property
    def _head(self) -> bytes:
        """What the new tiles have before their scan: that of the slide's, but for the size."""
        head = self.level.head + self.header
        [(_, frame, _)] = (segment for segment in segments(head) if segment[0] in FRAMES)
        return head[: frame + 1] + struct.pack(">HH", self.side, self.side) + head[frame + 5 :]

    def _scan_of(self, fetched: Fetched) -> bytes | memoryview:
        """The scan of a tile up to the marker that ends it; nothing where there is none like the others."""
        if fetched is None or isinstance(fetched, ValueError) or fetched[1][: len(self.header)] != self.header:
            return END
        scan = fetched[1][len(self.header) :]
        return scan if scan[-len(END) :] == END else bytes(scan).rpartition(END)[0] + END
