"""Pieces of tissue on a slide, found on its mask and numbered in reading order. Pure: arrays in, arrays out.

Tissue and blurred tissue closer than a gap are one piece, so that a core of a tissue microarray stays one piece where
it is torn. Rows of pieces are read from top to bottom, and each row from left to right: a piece is in the row of the
topmost piece that is left if its centre is above that piece's lower edge.
"""

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.store.schema import MASK_CLASSES

Labels = npt.NDArray[np.int32]
"""Number of the piece at each pixel of the mask (h, w), from 0; -1 for none."""


def label_pieces(mask: npt.NDArray[np.uint8], um_per_px: float, gap_um: float) -> Labels:
    """Return the pieces of a mask.

    Args:
        mask: Mask (h, w), with the classes of `schema.MASK_CLASSES`.
        um_per_px: Side of a pixel of the mask, micrometres.
        gap_um: Tissue closer than this is one piece, micrometres.
    """
    tissue = np.isin(mask, [MASK_CLASSES["tissue"], MASK_CLASSES["blurred"]]).astype(np.uint8)
    radius = max(0, round(gap_um / um_per_px / 2))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    joined = cv2.dilate(tissue, disc) if radius else tissue
    count, labels, boxes, centres = cv2.connectedComponentsWithStats(joined, connectivity=8)
    number = np.full(count, -1, np.int32)
    number[1 + reading_order(boxes[1:], centres[1:])] = np.arange(count - 1)
    return np.where(tissue, number[labels], -1).astype(np.int32)


def reading_order(boxes: npt.NDArray[np.integer], centres: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the indices of pieces, row by row and from left to right.

    Args:
        boxes: Left, top, width and height of each piece (n, 4), or more columns.
        centres: Centre x, y of each piece (n, 2).
    """
    left, order = np.argsort(centres[:, 1], kind="stable"), []
    while len(left):
        first = left[np.argmin(boxes[left, 1])]
        in_row = centres[left, 1] < boxes[first, 1] + boxes[first, 3]
        row = left[in_row]
        order.append(row[np.argsort(centres[row, 0], kind="stable")])
        left = left[~in_row]
    return np.concatenate(order) if order else np.empty(0, np.intp)


def piece_of_tiles(
    labels: Labels, rc: npt.NDArray[np.integer], side_px: npt.NDArray[np.floating], shape: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """Return the piece that has the most tissue of each tile (n,); -1 for tiles without tissue.

    Args:
        labels: Pieces of the mask (h, w).
        rc: Row and column of each tile (n, 2).
        side_px: Width and height of a tile, pixels of the mask.
        shape: Rows and columns of the grid.
    """
    y, x = np.nonzero(labels >= 0)
    row, column = ((places + 0.5) / side for places, side in ((y, side_px[1]), (x, side_px[0])))
    tile, piece = row.astype(np.int64) * shape[1] + column.astype(np.int64), labels[y, x]
    pairs, counts = np.unique(tile * (labels.max() + 1) + piece, return_counts=True)
    tile, piece = np.divmod(pairs, labels.max() + 1)
    most = np.lexsort((piece, -counts, tile))
    tiles, first = np.unique(tile[most], return_index=True)
    wanted = rc[:, 0].astype(np.int64) * shape[1] + rc[:, 1]
    at = np.searchsorted(tiles, wanted)
    found = at < len(tiles)
    found[found] = tiles[at[found]] == wanted[found]
    y, x = (((rc[:, i] + 0.5) * side_px[1 - i]).astype(int).clip(0, labels.shape[i] - 1) for i in (0, 1))
    result = labels[y, x]  # for tiles smaller than a pixel of the mask
    result[found] = piece[most][first[at[found]]]
    return result.astype(np.int32)
