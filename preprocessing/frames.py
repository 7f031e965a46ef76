"""The four coordinate frames and the maps between them. A coordinate without a suffix is a bug.

    _l0  pixel of level 0 of the slide         (x, y)        what OpenSlide's read_region takes
    _um  micrometres from the slide's corner   (x, y)        what is comparable across scanners
    _st  pixel of the store, at the store's mpp (x, y)       what a tile is measured in
    _rc  tile in the store's grid              (row, column) what positional embeddings take

All four have their origin at the slide's top-left corner. Axis order is part of the frame and is turned only here.
Sizes wear the suffix too: `tile_st` is the side of a tile in store pixels, `side_l0` the same side in level-0 pixels:
no whole number, because the store's resolution is seldom a multiple of the slide's, and its width and height where the
slide was squeezed to a square.
"""

import math

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Side = float | tuple[float, float]
"""Side of a tile; or its width and height."""


def side_l0_from_st(tile_st: int, mpp_st: float, mpp_l0: float) -> float:
    """Side of a tile in level-0 pixels, from its side in store pixels and both resolutions (micrometres per pixel)."""
    return tile_st * mpp_st / mpp_l0


def l0_from_rc(rc: Ints, side_l0: Side) -> npt.NDArray[np.int64]:
    """Top-left corners (n, 2) as x, y of the tiles `rc` (n, 2), rounded to whole level-0 pixels."""
    return np.rint(np.asarray(rc)[..., ::-1] * side_l0).astype(np.int64)


def rc_from_l0(xy_l0: Ints, side_l0: Side) -> npt.NDArray[np.int32]:
    """Grid row and column (n, 2) of tiles from their rounded corners; undoes `l0_from_rc` when a tile has 2+ pixels."""
    return np.rint((np.asarray(xy_l0) / side_l0)[..., ::-1]).astype(np.int32)


def st_from_rc(rc: Ints, tile_st: int) -> npt.NDArray[np.int64]:
    """Top-left corners (n, 2) as x, y of the tiles `rc` (n, 2), in store pixels; exact."""
    return np.asarray(rc)[..., ::-1].astype(np.int64) * tile_st


def um_from_l0(xy_l0: Ints | Floats, mpp_l0: float) -> npt.NDArray[np.float64]:
    """Micrometres from the slide's corner, from level-0 pixels."""
    return np.asarray(xy_l0, dtype=np.float64) * mpp_l0


def l0_from_um(xy_um: Floats, mpp_l0: float) -> npt.NDArray[np.float64]:
    """Level-0 pixels, not rounded, from micrometres."""
    return np.asarray(xy_um, dtype=np.float64) / mpp_l0


def st_from_l0(xy_l0: Ints | Floats, mpp_l0: float, mpp_st: float) -> npt.NDArray[np.float64]:
    """Store pixels, not rounded, from level-0 pixels."""
    return np.asarray(xy_l0, dtype=np.float64) * (mpp_l0 / mpp_st)


def l0_from_st(xy_st: Ints | Floats, mpp_l0: float, mpp_st: float) -> npt.NDArray[np.float64]:
    """Level-0 pixels, not rounded, from store pixels."""
    return np.asarray(xy_st, dtype=np.float64) * (mpp_st / mpp_l0)


def grid_shape(size_l0: tuple[int, int], side_l0: Side) -> tuple[int, int]:
    """Rows and columns of the tiles that cover a slide (width, height); the last ones may reach beyond it."""
    # A tile whose rounded corner is not a pixel of the slide would hold nothing of it.
    sides = side_l0 if isinstance(side_l0, tuple) else (side_l0, side_l0)
    columns, rows = (max(1, math.ceil((length - 0.5) / side)) for length, side in zip(size_l0, sides, strict=True))
    return rows, columns
