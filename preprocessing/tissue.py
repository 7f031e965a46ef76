"""Tissue, pen and blur from small images of a slide. Pure: arrays in, arrays out; classes as in `schema.MASK_CLASSES`.

Tissue is what is more saturated than glass (Otsu's threshold on the saturation channel, as CLAM has it; Lu et al. 2021,
arXiv:2004.09666). Pen is told by hues that no H&E stain has. Blur is told by how little of a tissue's contrast is fine.
"""

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.config import TissueConfig
from preprocessing.schema import MASK_CLASSES

Mask = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]

SATURATION_LIMITS = (12, 20)
"""Otsu's threshold is kept between these (of 255): glass alone stays glass, pale tissue beside dark tissue stays."""
SMOOTHING_PX = 5
"""Side of the median filter that takes noise out of an 8 um image."""
FOCUS_FACTOR = 4
"""Focus is judged on an image this many times finer than the mask: at 2 um for the usual mask of 8 um."""
FOCUS_LIMIT = 0.3
"""Tissue below this is out of focus. On an Aperio slide, 1 % of sharp tissue lies below 0.4; with a Gaussian blur of
1.5 um 99 % lies below 0.32, of 2.5 um all below 0.13."""


def classify(overview: Image, um_per_px: float, config: TissueConfig) -> Mask:
    """Glass, tissue and pen of an overview (h, w, 3) whose pixels are `um_per_px` micrometres: mask (h, w).

    Pieces of tissue smaller than `config.min_area_um2` are taken for dust.
    """
    smooth = cv2.medianBlur(overview, SMOOTHING_PX)
    hsv = cv2.cvtColor(smooth, cv2.COLOR_RGB2HSV).astype(np.uint8, copy=False)
    otsu, _ = cv2.threshold(hsv[..., 1], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    tissue = hsv[..., 1] > np.clip(otsu, *SATURATION_LIMITS)
    pen = is_pen(hsv) if config.reject_pen else np.zeros_like(tissue)
    tissue = without_specks(tissue & ~pen, config.min_area_um2 / um_per_px**2)
    mask = np.where(tissue, MASK_CLASSES["tissue"], MASK_CLASSES["glass"]).astype(np.uint8)
    mask[pen] = MASK_CLASSES["pen"]
    return mask


def is_pen(hsv: Image) -> npt.NDArray[np.bool_]:
    """Pixels of green, blue, black or red pen in an HSV image (h, w, 3) with OpenCV's ranges (hue 0 to 179).

    Haematoxylin and eosin lie between hues 120 (blue-violet) and 176 (pink).
    """
    hue, saturation, value = cv2.split(hsv)
    green = (hue >= 35) & (hue < 95) & (saturation >= 30)
    blue = (hue >= 95) & (hue <= 118) & (saturation >= 120)  # paler is glass under a bluish lamp
    red = ((hue <= 4) | (hue >= 177)) & (saturation >= 150)
    black = (value < 90) & (saturation < 60)
    stroke = (green | blue | red | black).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    opened = cv2.morphologyEx(stroke, cv2.MORPH_OPEN, kernel)  # a pen is wider than 24 um; chromatic fringes are not
    return cv2.dilate(opened, kernel, iterations=2).astype(bool)  # the fading rim of a stroke


def without_specks(region: npt.NDArray[np.bool_], min_area_px: float) -> npt.NDArray[np.bool_]:
    """The connected pieces (8 neighbours) of a region (h, w) that have at least `min_area_px` pixels."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= min_area_px
    large[0] = False  # label 0 is what lies outside of the region
    return large[labels.astype(np.int32, copy=False)]


def sharpness(fine: Image) -> npt.NDArray[np.float32]:
    """Share of fine detail in local contrast: (h, w) from an image (h * FOCUS_FACTOR, w * FOCUS_FACTOR, 3).

    Energy of what a narrow blur removes over energy of what lies between a narrow and a wide one: a ratio, so that pale
    and dark tissue are judged alike. Flat places, which say nothing about focus, have a ratio near 1.
    """
    gray = cv2.cvtColor(fine, cv2.COLOR_RGB2GRAY).astype(np.float32)
    narrow, wide = cv2.GaussianBlur(gray, (0, 0), 0.7), cv2.GaussianBlur(gray, (0, 0), 2.0)
    size = (fine.shape[1] // FOCUS_FACTOR, fine.shape[0] // FOCUS_FACTOR)
    finest, middle = (
        cv2.resize(band**2, size, interpolation=cv2.INTER_AREA) for band in (gray - narrow, narrow - wide)
    )
    return ((finest + 1) / (middle + 1)).clip(0, 1)


def mark_blurred(mask: Mask, sharp: npt.NDArray[np.float32], min_area_px: float) -> Mask:
    """The mask (h, w) with tissue of little `sharpness` (h, w) marked as blurred, where that makes a piece of size."""
    blurred = (cv2.medianBlur(sharp, SMOOTHING_PX) < FOCUS_LIMIT) & (mask == MASK_CLASSES["tissue"])
    marked = mask.copy()
    marked[without_specks(blurred, min_area_px)] = MASK_CLASSES["blurred"]
    return marked
