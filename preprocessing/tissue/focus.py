"""Detection of tissue that is out of focus, from pixels of about 2 um. Pure.

Blur removes fine detail before coarse detail. So the ratio of detail at 2 um to detail at 4 um falls, independently of
the strength of the stain. Sharp tissues have different ratios, so a slide is also compared with its own sharper part.
"""

import cv2
import numpy as np
import numpy.typing as npt

FINE_UM = 2.0
"""Side of the fine pixels on which focus is judged, micrometres."""
CELL_PX = 16
"""Side of a cell, fine pixels: 32 um."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in luma (ITU-R BT.601), which a JPEG stores separately from its colours."""
MARGIN = 12
"""Difference in luma to glass below which a pixel may be glass.

Borders of glass are not measured, because their sharpness also depends on how the tissue was cut.
"""
CLEAR = 0.95
"""Minimum share of a cell that must be measurable for the cell to vote; other cells may contain a border of glass."""
NEAR, FAR = 5, 25
"""Sides of the two squares of cells that vote on their central cell, cells (160 and 800 um)."""
FAR_WEIGHT = 0.5
"""Weight of the votes in the large square, which decide if the small square has few voters."""
SHARE_LIMIT = 0.55
"""Ratio of fine to coarse detail below which tissue is blurred."""
OWN_LIMIT = 0.72
"""Tissue is also blurred if its ratio is below this part of the 75th percentile of the slide's tissue."""
FLAT = 8.0
"""Detail at 4 um (`detail`: twice the mean absolute Laplacian) up to which a cell is flat.

A flat cell is a lake of mucin or colloid, which gives no information on focus. It is far out of focus instead if most
cells in the large square are flat or blurred, too. Of sharp tissue 1 % is below 16; rounding to 8 bits and JPEG alone
give 3 to 5.
"""


def detail(fine: npt.NDArray[np.uint8], glass: float) -> npt.NDArray[np.float32]:
    """Measure detail at one and at two fine pixels, and the measured share of each cell, 0 to 255.

    Args:
        fine: Luma, (h, w), in pixels of about `FINE_UM`; both sides are multiples of `CELL_PX`.
        glass: Luma of the slide's glass. Pixels as bright, and 12 um around them, are not measured.

    Returns:
        Fine detail, coarse detail and share, (3, h / CELL_PX, w / CELL_PX).
    """
    half = _halved(fine)
    dark = cv2.compare(cv2.dilate(half, np.ones((7, 7), np.uint8)), glass - MARGIN, cv2.CMP_LT)
    layers = (_halved(_edges(fine)) & dark, _edges(half) & dark, dark)
    size = fine.shape[1] // CELL_PX, fine.shape[0] // CELL_PX
    return np.stack([cv2.resize(layer.astype(np.float32), size, interpolation=cv2.INTER_AREA) for layer in layers])


def blurred_cells(measured: npt.NDArray[np.float32], tissue: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cells of tissue that are out of focus, (h, w): cells around which most measurable cells are blurred.

    Args:
        measured: `detail` of every cell, (3, h, w).
        tissue: True for cells that are mostly tissue, (h, w); other cells do not vote.
    """
    fine, coarse, share = measured
    clear = tissue & (share > CLEAR * 255)
    flat = clear & (coarse <= FLAT)
    judged = clear & ~flat
    ratio = fine / np.maximum(coarse, FLAT)
    own = float(np.percentile(ratio[judged], 75)) if judged.any() else 0.0
    soft = judged & (ratio < max(SHARE_LIMIT, OWN_LIMIT * own))
    lost = flat & (_density(soft | flat, FAR) > 0.5 * _density(clear, FAR))
    return tissue & (_votes(soft | lost) > 0.5 * _votes(judged | lost))


def _votes(voters: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """Return the weighted density of voters around each cell, (h, w); near voters count more."""
    return _density(voters, NEAR) + FAR_WEIGHT * _density(voters, FAR)


def _density(voters: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.float32]:
    """Return the share of voters in the square of `side` x `side` cells around each cell, (h, w)."""
    return cv2.boxFilter(voters.astype(np.float32), -1, (side, side))


def _edges(channel: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return twice the absolute Laplacian, limited to 255, so that a few specks of dust do not outweigh tissue."""
    return cv2.convertScaleAbs(cv2.Laplacian(channel, cv2.CV_16S, ksize=1), alpha=2)


def _halved(channel: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return cv2.resize(channel, (channel.shape[1] // 2, channel.shape[0] // 2), interpolation=cv2.INTER_AREA)
