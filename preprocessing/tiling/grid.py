"""Choice of the tiles that a slide's store contains, from slide size, tile side and tissue mask (pure functions)."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.frames import Box, Side, grid_shape, l0_from_rc
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.tissue.pieces import Labels, piece_of_tiles


@dataclass(frozen=True)
class TileGrid:
    """Chosen tiles, in raster order, and the grid that they are chosen from."""

    rc: npt.NDArray[np.int32]
    """Row and column (n, 2)."""
    xy_l0: npt.NDArray[np.int64]
    """Top-left corner x, y (n, 2), level-0 pixels."""
    tissue: npt.NDArray[np.float32]
    """Share of each tile that is tissue (n,)."""
    shape: tuple[int, int]
    """Rows and columns of the whole grid."""
    side_l0: tuple[float, float]
    """Width and height of a tile, level-0 pixels."""
    numbered: npt.NDArray[np.int32] | None = None
    """Piece of each tile (n,) by the mask, -1 for none; None if pieces are not looked for on the mask."""

    @property
    def piece(self) -> npt.NDArray[np.int32]:
        """Piece of tissue that each tile is a part of (n,); -1 for tiles of glass.

        Unless pieces are `numbered` by the mask, tiles with tissue that share a side or a corner are one piece, and
        pieces are numbered in the order of the tiles. So pieces closer than a tile are merged.
        """
        if self.numbered is not None:
            return self.numbered
        there = self.tissue > 0
        rc, occupied = tuple(self.rc[there].T), np.zeros(self.shape, np.uint8)
        occupied[rc] = 1
        _, first, label = np.unique(
            cv2.connectedComponents(occupied, connectivity=8)[1][rc], return_index=True, return_inverse=True
        )
        piece = np.full(len(self.rc), -1, np.int32)
        piece[there] = np.argsort(np.argsort(first))[label]
        return piece

    def with_pieces(self, labels: Labels | None, size_l0: tuple[int, int]) -> "TileGrid":
        """Return the grid with tiles numbered by the pieces of the mask, (h, w); None leaves it as it is."""
        if labels is None:
            return self
        side_px = np.array(self.side_l0) * labels.shape[::-1] / size_l0
        return replace(self, numbered=piece_of_tiles(labels, self.rc, side_px, self.shape))

    def without(self, dropped: list[int]) -> "TileGrid":
        """Return the grid without the chosen tiles at the indices `dropped`."""
        rest = np.delete(np.arange(len(self.rc)), dropped)
        numbered = None if self.numbered is None else self.numbered[rest]
        return replace(self, rc=self.rc[rest], xy_l0=self.xy_l0[rest], tissue=self.tissue[rest], numbered=numbered)


def tissue_share(
    mask: npt.NDArray[np.uint8], size_l0: tuple[int, int], side_l0: Side, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Return the share of each tile's area that is tissue (rows, columns), 0 to 1.

    A mask pixel counts by the exact area that it shares with a tile. The area outside the slide counts as glass.

    Args:
        mask: Classes (h, w) of the whole slide; see `preprocessing.store.schema.MASK_CLASSES`.
        size_l0: Width and height of the slide, level-0 pixels.
        side_l0: Side of a tile, or its width and height, level-0 pixels.
        shape: Rows and columns of the grid.
    """
    # The mask's integral is linear between the edges of its pixels, so it can be interpolated at the edges of tiles.
    total = cv2.integral((mask == MASK_CLASSES["tissue"]).astype(np.uint8))
    for axis, (tiles, side) in enumerate(zip(shape, np.broadcast_to(side_l0, 2)[::-1].tolist(), strict=True)):
        pixels = mask.shape[axis]
        edges = np.minimum(np.arange(tiles + 1) * side / size_l0[1 - axis], 1) * pixels
        before = np.minimum(edges.astype(np.intp), pixels - 1)
        weight = np.expand_dims(edges - before, 1 - axis)
        total = total.take(before, axis) * (1 - weight) + total.take(before + 1, axis) * weight
    area_l0 = np.diff(np.diff(total, axis=0), axis=1) * (size_l0[0] * size_l0[1] / mask.size)
    share = area_l0 / np.prod(np.broadcast_to(side_l0, 2))
    return share.astype(np.float32).round(5).clip(0, 1)  # a tile full of tissue has 1, not 0.9999999


def select_tiles(
    mask: npt.NDArray[np.uint8],
    size_l0: tuple[int, int],
    side_l0: Side,
    min_tissue: float,
    bounds_l0: Box | None = None,
) -> TileGrid:
    """Return the tiles with a share of tissue of at least `min_tissue`, without tiles on empty borders.

    Args:
        mask: Classes (h, w) of the whole slide; see `preprocessing.store.schema.MASK_CLASSES`.
        size_l0: Width and height of the slide, level-0 pixels.
        side_l0: Side of a tile, or its width and height, level-0 pixels.
        min_tissue: Smallest share of tissue, 0 to 1; 0 chooses all tiles, also tiles of glass.
        bounds_l0: Scanned part of the slide; None if it is the whole slide.
    """
    shape = grid_shape(size_l0, side_l0)
    share = tissue_share(mask, size_l0, side_l0, shape)
    side = tuple(np.broadcast_to(side_l0, 2).astype(float).tolist())
    rc = np.argwhere(share >= min_tissue).astype(np.int32)
    left, top, width, height = bounds_l0 or (0, 0, *size_l0)
    xy_l0 = l0_from_rc(rc, side_l0)
    scanned = np.all((xy_l0 + side > (left, top)) & (xy_l0 < (left + width, top + height)), axis=1)
    rc, xy_l0 = rc[scanned], xy_l0[scanned]
    return TileGrid(rc, xy_l0, share[rc[:, 0], rc[:, 1]], shape, side)
