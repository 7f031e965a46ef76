"""Reading of regions from levels in tiles or strips, of which only those in the region are decoded."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

CACHE_BYTES = 1 << 26
"""Bytes of decoded tiles and strips that a level caches, at least one; neighbouring regions need them again."""
WHITE = 255


class Level(Protocol):
    """Level of a slide; sizes are (width, height), pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """Size of the level."""
        ...

    def read(self, left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.uint8]:
        """Read a rectangle within the level as RGB, (bottom - top, right - left, 3)."""
        ...


def read_region(
    levels: Sequence[Level], xy_l0: tuple[int, int], level: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Read `size` pixels of a level at the level-0 position `xy_l0` as RGB, (h, w, 3); white outside the slide."""
    (width, height), (width_l0, height_l0) = levels[level].size, levels[0].size
    x, y = round(xy_l0[0] * width / width_l0), round(xy_l0[1] * height / height_l0)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
    region = np.full((size[1], size[0], 3), WHITE, np.uint8)
    if left < right and top < bottom:
        region[top - y : bottom - y, left - x : right - x] = levels[level].read(left, top, right, bottom)
    return region


def read_pieces(
    decoded: Callable[[int, int], npt.NDArray[np.uint8]],
    piece: tuple[int, int],
    box: tuple[int, int, int, int],
) -> npt.NDArray[np.uint8]:
    """Read a rectangle of a level as RGB, (h, w, 3).

    Args:
        decoded: Function (row, column) -> RGB pixels of a piece, which may be cut off at the level's edge.
        piece: Width and height of a piece, pixels.
        box: Left, top, right and bottom of the rectangle, within the level.
    """
    (left, top, right, bottom), (width, height) = box, piece
    region = np.empty((bottom - top, right - left, 3), np.uint8)
    for row in range(top // height, -(-bottom // height)):
        for column in range(left // width, -(-right // width)):
            x, y = column * width - left, row * height - top  # position of the piece in the region
            into = region[max(0, y) : y + height, max(0, x) : x + width]
            pixels = decoded(row, column)[max(0, -y) :, max(0, -x) :]
            into[:] = pixels[: into.shape[0], : into.shape[1]]
    return region
