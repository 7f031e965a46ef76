"""Connected components of a region of an image. Pure."""

import cv2
import numpy as np
import numpy.typing as npt

Region = npt.NDArray[np.uint8]
"""1 for pixels inside of the region, 0 for others, (h, w)."""


def without_specks(region: Region, min_area_px: float) -> Region:
    """Return a region, (h, w), without its connected components (8 neighbours) of less than `min_area_px` pixels."""
    left, top, width, height = cv2.boundingRect(region)
    inner = np.s_[top : top + height, left : left + width]  # labels take 4 bytes per pixel
    kept = np.zeros_like(region)
    if width:
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(region[inner], connectivity=8)
        large = (statistics[:, cv2.CC_STAT_AREA] >= min_area_px).astype(np.uint8)
        large[0] = 0  # label 0 is the outside of the region
        kept[inner] = large[labels]
    return kept
