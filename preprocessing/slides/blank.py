"""Slides and tiles that open and decode, and yet show nothing.

A part of a file that was lost in copying reads as zeros, and zeros as black; a tile that is listed but not there reads
as transparent, which is laid on white. Neither is an error to the libraries that decode.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError

MAX_BLACK = 0.99
"""Share of an overview that may be pure black. Light shines through glass: a slide in bright field is never black."""


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
