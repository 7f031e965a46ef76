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


class OtherColoursError(ValueError):
    """Frames whose JPEG contradicts the colours in the header of their file."""


class JpegDicom:
    """Levels of a slide that consist of JPEG frames in DICOM files, by level number; other levels are omitted.

    Frames are read at their offsets, so threads may share an instance.

    Attributes:
        levels: The levels, by number.
        contradicts_colours: True if the DICOM header and the JPEG of a frame have different colour spaces.
    """

    def __init__(self, files: Iterable[Path], level_sizes: list[tuple[int, int]]) -> None:
        found, self.contradicts_colours = [], False
        with ExitStack() as opened:
            for file in files:
                descriptor = open_binary(file)
                opened.callback(os.close, descriptor)
                try:
                    found.append(_read_level(file, descriptor))
                except OtherColoursError:
                    self.contradicts_colours = True
                except Exception:  # pydicom raises any exception on a damaged file; OpenSlide reports the damage
                    continue
            of_size = Counter(level.size for level in found)
            self.levels = {
                level_sizes.index(level.size): level
                for level in found
                if level.size in level_sizes and of_size[level.size] == 1
            }
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def read_head(path: Path) -> tuple[Dataset, int]:
    """Return the elements of a DICOM file before its functional groups of each frame, and their end in the file."""
    with path.open("rb") as file:
        return read_partial(file, stop_when=lambda tag, vr, length: tag >= PER_FRAME), file.tell()


@disable_value_validation()  # its warnings are irrelevant here
def _read_level(path: Path, descriptor: int) -> JpegLevel:
    """Read the level that a file contains.

    Raises:
        OtherColoursError: The JPEG of the first frame has other colours than the header.
        ValueError: The file does not contain a whole level in JPEG tiles, row by row.
    """
    said, after = read_head(path)
    if not _is_jpeg(said):
        raise ValueError("no level in JPEG tiles")
    size, tile = (said.TotalPixelMatrixColumns, said.TotalPixelMatrixRows), (said.Columns, said.Rows)
    head, places = ADOBE + ADOBE_COLOURS[COLOURS[said.PhotometricInterpretation]], find_frames(descriptor, after)
    offsets, lengths = places.T
    if not JpegLevel(size, tile, head, offsets[None], lengths[None], descriptor).says_its_colours():
        raise OtherColoursError("the JPEG has other colours than the header")
    grid = (-(-size[1] // tile[1]), -(-size[0] // tile[0]))
    if not _is_whole(said) or not len(places) == said.NumberOfFrames == grid[0] * grid[1]:
        raise ValueError("the fragments are not the tiles of one picture")
    return JpegLevel(size, tile, head, offsets.reshape(grid), lengths.reshape(grid), descriptor)


def _is_jpeg(said: Dataset) -> bool:
    return (
        said.SOPClassUID == VLWholeSlideMicroscopyImageStorage
        and said.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        and said.ImageType[2] == "VOLUME"
        and (said.SamplesPerPixel, said.BitsAllocated) == (3, 8)
        and said.PhotometricInterpretation in COLOURS
        and 0 < said.Rows * said.Columns <= MAX_TILE_PIXELS
    )


def _is_whole(said: Dataset) -> bool:
    return (
        said.DimensionOrganizationType == "TILED_FULL"
        and "ConcatenationUID" not in said  # a concatenation is a part of a level
        and said.get("TotalPixelMatrixFocalPlanes", 1) == said.get("NumberOfOpticalPaths", 1) == 1
    )


def find_frames(descriptor: int, after: int) -> npt.NDArray[np.int64]:
    """Return offset and length in the file of each fragment of the pixel data, (n, 2), searched from `after` on.

    Raises:
        ValueError: There are no fragments, they do not follow one another up to the last, or a fragment has an
            impossible length.
    """
    begin = next((at for span in SEARCHED if (at := read_at(descriptor, span, after).find(PIXELS)) >= 0), None)
    if begin is None:
        raise ValueError("no pixel data in fragments")
    at = after + begin + len(PIXELS)
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
