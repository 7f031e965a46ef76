"""The form of a JPEG, told without decoding it: its header, and markers where none may be (ITU-T T.81, annex B). Pure.

Decoders read much damage without complaint, as gray or as noise. Its form shows bytes that were zeroed, cut off or
overwritten with anything that has markers, but not a bit turned.
"""

import re
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np

START, END = b"\xff\xd8", b"\xff\xd9"
SCAN = 0xDA
RESTARTS = (0xD0, 0xD7)
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
FEW_BYTES = 1 << 16
"""From here on NumPy, which lets other threads run meanwhile, is faster than the regular expression."""
FRAMES = (0xC0, 0xC1)
"""Kinds of frame with one scan that libjpeg decodes: baseline and extended. No scanner writes progressive ones."""


def segments(data: bytes, at: int = 0) -> Iterator[tuple[int, int, int]]:
    """Kind of each segment of the header of a JPEG that begins `at` in the data, and where its body begins and ends."""
    at += len(START)
    while data.startswith(START[:1], at) and at + 4 <= len(data):
        kind, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield kind, at + 4, end
        if kind == SCAN:
            return
        at = end


def scan_start(data: bytes, at: int, size: tuple[int, int]) -> int:
    """Where the scan begins of a colour JPEG of `size` (width, height) that begins `at` in the data.

    All its colours must be in that scan: a decoder then reads no other. An image of many scans, a few bytes each, could
    hold it for hours.

    Raises:
        ValueError: It is no such JPEG.
    """
    if not data.startswith(START, at):
        raise ValueError("the tile is no JPEG")
    frame, in_scan = None, 3
    for kind, start, end in segments(data, at):
        if kind == SCAN and start < len(data):
            in_scan = data[start]
        if kind in FRAMES and start + 6 <= len(data):
            height, width, components = struct.unpack_from(">HHB", data, start + 1)
            frame = (width, height), components
        at = end
    if frame is None:
        raise ValueError("the tile has no JPEG header")
    if frame != (size, 3):
        (width, height), components = frame
        raise ValueError(
            f"the tile is a JPEG of {width} x {height} pixels and {components} colours, not {size[0]} x {size[1]} and 3"
        )
    if in_scan != 3:
        raise ValueError("the tile is a JPEG of several scans")
    return at


def find_markers(data: bytes) -> list[int]:
    """Where markers stand that are no restarts; the zero that follows 0xFF in a scan, or fills, makes it none."""
    if len(data) < FEW_BYTES:
        return [marker.start() for marker in MARKER.finditer(data)]
    values = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(values[:-1] == 0xFF)
    kinds = values[1:][places]
    return places[(kinds != 0) & (kinds != 0xFF) & ((kinds < RESTARTS[0]) | (kinds > RESTARTS[1]))].tolist()


def is_whole(data: bytes, scan: int, end: int, markers: Sequence[int]) -> bool:
    """Whether the first marker of a baseline scan, which begins at `scan` and lies before `end`, ends the image.

    Args:
        data: What the scan lies in.
        scan: Where it begins.
        end: Where the bytes that belong to it end.
        markers: `find_markers` of the data.
    """
    first = bisect_left(markers, scan)
    return first < len(markers) and markers[first] + len(END) <= end and data.startswith(END, markers[first])
