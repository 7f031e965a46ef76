"""Overview and mask of an open slide: the mask is detected, with focus judged on finer pixels, or given by the user."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.config import TissueConfig
from preprocessing.frames import part_px
from preprocessing.slides.slide import Sampling, Slide
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.tissue.classify import Image, Mask, classify, glass_colour
from preprocessing.tissue.focus import CELL_PX, FINE_UM, LUMA, blurred_cells, detail
from preprocessing.tissue.masks import find_mask, read_mask
from preprocessing.tissue.regions import without_specks

BLOCK_PX = 256
"""Approximate side of a block that is measured at once, fine pixels; whole tiles of the slide if it has JPEG tiles."""
ALL_BLOCKS = 256
"""Number of blocks with tissue up to which all are read.

Of more blocks the white fields of a chessboard are read first. A black field is read only if its white neighbours make
some of it appear blurred. A cell is judged by the cells around it, but the border of blurred areas would be inexact
without these black fields.
"""
COARSEST_UM = 3.0
"""Largest pixels on which focus is judged, micrometres; on coarser pixels a blur of 2 um is invisible."""


@dataclass(frozen=True)
class FocusGrid:
    """Grid of cells in which focus is judged; the cells at the far edges may extend beyond the slide."""

    sampling: Sampling
    """Source of their luma."""
    per_fine: int
    """Side of a fine pixel in decoded pixels."""
    side_l0: float
    """Side of a cell, level-0 pixels."""
    shape: tuple[int, int]
    """Rows and columns."""


def find_tissue(slide: Slide, config: TissueConfig, slide_id: str, apply: Callable = map) -> tuple[Image, Mask]:
    """Return the overview of a slide, (h, w, 3), and its mask, (h, w), with the classes of `schema.MASK_CLASSES`.

    Empty borders of the slide are glass, and are not searched.

    Args:
        slide: The open slide.
        config: Settings of the detection, or the folder of the user's masks.
        slide_id: Name of the user's mask without its suffix.
        apply: `map`, or the `map` of an executor whose threads share the work.

    Raises:
        SlideError: The file cannot be decoded, or its mask is missing or cannot be used.
    """
    overview = slide.overview(config.mask_um, apply)
    if config.masks is not None:
        own = find_mask(config.masks, slide_id)
        return overview, read_mask(own, slide.size_l0, overview.shape[:2], slide.bounds_l0, config.geojson_frame)
    part, mask = part_px(slide.bounds_l0, slide.size_l0, overview.shape[:2]), np.zeros(overview.shape[:2], np.uint8)
    scanned = np.ascontiguousarray(overview[part])
    mask[part] = classify(scanned, slide.size_l0[0] * slide.mpp_l0 / overview.shape[1], config)
    if config.reject_blur:
        mark_blurred(slide, overview, mask, config.min_area_um2, apply)
    return overview, mask


def mark_blurred(slide: Slide, overview: Image, mask: Mask, min_area_um2: float, apply: Callable = map) -> None:
    """Mark tissue that is out of focus in a mask; finer pixels are read only in areas with tissue.

    Args:
        slide: The open slide.
        overview: Overview of the slide, (h, w, 3).
        mask: Mask of the overview, (h, w); changed in place.
        min_area_um2: Smaller blurred pieces stay tissue, square micrometres.
        apply: `map`, or the `map` of an executor whose threads share the work.

    Raises:
        SlideError: The file cannot be decoded.
    """
    cells = _cells(slide)
    if cells.side_l0 * slide.mpp_l0 > CELL_PX * COARSEST_UM:
        return
    y, x = (
        np.minimum((np.arange(count) + 0.5) * cells.side_l0 * pixels / side, pixels - 1).astype(int)
        for count, pixels, side in zip(cells.shape, mask.shape, slide.size_l0[::-1], strict=True)
    )
    px_per_cell = max(1, round(cells.side_l0 * mask.shape[1] / slide.size_l0[0]))
    share = cv2.blur((mask == MASK_CLASSES["tissue"]).astype(np.uint8) * 255, (px_per_cell, px_per_cell))
    tissue = share.take(y, axis=0).take(x, axis=1) > 127
    scanned = overview[part_px(slide.bounds_l0, slide.size_l0, mask.shape)]
    glass = float((glass_colour(scanned) * LUMA).sum())
    measured = _measure(slide, cells, tissue, glass, apply)
    blurred = blurred_cells(measured, tissue).astype(np.uint8)
    blurred = without_specks(blurred, min_area_um2 / (cells.side_l0 * slide.mpp_l0) ** 2)
    if blurred.any():
        row, column = (
            ((np.arange(pixels) + 0.5) * side / pixels / cells.side_l0).astype(np.intp)
            for pixels, side in zip(mask.shape, slide.size_l0[::-1], strict=True)
        )
        marked = blurred.take(row, axis=0).take(column, axis=1) > 0
        mask[marked & (mask == MASK_CLASSES["tissue"])] = MASK_CLASSES["blurred"]


def _cells(slide: Slide) -> FocusGrid:
    sampling = replace(slide.sampling(FINE_UM / slide.mpp_l0), channels=1)
    per_fine = max(1, round(FINE_UM / (sampling.downsample * slide.mpp_l0)))
    side_l0 = CELL_PX * per_fine * sampling.downsample
    width, height = (int(np.ceil(side / side_l0)) for side in slide.size_l0)
    return FocusGrid(sampling, per_fine, side_l0, (height, width))


def _measure(
    slide: Slide, cells: FocusGrid, tissue: npt.NDArray[np.bool_], glass: float, apply: Callable
) -> npt.NDArray[np.float32]:
    """Measure `detail` of the cells, (3, rows, columns), in blocks with tissue, (rows, columns); elsewhere it is 0.

    If there are many blocks, some are skipped (`ALL_BLOCKS`).
    """
    measured = np.zeros((3, *cells.shape), np.float32)
    side, scale = _block_cells(slide, cells), CELL_PX * cells.per_fine

    def measure(block: tuple[int, int]) -> None:
        top, left = block
        here = np.s_[top : top + side, left : left + side]
        height, width = tissue[here].shape
        luma = slide.read_sampled(cells.sampling, (left * scale, top * scale), (width * scale, height * scale))[..., 0]
        if cells.per_fine > 1:
            luma = cv2.resize(luma, (width * CELL_PX, height * CELL_PX), interpolation=cv2.INTER_AREA)
        measured[:, *here] = detail(luma, glass)

    rows, columns = cells.shape
    blocks = [(top, left) for top in range(0, rows, side) for left in range(0, columns, side)]
    blocks = [(y, x) for y, x in blocks if tissue[y : y + side, x : x + side].any()]
    white = {(y, x) for y, x in blocks if (y + x) // side % 2 == 0 or len(blocks) <= ALL_BLOCKS}
    deque(apply(measure, sorted(white)), maxlen=0)  # `measured` is filled in place
    if len(white) < len(blocks):
        soft = blurred_cells(measured, tissue)
        black = [(y, x) for y, x in blocks if (y, x) not in white and soft[y : y + side, x : x + side].any()]
        deque(apply(measure, black), maxlen=0)
    return measured


def _block_cells(slide: Slide, cells: FocusGrid) -> int:
    """Return the number of cells along a block.

    A block is a whole number of the level's JPEG tiles if cells fit into them, so that each tile is decoded once.
    """
    jpeg, cell = slide.jpeg_levels.get(cells.sampling.level), CELL_PX * cells.per_fine
    tile = jpeg.tile[0] // cells.sampling.scale if jpeg else 0
    if tile and tile % cell == 0:
        return max(1, round(BLOCK_PX * cells.per_fine / tile)) * tile // cell
    return BLOCK_PX // CELL_PX
