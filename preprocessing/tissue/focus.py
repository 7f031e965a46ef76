"""Which tissue is out of focus, from pixels of about 2 um. Pure.

Blur takes fine detail before coarse: the share of detail at 2 um in that at 4 um falls, whatever the stain's strength.
Sharp tissue differs in that share, so a slide is also compared with its own sharper part.
"""

import cv2
import numpy as np
import numpy.typing as npt

FINE_UM = 2.0
"""Pixels that focus is judged on, micrometres."""
CELL_PX = 16
"""Side of a cell, fine pixels: 32 um."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Luma of RGB (ITU-R BT.601), which a JPEG holds apart from its colours."""
MARGIN = 12
"""Luma darker than glass by less than this may be glass; its borders are as sharp as they were cut."""
CLEAR = 0.95
"""Only cells of which at least this share could be measured vote: in the others a border of glass may lie."""
NEAR, FAR = 5, 25
"""Sides of the two squares of cells (160 and 800 um) that vote on the one in their middle."""
FAR_WEIGHT = 0.5
"""Of the share of votes in the large square, which decides where the small one has few voters."""
SHARE_LIMIT = 0.55
"""Below this share of fine detail tissue is blurred."""
OWN_LIMIT = 0.72
"""So is tissue below this part of the share that a quarter of the slide's tissue exceeds."""
FLAT = 8.0
"""Cells with less detail at 4 um (as `detail` has it: twice the mean absolute Laplacian) are a lake of mucin or colloid
that says nothing of focus, or, where most within the large square is as flat or blurred, far out of focus. Of sharp
tissue 1 % lies below 16; rounding to 8 bits and JPEG alone make 3 to 5."""


def detail(fine: npt.NDArray[np.uint8], glass: float) -> npt.NDArray[np.float32]:
    """Detail at one and two fine pixels, and the share of pixels it was measured on: (3, h / CELL_PX, w / CELL_PX).

    Args:
        fine: Luma (h, w), pixels of about `FINE_UM`, sides multiples of `CELL_PX`.
        glass: Luma of the slide's glass. What is as bright, and 12 um around it, is left out.
    """
    half = _halved(fine)
    dark = cv2.compare(cv2.dilate(half, np.ones((7, 7), np.uint8)), glass - MARGIN, cv2.CMP_LT)
    layers = (_halved(_edges(fine)) & dark, _edges(half) & dark, dark)
    size = fine.shape[1] // CELL_PX, fine.shape[0] // CELL_PX
    return np.stack([cv2.resize(layer.astype(np.float32), size, interpolation=cv2.INTER_AREA) for layer in layers])


def blurred_cells(measured: npt.NDArray[np.float32], tissue: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The cells of tissue (h, w) that are out of focus: those around which most that can be judged are.

    Args:
        measured: `detail` of every cell, (3, h, w).
        tissue: Cells that are mostly tissue, (h, w); the others do not vote.
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


def _votes(voters: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """How densely voters lie around each cell (h, w); near ones count more."""
    return _density(voters, NEAR) + FAR_WEIGHT * _density(voters, FAR)


def _density(voters: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.float32]:
    """Share of the square of `side` cells around each cell (h, w) that are voters."""
    return cv2.boxFilter(voters.astype(np.float32), -1, (side, side))


def _edges(channel: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Twice the absolute Laplacian: a few specks of dust do not outweigh tissue, since it ends at 255."""
    return cv2.convertScaleAbs(cv2.Laplacian(channel, cv2.CV_16S, ksize=1), alpha=2)


def _halved(channel: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return cv2.resize(channel, (channel.shape[1] // 2, channel.shape[0] // 2), interpolation=cv2.INTER_AREA)
