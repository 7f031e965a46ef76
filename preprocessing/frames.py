"""The coordinate frames and the maps between them. A coordinate without a suffix is a bug.

    _l0  pixel of level 0 of the slide         (x, y)        input of OpenSlide's read_region
    _um  micrometres from the slide's corner   (x, y)        comparable across scanners
    _st  pixel of the store, at the store's mpp (x, y)       unit of a tile's side
    _rc  tile in the store's grid              (row, column) input of positional embeddings
    _px  pixel of an image of the slide        (x, y)        a level, an overview, a picture for a reader

The origin of all frames is the slide's top-left corner. Axis order is part of the frame and is swapped only here.

Slides of some scanners (MRXS, SCN, BIF) have empty borders, and state the scanned part as bounds. All frames include
the borders. QuPath shows the scanned part only, so the coordinates in its GeoJSON begin at the corner of the bounds
(OpenslideImageServer.java; with `--no-crop`, at the corner of the slide).

Sizes have the suffix too: `tile_st` is the side of a tile in store pixels, `side_l0` the same side in level-0 pixels.
`side_l0` is seldom an integer, because the store's resolution is seldom a multiple of the slide's. It is a width and a
height if the slide was squeezed to a square.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Box = tuple[int, int, int, int]
"""Left, top, width and height of a part of the slide."""
GeojsonFrame = Literal["qupath", "slide"]
"""Corner at which the coordinates of GeoJSON begin: that of the scanned part, or that of the slide."""
Side = float | tuple[float, float] | Floats
"""Side of a tile or a pixel, or its width and height."""


def side_l0_from_st(tile_st: int, mpp_st: float, mpp_l0: float) -> float:
    """Return the side of a tile in level-0 pixels.

    Args:
        tile_st: Side of the tile, store pixels.
        mpp_st: Resolution of the store, micrometres per pixel.
        mpp_l0: Resolution of level 0, micrometres per pixel.
    """
    return tile_st * mpp_st / mpp_l0


def px_from_rc(rc: Ints, side_px: Side) -> npt.NDArray[np.int64]:
    """Return the top-left corners x, y (n, 2) of the tiles `rc` (n, 2) in an image, rounded to whole pixels.

    Args:
        rc: Row and column of each tile.
        side_px: Side of a tile in the image, or its width and height.
    """
    return np.rint(np.asarray(rc)[..., ::-1] * side_px).astype(np.int64)


def l0_from_rc(rc: Ints, side_l0: Side) -> npt.NDArray[np.int64]:
    """Return the top-left corners x, y (n, 2) of the tiles `rc` (n, 2), rounded to whole level-0 pixels."""
    return px_from_rc(rc, side_l0)


def st_from_rc(rc: npt.ArrayLike, tile_st: int) -> npt.NDArray[np.int64]:
    """Return the exact top-left corners x, y (n, 2) of the tiles `rc` (n, 2), in store pixels."""
    return np.asarray(rc)[..., ::-1].astype(np.int64) * tile_st


def nearest_rc(xy_l0: Ints, side_l0: Side, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Return the cell (n, 2) of a grid of `shape` (rows, columns) that is nearest to each corner x, y (n, 2).

    This is the inverse of `l0_from_rc` if the side of a tile is at least two pixels. Tiles that are not cells of the
    grid may share a cell.
    """
    rc = np.rint((np.asarray(xy_l0) / side_l0)[..., ::-1])
    return rc.clip(0, np.array(shape) - 1).astype(np.int32)


def um_from_l0(xy_l0: npt.ArrayLike, mpp_l0: float) -> npt.NDArray[np.float64]:
    """Return micrometres from the slide's corner, from level-0 pixels."""
    return np.asarray(xy_l0, dtype=np.float64) * mpp_l0


def px_from_l0(xy_l0: npt.ArrayLike, px_l0: Side) -> npt.NDArray[np.float64]:
    """Return positions x, y in an image of the slide, not rounded, from level-0 pixels.

    Args:
        xy_l0: Positions, or widths and heights (n, 2).
        px_l0: Side of the image's pixels, or their width and height, level-0 pixels.
    """
    return np.asarray(xy_l0, dtype=np.float64) / px_l0


def l0_from_px(xy_px: Ints | Floats, px_l0: Side) -> npt.NDArray[np.float64]:
    """Return level-0 pixels, not rounded, from pixels of an image; the inverse of `px_from_l0`."""
    return np.asarray(xy_px, dtype=np.float64) * px_l0


def st_from_l0(xy_l0: npt.ArrayLike, side_l0: Side, tile_st: int) -> npt.NDArray[np.float64]:
    """Return store pixels, not rounded, from level-0 pixels.

    Args:
        xy_l0: Positions (n, 2), level-0 pixels.
        side_l0: Side of a tile, or its width and height, level-0 pixels.
        tile_st: Side of a tile, store pixels.
    """
    return px_from_l0(xy_l0, np.asarray(side_l0) / tile_st)


def grid_shape(size_l0: tuple[int, int], side_l0: Side) -> tuple[int, int]:
    """Return the rows and columns of the grid that covers a slide of size (width, height).

    The last row and the last column may extend beyond the slide.
    """
    # A tile whose rounded corner is not a pixel of the slide would contain none of its pixels.
    sides = side_l0 if isinstance(side_l0, tuple) else (side_l0, side_l0)
    columns, rows = (max(1, math.ceil((length - 0.5) / side)) for length, side in zip(size_l0, sides, strict=True))
    return rows, columns


def geojson_origin_l0(bounds_l0: Box | None, frame: GeojsonFrame) -> tuple[int, int]:
    """Return the level-0 pixel x, y at which the coordinates of GeoJSON begin; (0, 0) for a slide without bounds."""
    return bounds_l0[:2] if bounds_l0 and frame == "qupath" else (0, 0)


def part_px(part_l0: Box | None, size_l0: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of an image of the whole slide that touch a part of the slide.

    Args:
        part_l0: Part of the slide, level-0 pixels; None for the whole slide.
        size_l0: Width and height of the slide, level-0 pixels.
        shape: Height and width of the image.
    """
    left, top, width, height = part_l0 or (0, 0, *size_l0)
    lines: list[slice] = []
    for start, length, pixels, side in zip((top, left), (height, width), shape, size_l0[::-1], strict=True):
        lines.append(slice(start * pixels // side, -(-(start + length) * pixels // side)))
    return lines[0], lines[1]
