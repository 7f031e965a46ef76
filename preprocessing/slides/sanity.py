"""Sanity checks of slides: impossible sizes, and slides and tiles that decode without showing an image.

Headers are easily forged, so sizes are checked before memory is allocated. A part of a file that was lost in copying
reads as zeros, which decode to black. A tile that is listed but missing reads as transparent and becomes white. The
decoding libraries report neither as an error.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.store.schema import MAX_PIXELS

MAX_DECODED_BYTES = 1 << 30
"""Maximum memory of a decoded tile or strip.

Tiles of scanners take at most 3 MB. A tile or strip of more than a gigabyte is an image stored in one piece, and each
of several workers would hold one.
"""
BYTES_PER_PIXEL = 4
"""OpenSlide decodes to RGBA."""
LEVEL_SLACK = 0.02
"""Relative difference in aspect ratio that levels may have: some are padded to whole tiles."""
MAX_BLACK = 0.99
"""Maximum share of an overview that is pure black. A slide in bright field is never black, as light passes glass."""


def refuse_sizes(path: Path, level_sizes: list[tuple[int, int]], decoded_pixels: int) -> None:
    """Refuse a slide of an impossible size, or one that a worker cannot decode in its memory.

    Args:
        path: The slide, named in the error.
        level_sizes: Size (width, height) of every level, finest first.
        decoded_pixels: Pixels of the largest tile or strip.

    Raises:
        SlideError: The slide, or one of its tiles or strips, is too large, or its levels have different aspect ratios.
    """
    width, height = level_sizes[0]
    if width * height > MAX_PIXELS:
        raise SlideError(
            f"the slide claims {width} x {height} pixels, more than {MAX_PIXELS:.2g}, a whole glass slide at 0.1 um",
            where=path,
            fix="the file is damaged or forged: copy it again from its source, or leave it out",
        )
    if decoded_pixels * BYTES_PER_PIXEL > MAX_DECODED_BYTES:
        raise SlideError(
            f"a tile or strip of {decoded_pixels} pixels takes more than {MAX_DECODED_BYTES >> 30} GiB to decode",
            where=path,
            fix="convert it to a tiled pyramid (`vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg`)",
        )
    for number, (level_width, level_height) in enumerate(level_sizes):
        off = abs(level_width * height - level_height * width)  # 0 if the aspect ratios are equal
        if off > width + height + LEVEL_SLACK * level_width * height:  # each side may be rounded by a pixel
            raise SlideError(
                f"the slide's levels are not of one image: level 0 has {width} x {height} pixels, "
                f"level {number} {level_width} x {level_height}",
                where=path,
                fix="the file is damaged or its format is not supported: convert it to a pyramidal TIFF",
            )


def black_share(image: npt.NDArray[np.uint8]) -> float:
    """Return the share of an image's pixels, (h, w, 3), that are pure black, 0 to 1."""
    return cv2.countNonZero(cv2.inRange(image, (0, 0, 0), (0, 0, 0))) / (image.shape[0] * image.shape[1])


def is_blank(tile: npt.NDArray[np.uint8]) -> bool:
    """Return whether all pixels of a tile, (h, w, 3), are pure black or all are pure white, as never on real glass."""
    return bool(tile.flat[0] in (0, 255) and tile.min() == tile.max())


def refuse_blank(path: Path, overview: npt.NDArray[np.uint8]) -> None:
    """Refuse a slide whose overview, (h, w, 3), is blank.

    Raises:
        SlideError: The overview is almost entirely black, or entirely transparent or white.
    """
    if is_blank(overview) and overview.flat[0]:
        what = "the slide opens, but has no pixels: its whole overview is transparent or pure white"
    elif (share := black_share(overview)) > MAX_BLACK:
        what = f"the slide opens, but {share:.1%} of its overview is pure black"
    else:
        return
    raise SlideError(what, where=path, fix="the file has lost its pixels: copy it again from its source")
