"""Checks of a JPEG's form without decoding: its header, and markers in forbidden places (ITU-T T.81, annex B). Pure.

Decoders read many kinds of damage without an error, as gray or noise. The form reveals bytes that were zeroed, cut off
or overwritten by data with markers, but not a single flipped bit.
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
"""Bytes from which on NumPy, which releases Python's lock, is faster than the regular expression."""
FRAMES = (0xC0, 0xC1)
"""Markers of frames with one scan that libjpeg decodes: baseline and extended. No scanner writes progressive frames."""


def segments(data: bytes, at: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of the body of each segment in the header of the JPEG that begins at `at`."""
    at, last = at + len(START), len(data) - 4
    while at <= last and data[at] == START[0]:
        kind, end = data[at + 1], at + 2 + (data[at + 2] << 8 | data[at + 3])
        yield kind, at + 4, end
        if kind == SCAN:
            return
        at = end


def scan_start(data: bytes, at: int, size: tuple[int, int]) -> int:
    """Return the index of the scan of a colour JPEG of `size` (width, height) that begins at `at` in the data.

    All colours must be in that scan, so that a decoder reads no other scan. An image of many scans, a few bytes each,
    could occupy a decoder for hours.

    Raises:
        ValueError: The data is not such a JPEG.
    """
    if not data.startswith(START, at):
        raise ValueError("the tile is not a JPEG")
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
    """Return the indices of all markers other than restarts; 0xFF followed by 0 or 0xFF is not a marker."""
    if len(data) < FEW_BYTES:
        return [marker.start() for marker in MARKER.finditer(data)]
    values = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(values[:-1] == 0xFF)
    kinds = values[1:][places]
    return places[(kinds != 0) & (kinds != 0xFF) & ((kinds < RESTARTS[0]) | (kinds > RESTARTS[1]))].tolist()


def is_whole(data: bytes, scan: int, end: int, markers: Sequence[int]) -> bool:
    """Return whether a baseline scan is complete: its first marker is the end of the image and precedes `end`.

    Args:
        data: Bytes that contain the scan.
        scan: Index at which the scan begins.
        end: Index at which the scan's bytes end.
        markers: Result of `find_markers` for the data.
    """
    first = bisect_left(markers, scan)
    return first < len(markers) and markers[first] + len(END) <= end and data.startswith(END, markers[first])
