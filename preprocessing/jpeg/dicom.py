"""The JPEG frames of a DICOM slide's levels, found in its files: one level is one file, one tile is one frame.

A frame lies in one fragment of the pixel data (DICOM PS3.5, A.4). Tables of their places may be missing, as in the
slides of the Imaging Data Commons, so the fragments are walked from one to the next. They are the tiles row by row
where the file says TILED_FULL (PS3.3, C.7.6.17.3); what says otherwise is left to OpenSlide.
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

from preprocessing.jpeg.level import ADOBE, ADOBE_COLOURS, MAX_TILE_BYTES, MAX_TILE_PIXELS, JpegLevel

COLOURS = {"RGB": "RGB", "YBR_FULL": "YCbCr", "YBR_FULL_422": "YCbCr"}
"""What DICOM calls the colours of a JPEG."""
PER_FRAME = 0x5200_9230
"""Sequence of facts on every frame, which may be a hundred thousand: what lies before it says enough."""
PIXELS = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
"""Element (7FE0,0010) of unknown length, as pixel data in fragments has it."""
SEARCHED = (1 << 12, 1 << 22, 1 << 27)
"""Bytes in which it is looked for; what lies before it may have a few hundred for each frame."""
FRAGMENT, NO_MORE = 0xE000_FFFE, 0xE0DD_FFFE
ITEM = Struct("<II")
"""Tag, and length of what follows."""


class JpegDicom:
    """The levels of a slide that are JPEG frames of DICOM files, by their number; without those not understood.

    Frames are read with pread, so threads may share it.
    """

    def __init__(self, files: Iterable[Path], level_sizes: list[tuple[int, int]]) -> None:
        found = []
        with ExitStack() as opened:
            for file in files:
                descriptor = os.open(file, os.O_RDONLY)
                opened.callback(os.close, descriptor)
                try:
                    found.append(_read_level(file, descriptor))
                except Exception:  # pydicom raises anything on a damaged file; OpenSlide will say what is wrong
                    continue
            of_size = Counter(level.size for level in found)
            self.levels = {
                level_sizes.index(level.size): level
                for level in found
                if level.size in level_sizes and of_size[level.size] == 1 and level.says_its_colours()
            }
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def _read_level(path: Path, descriptor: int) -> JpegLevel:
    """The level that a file holds.

    Raises:
        ValueError: It holds no whole level in JPEG tiles, row by row.
    """
    with path.open("rb") as file, disable_value_validation():  # which warns of what does not matter here
        said = read_partial(file, stop_when=lambda tag, vr, length: tag >= PER_FRAME)
        after = file.tell()
        if not _is_level(said):
            raise ValueError("no level in JPEG tiles")
        size, tile = (said.TotalPixelMatrixColumns, said.TotalPixelMatrixRows), (said.Columns, said.Rows)
        n, colours = said.NumberOfFrames, COLOURS[said.PhotometricInterpretation]
    grid = (-(-size[1] // tile[1]), -(-size[0] // tile[0]))
    begin = next((at for span in SEARCHED if (at := os.pread(descriptor, span, after).find(PIXELS)) >= 0), None)
    if begin is None:
        raise ValueError("no pixel data in fragments")
    places = _fragments(descriptor, after + begin + len(PIXELS))
    if not len(places) == n == grid[0] * grid[1]:
        raise ValueError("its fragments are not its tiles")
    offsets, lengths = (column.reshape(grid) for column in places.T)
    return JpegLevel(size, tile, ADOBE + ADOBE_COLOURS[colours], offsets, lengths, descriptor)


def _is_level(said: Dataset) -> bool:
    return (
        said.SOPClassUID == VLWholeSlideMicroscopyImageStorage
        and said.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        and said.DimensionOrganizationType == "TILED_FULL"
        and said.ImageType[2] == "VOLUME"
        and "ConcatenationUID" not in said  # else it is a part of a level
        and said.get("TotalPixelMatrixFocalPlanes", 1) == said.get("NumberOfOpticalPaths", 1) == 1
        and (said.SamplesPerPixel, said.BitsAllocated) == (3, 8)
        and said.PhotometricInterpretation in COLOURS
        and 0 < said.Rows * said.Columns <= MAX_TILE_PIXELS
    )


def _fragments(descriptor: int, at: int) -> npt.NDArray[np.int64]:
    """Offset and length in the file of each fragment of the pixel data whose items begin `at`, (n, 2).

    Raises:
        ValueError: The items do not follow one another to the last.
    """
    places, tag = [], FRAGMENT
    while tag == FRAGMENT:
        tag, length = ITEM.unpack(os.pread(descriptor, ITEM.size, at))
        places.append((at + ITEM.size, length))
        at += ITEM.size + length
    if tag != NO_MORE:
        raise ValueError("what follows a fragment is none")
    places = np.array(places[1:-1], np.int64).reshape(-1, 2)  # the first item is the table of places, the last the end
    if places[:, 1].min(initial=1) < 1 or places[:, 1].max(initial=1) > MAX_TILE_BYTES:
        raise ValueError("a fragment is empty, or longer than a tile can be")
    return places
