"""DICOM level in frames that imagecodecs decodes: JPEG 2000, HTJ2K, JPEG-LS and RLE, whole or sparse, in several files.

The form is that of whole-slide images (DICOM PS3.3, A.32.8). A level is a file, or several files that are parts of a
concatenation (C.7.6.16.2.2.4). Its frames are its tiles row by row, or have their positions in the header
(C.7.6.17.3).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import UID, VLWholeSlideMicroscopyImageStorage

from preprocessing.jobs.system import read_at
from preprocessing.jpeg.from_dicom import find_frames, read_head
from preprocessing.jpeg.level import MAX_TILE_PIXELS
from preprocessing.slides.dicom_frames import FRAMES, YCBCR, has_own_transform
from preprocessing.slides.tiled import CACHE_BYTES, WHITE, read_pieces

POSITIONS = re.compile(rb"\x48\x00(\x1e|\x1f)\x02SL\x04\x00(....)", re.DOTALL)
"""DICOM elements (0048,021E) and (0048,021F), column and row of a frame's top-left pixel, counted from 1.

They are found without reading the items of frames one by one, which would take much time and memory."""
MAX_HEAD = 1 << 28
"""Largest size of the items of frames, bytes; a thousand bytes for each of 260,000 frames."""


@dataclass(frozen=True)
class Part:
    """File of a level, with the elements of its header, and offset and length of its frames, (n, 2), bytes."""

    said: Dataset
    descriptor: int
    frames: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64] | None
    """Left and top of each frame, (n, 2), pixels; None if frames are in the order of tiles."""


def level_size(said: Dataset) -> tuple[int, int]:
    """Return the size of the level of a file, (width, height), pixels."""
    return int(said.TotalPixelMatrixColumns), int(said.TotalPixelMatrixRows)


def read_part(file: Path, descriptor: int) -> Part | None:
    """Return a file of a level; None if the file is a label, an overview or a thumbnail.

    Raises:
        ValueError: The file is not in frames that can be decoded here.
        Exception: Any error of pydicom for a damaged header.
    """
    said, after = read_head(file)
    if said.SOPClassUID != VLWholeSlideMicroscopyImageStorage:
        raise ValueError(f"this is a DICOM file of {said.SOPClassUID.name}, not a whole-slide image")
    if said.ImageType[2] != "VOLUME":
        return None
    _refuse_form(said)
    frames, positions = find_frames(descriptor, after), None
    if not 0 < len(frames) == said.NumberOfFrames:
        raise ValueError(f"{said.NumberOfFrames} frames are stored in {len(frames)} fragments")
    if said.PhotometricInterpretation == YCBCR:
        offset, length = frames[0].tolist()
        if has_own_transform(read_at(descriptor, length, offset)):
            raise ValueError("the colours are not known: its header has YBR_FULL, and its JPEG 2000 frames have RGB")
    if said.get("DimensionOrganizationType") != "TILED_FULL":
        positions = _positions(read_at(descriptor, min(MAX_HEAD, int(frames[0, 0]) - after), after))
        if len(positions) != len(frames):
            raise ValueError(f"{len(frames)} frames have {len(positions)} positions")
    return Part(said, descriptor, frames, positions)


def _refuse_form(said: Dataset) -> None:
    syntax, colours = said.file_meta.TransferSyntaxUID, said.get("PhotometricInterpretation")
    if syntax not in FRAMES:
        raise ValueError(f"frames in the transfer syntax {UID(syntax).name} are left to OpenSlide")
    if colours not in FRAMES[syntax].colours:
        raise ValueError(f"PhotometricInterpretation is {colours}, which {UID(syntax).name} cannot have")
    form = said.SamplesPerPixel, said.BitsAllocated, said.get("TotalPixelMatrixFocalPlanes", 1)
    if form != (3, 8, 1):
        raise ValueError("it has {} colours of {} bits in {} focal planes, not 3 of 8 in 1".format(*form))
    if not 0 < said.Rows * said.Columns <= MAX_TILE_PIXELS or min(level_size(said)) < 1:
        raise ValueError(f"its frames of {said.Columns} x {said.Rows} pixels have an impossible size")


def _positions(head: bytes) -> npt.NDArray[np.int64]:
    """Return left and top of each frame, (n, 2), in the items of frames."""
    found: dict[bytes, list[int]] = {b"\x1e": [], b"\x1f": []}
    for match in POSITIONS.finditer(head):
        found[match[1]].append(int.from_bytes(match[2], "little", signed=True) - 1)
    left, top = found.values()
    if len(left) != len(top):
        raise ValueError("positions of frames have no row or no column")
    return np.array([left, top], np.int64).T


class DicomLevel:
    """Level in the frames of one or several files; threads may share an instance. Frames that are not there are white.

    Attributes:
        size: (width, height), pixels.
        piece: (width, height) of its frames, pixels.

    Raises:
        ValueError: The parts are not one whole level.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        parts = sorted(parts, key=lambda part: part.said.get("InConcatenationNumber", 1))
        said = parts[0].said
        self.size, self.piece = level_size(said), (int(said.Columns), int(said.Rows))
        _refuse_parts([part.said for part in parts])
        self._columns = -(-self.size[0] // self.piece[0])
        tiles = self._columns * -(-self.size[1] // self.piece[1])
        places = np.concatenate([np.insert(part.frames, 0, part.descriptor, axis=1) for part in parts])
        keys = np.concatenate([self._keys(part) for part in parts])
        order = np.argsort(keys, kind="stable")
        self._keys_sorted, self._places = keys[order], places[order]
        if (np.diff(self._keys_sorted) == 0).any() or not ((keys >= 0) & (keys < tiles)).all():
            raise ValueError("several frames have the position of one tile, or a frame is outside of the level")
        if parts[0].positions is None and len(keys) != tiles:
            raise ValueError(f"a level of {tiles} tiles has {len(keys)} frames: a file is missing or was cut off")
        self._frame = FRAMES[said.file_meta.TransferSyntaxUID]
        self._convert = said.PhotometricInterpretation == YCBCR
        self._decoded = lru_cache(max(1, CACHE_BYTES // (self.piece[0] * self.piece[1] * 3)))(self._decode)

    def _keys(self, part: Part) -> npt.NDArray[np.int64]:
        """Return the number of the tile that each frame of a file is, (n,)."""
        if part.positions is None:
            return np.arange(len(part.frames)) + int(part.said.get("ConcatenationFrameOffsetNumber", 0))
        if (part.positions % self.piece).any():
            raise ValueError("frames are not on a lattice of tiles")
        column, row = (part.positions // self.piece).T
        return np.where((column >= 0) & (column < self._columns), row * self._columns + column, -1)

    def read(self, left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.uint8]:
        """Read a rectangle within the level as RGB, (bottom - top, right - left, 3)."""
        return read_pieces(self._decoded, self.piece, (left, top, right, bottom))

    def _decode(self, row: int, column: int) -> npt.NDArray[np.uint8]:
        pixels = np.full((self.piece[1], self.piece[0], 3), WHITE, np.uint8)
        key = row * self._columns + column
        at = int(np.searchsorted(self._keys_sorted, key))
        if at == len(self._keys_sorted) or self._keys_sorted[at] != key:
            return pixels
        descriptor, offset, length = self._places[at].tolist()
        data = read_at(descriptor, length, offset)
        if len(data) < length:
            raise ValueError("the frame's bytes are missing")
        self._frame.decode(data, pixels)
        if self._convert:
            return cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB).astype(np.uint8, copy=False)
        return pixels


def _refuse_parts(said: Sequence[Dataset]) -> None:
    """Refuse files that are not all parts of one level, in order."""
    shared = "ConcatenationUID", "Columns", "Rows", "PhotometricInterpretation", "DimensionOrganizationType"
    one = {(part.file_meta.TransferSyntaxUID, *(part.get(name) for name in shared)) for part in said}
    numbers = [int(part.get("InConcatenationNumber", 1)) for part in said]
    if len(one) > 1 or (len(said) > 1 and "ConcatenationUID" not in said[0]):
        raise ValueError(f"{len(said)} files of one size are not parts of one concatenation")
    total = int(said[0].get("InConcatenationTotalNumber", len(said)))
    if numbers != list(range(1, total + 1)):
        have = ", ".join(map(str, numbers[:10]))
        raise ValueError(f"the concatenation has {total} parts, and the folder contains only part {have} of it")
