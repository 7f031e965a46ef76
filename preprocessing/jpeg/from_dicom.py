"""JPEG tiles of the levels of a DICOM slide, located in its files: each level is one file, each tile is one frame.

A frame is stored in one fragment of the pixel data (DICOM PS3.5, A.4). The table of fragment offsets may be missing, as
in slides of the Imaging Data Commons, so the fragments are walked from the first to the last. In files with the
organisation TILED_FULL they are the tiles, row by row (PS3.3, C.7.6.17.3). Other files are read by OpenSlide.
"""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from struct import Struct

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.filereader import read_partial
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from preprocessing.jobs.system import open_binary, read_at
from preprocessing.jpeg.level import ADOBE, ADOBE_COLOURS, MAX_TILE_BYTES, MAX_TILE_PIXELS, JpegLevel

COLOURS = {"RGB": "RGB", "YBR_FULL": "YCbCr", "YBR_FULL_422": "YCbCr"}
"""Colour space of a JPEG by its DICOM photometric interpretation."""
PER_FRAME = 0x5200_9230
"""Tag of the Per-Frame Functional Groups Sequence. It has an item for each of up to 100,000 frames, and is not read."""
PIXELS = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
"""Pixel data element (7FE0,0010) of undefined length, which marks pixel data in fragments."""
SEARCHED = (1 << 12, 1 << 22, 1 << 27)
"""Numbers of bytes in which `PIXELS` is searched; a few hundred bytes per frame may precede it."""
FRAGMENT, NO_MORE = 0xE000_FFFE, 0xE0DD_FFFE
ITEM = Struct("<II")
"""Tag of an item and length of its value."""


class JpegDicom:
    """Levels of a slide that consist of JPEG frames in DICOM files, by level number; other levels are omitted.

    Frames are read at their offsets, so threads may share an instance.

    Attributes:
        levels: The levels, by number.
        contradicts_colours: True if the DICOM header and the JPEG of a frame have different colour spaces.
    """

    def __init__(self, files: Iterable[Path], level_sizes: list[tuple[int, int]]) -> None:
        found = []
        with ExitStack() as opened:
            for file in files:
                descriptor = open_binary(file)
                opened.callback(os.close, descriptor)
                try:
                    found.append(_read_level(file, descriptor))
                except Exception:  # pydicom raises any exception on a damaged file; OpenSlide reports the damage
                    continue
            of_size = Counter(level.size for level in found)
            self.levels = {
                level_sizes.index(level.size): level
                for level in found
                if level.size in level_sizes and of_size[level.size] == 1 and level.says_its_colours()
            }
            self.contradicts_colours = any(not level.says_its_colours() for level in found)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def _read_level(path: Path, descriptor: int) -> JpegLevel:
    """Read the level that a file contains.

    Raises:
        ValueError: The file does not contain a whole level in JPEG tiles, row by row.
    """
    with path.open("rb") as file, disable_value_validation():  # its warnings are irrelevant here
        said = read_partial(file, stop_when=lambda tag, vr, length: tag >= PER_FRAME)
        after = file.tell()
        if not _is_level(said):
            raise ValueError("no level in JPEG tiles")
        size, tile = (said.TotalPixelMatrixColumns, said.TotalPixelMatrixRows), (said.Columns, said.Rows)
        n, colours = said.NumberOfFrames, COLOURS[said.PhotometricInterpretation]
    grid = (-(-size[1] // tile[1]), -(-size[0] // tile[0]))
    begin = next((at for span in SEARCHED if (at := read_at(descriptor, span, after).find(PIXELS)) >= 0), None)
    if begin is None:
        raise ValueError("no pixel data in fragments")
    places = _fragments(descriptor, after + begin + len(PIXELS))
    if not len(places) == n == grid[0] * grid[1]:
        raise ValueError("the number of fragments is not the number of tiles")
    offsets, lengths = (column.reshape(grid) for column in places.T)
    return JpegLevel(size, tile, ADOBE + ADOBE_COLOURS[colours], offsets, lengths, descriptor)


def _is_level(said: Dataset) -> bool:
    return (
        said.SOPClassUID == VLWholeSlideMicroscopyImageStorage
        and said.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        and said.DimensionOrganizationType == "TILED_FULL"
        and said.ImageType[2] == "VOLUME"
        and "ConcatenationUID" not in said  # a concatenation is a part of a level
        and said.get("TotalPixelMatrixFocalPlanes", 1) == said.get("NumberOfOpticalPaths", 1) == 1
        and (said.SamplesPerPixel, said.BitsAllocated) == (3, 8)
        and said.PhotometricInterpretation in COLOURS
        and 0 < said.Rows * said.Columns <= MAX_TILE_PIXELS
    )


def _fragments(descriptor: int, at: int) -> npt.NDArray[np.int64]:
    """Return offset and length in the file of each fragment of the pixel data, (n, 2), whose items begin at `at`.

    Raises:
        ValueError: The items do not follow one another up to the last, or a fragment has an impossible length.
    """
    places, tag = [], FRAGMENT
    while tag == FRAGMENT:
        tag, length = ITEM.unpack(read_at(descriptor, ITEM.size, at))
        places.append((at + ITEM.size, length))
        at += ITEM.size + length
    if tag != NO_MORE:
        raise ValueError("a fragment is followed by neither a fragment nor the end of the pixel data")
    places = np.array(places[1:-1], np.int64).reshape(-1, 2)  # without the offset table (first) and the end (last)
    if places[:, 1].min(initial=1) < 1 or places[:, 1].max(initial=1) > MAX_TILE_BYTES:
        raise ValueError("a fragment is empty, or longer than a tile can be")
    return places
