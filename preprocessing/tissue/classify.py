"""Classification of a slide's overview into glass, tissue and pen (`schema.MASK_CLASSES`). Pure: arrays in, arrays out.

Pixels with more colour than glass are tissue: Otsu's threshold on saturation (Otsu 1979; CLAM, Lu et al. 2021,
arXiv:2004.09666), with three changes:

- Colours are divided by the colour of the slide's own glass, so that a bluish lamp does not give tissue.
- Saturation is the difference of the largest and the smallest channel. Its ratio to the largest is noise in dark areas.
- The threshold is limited to values just above the saturation of glass, so that pale tissue near dark tissue is kept.
"""

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.config import TissueConfig
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.tissue.pen import find_pen
from preprocessing.tissue.regions import Region, without_specks

Mask = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]

SATURATION_LIMITS = (8, 11)
"""Limits of Otsu's threshold, of 255.

Averaged over 3 x 3 pixels, 99.9 % of the glass is below 7 in an Aperio slide and in a noisy synthetic slide. Very pale
eosin (RGB 240, 226, 236) has 14.
"""
SMOOTHING_PX = 3
"""Side of the box filter against noise, pixels; a wider filter would erase the walls of fat cells."""
PADDING = 254
"""Minimum of all channels in areas that were not scanned, which scanners fill with white."""
GLASS_SAMPLE = 256
"""Longer side of the reduced image from which the colour of glass is estimated, pixels."""
STRIP_ROWS = 256
"""Rows whose saturation is computed at once."""


def classify(overview: Image, um_per_px: float, config: TissueConfig) -> Mask:
    """Classify an overview, (h, w, 3), with pixels of `um_per_px` micrometres into glass, tissue and pen, (h, w).

    Areas are measured on pixels twice as large, so pieces separated by a gap of one pixel count as one piece.
    """
    half = cv2.pyrDown(overview)
    glass = glass_colour(half)
    stained = saturation(overview, glass)
    otsu, _ = cv2.threshold(stained[::2, ::2], 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    tissue = cv2.threshold(stained, float(np.clip(otsu, *SATURATION_LIMITS)), 1, cv2.THRESH_BINARY)[1]
    half_px = 4 * um_per_px**2
    pen = find_pen(half, glass, 2 * um_per_px) if config.reject_pen else np.zeros(half.shape[:2], np.uint8)
    ink = _enlarged(pen, tissue)
    tissue &= 1 - ink
    keep, fill = _pieces(tissue, pen, config.min_area_um2 / half_px, config.fill_holes_um2 / half_px)
    tissue &= _enlarged(keep, tissue)
    if config.fill_holes_um2:
        tissue |= _enlarged(fill, tissue) & (1 - ink)
    return tissue * MASK_CLASSES["tissue"] + ink * MASK_CLASSES["pen"]


def glass_colour(image: Image) -> npt.NDArray[np.float64]:
    """Return the colour of a slide's glass, RGB, (3,): the median of bright pixels that are nearly grey or lamp-tinted.

    Bright violet to pink pixels are excluded, because they may be pale tissue. Without glass the result is white.
    """
    step = max(1, round(max(image.shape) / GLASS_SAMPLE))
    rgb = np.ascontiguousarray(image[::step, ::step])
    hue, saturation_hsv, value = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    padding = cv2.inRange(rgb, (PADDING,) * 3, (255,) * 3) > 0
    stain = (hue >= 120) & (saturation_hsv >= 10)
    glass = (value > 180) & (saturation_hsv < 45) & ~stain & ~padding
    return np.median(rgb[glass], axis=0) if glass.mean() > 0.005 else np.full(3, 255.0)


def saturation(overview: Image, glass: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the largest minus the smallest channel, (h, w), after division by the glass's colour; 0 for padding."""
    out = np.empty(overview.shape[:2], np.uint8)
    for top in range(0, len(overview), STRIP_ROWS):
        rows = overview[max(0, top - 1) : top + STRIP_ROWS + 1]  # one more row on either side for the box filter
        smooth = cv2.blur(rows, (SMOOTHING_PX, SMOOTHING_PX))
        channels = [
            cv2.convertScaleAbs(channel, alpha=255 / own) for channel, own in zip(cv2.split(smooth), glass, strict=True)
        ]
        red, green, blue = channels
        chroma = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
        skip = min(top, 1)
        out[top : top + STRIP_ROWS] = chroma[skip : skip + STRIP_ROWS]
    return out


def _pieces(tissue: Region, pen: Region, min_area_px: float, max_hole_px: float) -> tuple[Region, Region]:
    """Return, at half of the mask's size, the pieces of tissue that are large enough and the holes to fill."""
    half = cv2.dilate(tissue, np.ones((2, 2), np.uint8), anchor=(0, 0))[::2, ::2]
    keep = without_specks(np.ascontiguousarray(half), min_area_px)
    if max_hole_px == 0:
        return keep, np.zeros_like(keep)
    holes = (keep == 0).astype(np.uint8)
    small = holes & (1 - without_specks(holes, max_hole_px)) & (1 - pen)
    return keep, cv2.dilate(small, np.ones((3, 3), np.uint8))  # also the pixels between a hole and its tissue


def _enlarged(half: Region, full: Region) -> Region:
    return cv2.resize(half, full.shape[::-1], interpolation=cv2.INTER_NEAREST)
