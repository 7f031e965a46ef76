"""Pieces of tissue on a slide, found on its mask and numbered in reading order. Pure: arrays in, arrays out.

Tissue and blurred tissue closer than a gap are one piece, so that a core of a tissue microarray stays one piece where
it is torn. Rows of pieces are read from top to bottom, and each row from left to right. A row begins with the topmost
piece that is left, and continues on both sides with the next piece whose centre is at the height of its neighbour, so
that the rows of a lattice may be tilted.
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
    count, *found = cv2.connectedComponentsWithStats(joined, connectivity=8)
    labels, boxes = (array.astype(np.int32, copy=False) for array in found[:2])
    centres = found[2].astype(np.float64, copy=False)
    number = np.full(count, -1, np.int32)
    number[1 + reading_order(boxes[1:], centres[1:])] = np.arange(count - 1)
    return np.where(tissue, number[labels], -1).astype(np.int32)


def reading_order(boxes: npt.NDArray[np.integer], centres: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the indices of pieces, row by row and from left to right.

    Args:
        boxes: Left, top, width and height of each piece (n, 4), or more columns.
        centres: Centre x, y of each piece (n, 2).
    """
    tops, bottoms = boxes[:, 1], boxes[:, 1] + boxes[:, 3]
    left, order = np.argsort(centres[:, 0], kind="stable").tolist(), []
    while left:
        start = min(range(len(left)), key=lambda i: tops[left[i]])
        row = [left[start]]
        for side in (left[:start][::-1], left[start + 1 :]):
            neighbour = left[start]
            for piece in side:
                if tops[neighbour] <= centres[piece, 1] < bottoms[neighbour]:
                    row.append(neighbour := piece)
        order += sorted(row, key=lambda piece: centres[piece, 0])
        taken = set(row)
        left = [piece for piece in left if piece not in taken]
    return np.array(order, np.intp)


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
