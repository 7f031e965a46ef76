"""Detection of pen marks on an overview by colours that stains do not have. Pure."""

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.tissue.regions import Region, without_specks

MIN_AREA_UM2 = 20_000.0
"""Minimum area of a stroke, square micrometres; clumps of carbon, iron or blood in tissue are smaller."""
RIM_UM = 32.0
"""Width of a stroke's rim, micrometres; all its pixels are pen, in any colour."""
COLOURED = (
    ((35, 30, 30), (94, 255, 255)),  # green
    ((95, 120, 30), (119, 255, 255)),  # blue; paler blue comes from a bluish lamp
    ((95, 80, 30), (119, 255, 110)),  # green or blue over violet tissue
    ((119, 160, 30), (122, 255, 255)),  # blue over pink
    ((0, 150, 60), (4, 255, 255)),  # red, whose hues are on both sides of 0
    ((177, 150, 60), (179, 255, 255)),
    ((176, 200, 60), (176, 255, 255)),  # red over violet
)
"""Lowest and highest hue, saturation and value of coloured pens."""
BLACK = (6, 89)
"""Lowest and highest value of black pen. Areas that were not scanned are blacker than any ink."""
FADE_UM = 112.0
"""Distance within which a stroke fades into glass, in its own hue, micrometres."""


def find_pen(image: npt.NDArray[np.uint8], glass: npt.NDArray[np.float64], um_per_px: float) -> Region:
    """Find strokes of green, blue, black or red pen with their fading rims; return 1 or 0, (h, w).

    Args:
        image: RGB, (h, w, 3), in pixels smaller than half of a stroke's width.
        glass: Colour of the glass, RGB, (3,).
        um_per_px: Side of a pixel, micrometres.
    """
    balanced = cv2.merge(
        [cv2.convertScaleAbs(channel, alpha=255 / own) for channel, own in zip(cv2.split(image), glass, strict=True)]
    )
    hsv = cv2.cvtColor(balanced, cv2.COLOR_RGB2HSV)
    kernel = np.ones((3, 3), np.uint8)
    stroke = cv2.morphologyEx(strong_ink(hsv), cv2.MORPH_OPEN, kernel)
    stroke = without_specks(stroke, MIN_AREA_UM2 / um_per_px**2)
    if not stroke.any():
        return stroke
    rim = cv2.dilate(stroke, kernel, iterations=max(1, round(RIM_UM / um_per_px)))
    fade = cv2.dilate(stroke, kernel, iterations=max(1, round(FADE_UM / um_per_px)))
    return rim | (fade & faint_ink(hsv))


def strong_ink(hsv: npt.NDArray[np.uint8]) -> Region:
    """Return 1 for pixels that are certainly pen, else 0, (h, w), from HSV, (h, w, 3).

    HSV has OpenCV's ranges (hue 0 to 179). Haematoxylin and eosin have hues from 120 (blue-violet) to 176 (pink). Folds
    are dark, but not grey.
    """
    _, saturation, value = cv2.split(hsv)
    chroma = cv2.multiply(saturation, value, scale=1 / 255)
    ink = (cv2.inRange(value, BLACK[0], BLACK[1]) & cv2.inRange(chroma, 0, 24)) > 0
    for low, high in COLOURED:
        ink |= cv2.inRange(hsv, low, high) > 0
    return ink.astype(np.uint8)


def faint_ink(hsv: npt.NDArray[np.uint8]) -> Region:
    """Return 1 for pixels that are pen if they are next to pen, else 0, (h, w), from HSV, (h, w, 3).

    They have hues of pens at any strength, or are grey and darker than glass.
    """
    hue, saturation, value = cv2.split(hsv)
    return (((hue >= 20) & (hue < 120) & (saturation >= 6)) | ((saturation < 40) & (value < 200))).astype(np.uint8)
