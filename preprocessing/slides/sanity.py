"""Sanity checks of slides: sizes that cannot be, and slides and tiles that decode and yet show nothing.

A header costs nothing to forge, so sizes are checked before memory is taken. A part of a file that was lost in copying
reads as zeros, and zeros as black; a tile that is listed but missing reads as transparent, which is laid on white.
Neither is an error to the libraries that decode.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError
from preprocessing.store.schema import MAX_PIXELS

MAX_DECODED_BYTES = 1 << 30
"""Memory of a tile or strip, which is decoded whole. Tiles of scanners take 3 MB at most; what takes more than a
gigabyte is a picture kept in one piece, and several workers would hold one each."""
BYTES_PER_PIXEL = 4
"""OpenSlide decodes to RGBA."""
LEVEL_SLACK = 0.02
"""Levels may differ that much in shape: some are padded to whole tiles."""
MAX_BLACK = 0.99
"""Share of an overview that may be pure black. Light shines through glass: a slide in bright field is never black."""


def refuse_sizes(path: Path, level_sizes: list[tuple[int, int]], decoded_pixels: int) -> None:
    """Refuse a slide that cannot be as large as it says, or be read in the memory of a worker.

    Args:
        path: The slide, for the error.
        level_sizes: Size (width, height) of every level, the finest first.
        decoded_pixels: Pixels of its largest tile or strip.

    Raises:
        SlideError: It is too large, its pieces are, or its levels are not of one picture.
    """
    width, height = level_sizes[0]
    if width * height > MAX_PIXELS:
        raise SlideError(
            f"it claims {width} x {height} pixels, more than the {MAX_PIXELS:.2g} of a whole glass slide at 0.1 um",
            where=path,
            fix="the file is damaged or made up: copy it again from where it came, or leave it out",
        )
    if decoded_pixels * BYTES_PER_PIXEL > MAX_DECODED_BYTES:
        raise SlideError(
            f"a tile or strip of {decoded_pixels} pixels takes more than {MAX_DECODED_BYTES >> 30} GiB to decode",
            where=path,
            fix="convert it to a tiled pyramid (`vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg`)",
        )
    for number, (level_width, level_height) in enumerate(level_sizes):
        off = abs(level_width * height - level_height * width)  # 0 where the shapes are the same
        if off > width + height + LEVEL_SLACK * level_width * height:  # a pixel of rounding on either side
            raise SlideError(
                f"its levels are not of one picture: level 0 has {width} x {height} pixels, "
                f"level {number} {level_width} x {level_height}",
                where=path,
                fix="the file is damaged or of a kind that is not read right: convert it to a pyramidal TIFF",
            )


def black_share(image: npt.NDArray[np.uint8]) -> float:
    """Share of the pixels of an image (h, w, 3) that are pure black."""
    return cv2.countNonZero(cv2.inRange(image, (0, 0, 0), (0, 0, 0))) / (image.shape[0] * image.shape[1])


def is_blank(tile: npt.NDArray[np.uint8]) -> bool:
    """Whether a tile (h, w, 3) is pure black or pure white all over, as nothing on glass is."""
    return bool(tile.flat[0] in (0, 255) and tile.min() == tile.max())


def refuse_blank(path: Path, overview: npt.NDArray[np.uint8]) -> None:
    """Refuse a slide whose overview (h, w, 3) shows nothing.

    Raises:
        SlideError: It is black, or has no pixels at all.
    """
    if is_blank(overview) and overview.flat[0]:
        what = "the slide opens, but has no pixels: all of its overview is transparent or pure white"
    elif (share := black_share(overview)) > MAX_BLACK:
        what = f"the slide opens, but {share:.1%} of its overview is pure black"
    else:
        return
    raise SlideError(what, where=path, fix="the file has lost its pixels: copy it again from where it came")
