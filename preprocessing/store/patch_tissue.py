"""Share of tissue of the patches within a store's tiles, from the mask of its overview."""

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.store.schema import MASK_CLASSES
from preprocessing.store.store import PatchStore

_AT_ONCE = 1 << 20
"""Most corners of patches that are looked up together."""


def patch_tissue(store: PatchStore, per_side: int) -> npt.NDArray[np.float32]:
    """Return the share of each patch that is tissue (n, per_side**2), 0 to 1, row by row within a tile.

    A mask pixel counts by the exact area that it shares with a patch, so that the mean over a tile's patches is the
    tile's own share. The area outside the slide counts as glass.

    Args:
        store: Store of n tiles.
        per_side: Patches along the side of a tile.

    Raises:
        StoreError: The store has no mask, for example because it has imported features only.
    """
    mask = store.overview_mask
    total = cv2.integral((mask == MASK_CLASSES["tissue"]).astype(np.uint8))
    scale = np.array(mask.shape[::-1]) / store.size_l0  # mask pixels per level-0 pixel, along x and y
    side = np.array(store.side_l0) * scale
    corners = store.rc[:, ::-1] * side if store.lattice else store.xy_l0 * scale
    lines = np.arange(per_side + 1)[:, None] * side / per_side
    step = max(1, _AT_ONCE // len(lines) ** 2)
    parts = [_areas(total, corners[i : i + step, None] + lines) for i in range(0, len(corners), step)]
    share = np.concatenate([np.zeros((0, per_side**2)), *parts]) / (side.prod() / per_side**2)
    return share.astype(np.float32).round(5).clip(0, 1)


def _areas(total: npt.NDArray[np.int32], lines: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the area of tissue between neighbouring lines, mask pixels (n, patches).

    Args:
        total: Integral of the tissue (h + 1, w + 1), which is linear between the edges of mask pixels.
        lines: Places x, y of the lines between patches (n, lines, 2), mask pixels.
    """
    ends = np.array(total.shape[::-1]) - 1
    places = lines.clip(0, ends)
    before = np.minimum(places.astype(np.intp), ends - 1)
    after = places - before
    x, y = before[:, None, :, 0], before[:, :, None, 1]
    right, down = after[:, None, :, 0], after[:, :, None, 1]
    upper = total[y, x] * (1 - right) + total[y, x + 1] * right
    lower = total[y + 1, x] * (1 - right) + total[y + 1, x + 1] * right
    at_lines = upper * (1 - down) + lower * down
    return np.diff(np.diff(at_lines, axis=1), axis=2).reshape(len(lines), -1)
