"""Import and export of users' masks: `<slide_id>.geojson` (QuPath) or `<slide_id>.png`, one file per slide."""

import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.frames import Box, GeojsonFrame, geojson_origin_l0, part_px
from preprocessing.jobs.files import write_whole
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.store.store import PatchStore
from preprocessing.tissue.geojson import FIX_PLACE, read_geojson, write_geojson

Mask = npt.NDArray[np.uint8]

SUFFIXES = (".geojson", ".png")
"""Suffixes of mask files, in the order in which they are searched."""
ASPECT_TOLERANCE = 0.01
"""Relative difference in aspect ratio allowed between a PNG and its slide; one pixel is always allowed."""
MAX_EMPTY = 0.1
"""Largest share of a mask's tissue on empty borders; drawn outlines may extend a little beyond the scanned part."""
FIX_FRAME: dict[GeojsonFrame | None, str] = {
    "qupath": "is it in the frame of the whole slide, with its empty borders? then give --tissue.geojson-frame slide",
    "slide": "is it in QuPath's cropped frame? then give --tissue.geojson-frame qupath, the default",
    None: "is it in QuPath's cropped frame? a PNG covers the whole slide with its empty borders: give .geojson instead",
}
"""Question about a mask on empty borders, by the frame in which it was read; None for a PNG."""
MAX_PNG_BYTES = 1 << 28
"""Maximum size of a PNG, in the file and decoded, bytes; a mask of the largest slides at 8 um takes 2 ** 26."""
FIRST_CHUNK, CHUNK_FRAME = 8, 12
"""Offset of the first chunk of a PNG, and bytes of a chunk in addition to its data."""
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Number of channels by PNG colour type; a palette is decoded to RGB."""


def find_mask(folder: Path, slide_id: str) -> Path:
    """Return the path of a slide's mask in a folder of masks.

    Raises:
        SlideError: The folder contains no mask for the slide.
    """
    for suffix in SUFFIXES:
        if (path := folder / f"{slide_id}{suffix}").is_file():
            return path
    raise SlideError(
        f"the slide has no mask: neither {slide_id}.geojson nor {slide_id}.png",
        where=folder,
        fix="add the mask, leave the slide out, or omit --tissue.masks so that tissue is detected",
    )


def read_mask(
    path: Path,
    size_l0: tuple[int, int],
    shape: tuple[int, int],
    bounds_l0: Box | None = None,
    frame: GeojsonFrame = "qupath",
) -> Mask:
    """Read a mask, (h, w), with the classes of `schema.MASK_CLASSES` from a `.geojson` or `.png` file.

    Args:
        path: The file. A PNG has any size and covers the whole slide. Its values 0 to 3 are the classes of
            `MASK_CLASSES`; if it has other values, every value above 0 is tissue.
        size_l0: Width and height of the slide, level-0 pixels.
        shape: Height and width of the mask.
        bounds_l0: Scanned part of a slide with empty borders, which are glass.
        frame: Frame of the coordinates in a `.geojson` file.

    Raises:
        SlideError: The file cannot be read, has another aspect ratio than the slide, has no tissue, or has tissue on
            empty borders.
    """
    if path.suffix.lower() == ".geojson":
        fix = FIX_FRAME[frame] if bounds_l0 else FIX_PLACE
        mask = read_geojson(path, size_l0, shape, geojson_origin_l0(bounds_l0, frame), fix)
    else:
        fix, mask = FIX_FRAME[None], _read_png(path, size_l0, shape, bounds_l0)
    tissue, part = mask == MASK_CLASSES["tissue"], part_px(bounds_l0, size_l0, shape)
    empty = 1 - tissue[part].sum() / max(1, tissue.sum()) if tissue.any() else 0.0
    if bounds_l0 and empty > MAX_EMPTY:
        left, top, width, height = bounds_l0
        what = f"{empty:.0%} of the mask's tissue is on empty borders of the slide, outside of the scanned part"
        raise SlideError(f"{what}, {width} x {height} pixels at x={left}, y={top}", where=path, fix=fix)
    scanned = np.zeros_like(mask)
    scanned[part] = mask[part]
    return scanned


def _read_png(path: Path, size_l0: tuple[int, int], shape: tuple[int, int], bounds_l0: Box | None) -> Mask:
    found = _decode_png(path, size_l0, bounds_l0)
    if found.max(initial=0) > max(MASK_CLASSES.values()):
        found = found > 0
    mask = cv2.resize(found.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    if not (mask == MASK_CLASSES["tissue"]).any():
        raise SlideError(
            "the mask has no tissue", where=path, fix="paint the tissue, or leave the slide out of the cohort"
        )
    return mask.astype(np.uint8, copy=False)


def export_mask(store: PatchStore, path: Path, frame: GeojsonFrame = "qupath") -> None:
    """Write a store's mask to a `.geojson` or `.png` file, which `read_mask` can read; an existing file is replaced.

    A PNG has the overview's size and the values of `MASK_CLASSES`. GeoJSON is in level-0 pixels, for QuPath.

    Args:
        store: The store.
        path: File to write.
        frame: Frame of the coordinates in a `.geojson` file.

    Raises:
        ValueError: The file's name has another suffix.
    """
    if path.suffix.lower() == ".geojson":
        origin_l0 = geojson_origin_l0(store.bounds_l0, frame)
        write_geojson(path, store.overview_mask, store.size_l0, origin_l0)
    elif path.suffix.lower() == ".png":
        write_whole(path, cv2.imencode(".png", store.overview_mask)[1].tobytes())
    else:
        raise ValueError(f"{path.name} ends neither with .geojson nor with .png")


def _decode_png(path: Path, size_l0: tuple[int, int], bounds_l0: Box | None) -> npt.NDArray[np.uint16 | np.uint8]:
    """Decode a PNG to its largest colour channel, (h, w), 0 for transparent pixels; its size is checked before."""
    if path.stat().st_size > MAX_PNG_BYTES:
        raise SlideError("the mask is too large to be read", where=path, fix="save it as PNG, with fewer pixels")
    data = path.read_bytes()
    if not data.startswith(PNG_START) or len(data) < len(PNG_START) + 10:
        raise SlideError("the mask is not a PNG", where=path, fix="save it as PNG, or as .geojson")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, len(PNG_START))
    expected = width * size_l0[1] / size_l0[0]
    if abs(height - expected) > max(1.0, ASPECT_TOLERANCE * expected):
        raise SlideError(
            f"the mask has {width} x {height} pixels, the slide {size_l0[0]} x {size_l0[1]}: another aspect ratio",
            where=path,
            fix=FIX_FRAME[None] if bounds_l0 else "give a mask of the whole slide, of any size, not cropped or rotated",
        )
    if width * height * CHANNELS.get(colour, 4) * max(1, bits // 8) > MAX_PNG_BYTES:
        raise SlideError(
            f"the mask has {width} x {height} pixels, too many to be decoded",
            where=path,
            fix="save it with fewer pixels: pixels of 8 micrometres are fine enough",
        )
    _refuse_chunks(data, path)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # impossible sizes
        pixels = None
    if pixels is None:
        raise SlideError("the mask cannot be decoded", where=path, fix="the file is damaged: save it again")
    if pixels.ndim == 2:
        return pixels
    opaque = pixels[..., 3] > 0 if pixels.shape[2] == 4 else True
    return pixels[..., :3].max(axis=2) * opaque


def _refuse_chunks(data: bytes, path: Path) -> None:
    """Refuse a chunk longer than the file: OpenCV allocates and fills the length that it claims, up to 4 GB."""
    at, kind = FIRST_CHUNK, b""
    while at < len(data) and kind != b"IEND":
        kind = data[at + 4 : at + 8]
        at += CHUNK_FRAME + int.from_bytes(data[at : at + 4], "big")
        if at > len(data):
            fix = "the file is damaged: save it again"
            raise SlideError("the mask cannot be decoded: it ends within a chunk", where=path, fix=fix)
