"""The geometry of the LongViT paper: a whole slide of any shape and resolution, squeezed to a square.

The official code reads a whole level and resizes it with Pillow's bicubic filter (`convert_wsi_to_images.py`). This
module computes the same pixels tile by tile. The square, 32,768 pixels a side in the paper, is never in memory.
"""

from math import ceil, floor

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocessing.slides.slide import Sampling, Slide

REACH = 2
"""Radius of bicubic interpolation: pixels of the source, or of the result if the result is smaller."""


def squeezed_tile(
    slide: Slide, level: int, rc: tuple[int, int], grid_shape: tuple[int, int], tile_st: int
) -> npt.NDArray[np.uint8]:
    """Return a tile of the square, RGB (tile_st, tile_st, 3).

    Args:
        slide: Open slide.
        level: Level of the slide that is squeezed.
        rc: Row and column of the tile.
        grid_shape: Rows and columns of the square's tiles.
        tile_st: Side of a tile, pixels.

    Raises:
        SlideError: The slide cannot be decoded at the tile.
    """
    corners, box = [], []
    for size, index, tiles in zip(slide.level_sizes[level], reversed(rc), reversed(grid_shape), strict=True):
        start, end = index * size / tiles, (index + 1) * size / tiles
        margin = ceil(REACH * max(1.0, (end - start) / tile_st)) + 1
        first, last = max(0, floor(start) - margin), min(size, ceil(end) + margin)
        corners.append((first, last))
        box.append((start - first, min(end, size) - first))
    (left, right), (top, bottom) = corners
    sampling = Sampling(level, 1, slide.downsamples[level])
    region = Image.fromarray(slide.read_sampled(sampling, (left, top), (right - left, bottom - top)))
    (x0, x1), (y0, y1) = box
    return np.asarray(region.resize((tile_st, tile_st), Image.Resampling.BICUBIC, (x0, y0, x1, y1)))
