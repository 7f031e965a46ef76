"""JPEG tiles of the levels of a TIFF, located by its tags.

A TIFF stores the tables shared by its tiles once, and the colour space, RGB or YCbCr, in a tag. A separate JPEG needs
both, so they are inserted (TIFF Technical Note 2; ITU-T T.81, annex B).
"""

import os
from pathlib import Path

import numpy as np
import tifffile
from tifffile import PHOTOMETRIC

from preprocessing.jobs.system import open_binary
from preprocessing.jpeg.level import ADOBE, ADOBE_COLOURS, MAX_TILE_BYTES, MAX_TILE_PIXELS, JpegLevel
from preprocessing.jpeg.markers import END, START

COLOURS: dict[int, str] = {PHOTOMETRIC.RGB: "RGB", PHOTOMETRIC.YCBCR: "YCbCr"}


class JpegTiff:
    """Levels of a slide that consist of JPEG tiles in a TIFF, by level number; empty for unsupported files.

    Tiles are read at their offsets, so threads may share an instance.
    """

    def __init__(self, path: Path, level_sizes: list[tuple[int, int]]) -> None:
        self._descriptor = open_binary(path)
        try:
            self.levels = _read_levels(path, level_sizes, self._descriptor)
        except Exception:  # tifffile raises any exception on a damaged file; the slide's backend reports it
            self.levels = {}

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _read_levels(path: Path, level_sizes: list[tuple[int, int]], descriptor: int) -> dict[int, JpegLevel]:
    levels: dict[int, JpegLevel] = {}
    with tifffile.TiffFile(path) as file:
        for page in (level.keyframe for series in file.series for level in series.levels):
            size = (page.imagewidth, page.imagelength)
            if size in level_sizes and _is_jpeg(page):
                levels.setdefault(level_sizes.index(size), _level(page, descriptor))
    return {number: level for number, level in levels.items() if level.says_its_colours()}


def _is_jpeg(page: tifffile.TiffPage) -> bool:
    return (
        page.is_tiled
        and page.compression == tifffile.COMPRESSION.JPEG
        and page.photometric in COLOURS
        and (page.samplesperpixel, page.bitspersample, page.planarconfig) == (3, 8, tifffile.PLANARCONFIG.CONTIG)
        and page.tilewidth * page.tilelength <= MAX_TILE_PIXELS
    )


def _level(page: tifffile.TiffPage, descriptor: int) -> JpegLevel:
    size, tile = (page.imagewidth, page.imagelength), (page.tilewidth, page.tilelength)
    grid = (-(-size[1] // tile[1]), -(-size[0] // tile[0]))
    tables = page.jpegtables or START + END
    head = ADOBE + ADOBE_COLOURS[COLOURS[page.photometric]] + tables[len(START) : -len(END)]
    offsets, lengths = (np.array(values, np.int64).reshape(grid) for values in (page.dataoffsets, page.databytecounts))
    end = os.fstat(descriptor).st_size
    lost = (offsets < 0) | (offsets > end) | (lengths < 0) | (lengths > np.minimum(end - offsets, MAX_TILE_BYTES))
    offsets[lost], lengths[lost] = end, 1  # at the end of the file, so that reading fails
    return JpegLevel(size, tile, head, offsets, lengths, descriptor)
