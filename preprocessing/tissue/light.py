"""Kind of light and stain of a slide, judged by its overview: dark field, fluorescence, and stains other than H&E.

In bright field light passes glass, so the background is near white, and H&E absorbs green most. In dark field and
fluorescence the background is near black, and a fluorescent dye has one colour.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError

BLACK, WHITE = 2, 255
"""Value of the brightest channel up to which a pixel is black, as areas without a scan are in some files; pure white
pixels are such areas, too."""
DARK, MAX_DARK = 70, 0.5
"""Value of the brightest channel below which a pixel is dark, and share of the scanned pixels that may be dark."""
COLOURED, BRIGHTEST = 50, 95
"""Value of the darkest channel that a slide in bright field exceeds at this percentile of its pixels."""
GLASS = (
    ("YCbCr is shown as RGB", (200, 120, 120), (255, 136, 136)),
    ("RGB is converted from YCbCr", (250, 110, 250), (255, 134, 255)),
)
"""Colours that glass has if YCbCr is shown as RGB, and if RGB is converted as if it were YCbCr: least and most."""
MAX_GLASS = 0.2
"""Share of the pixels that may have such a colour; no stain is that light in red, or that violet."""
BROWN_MARGIN, BLUE_MARGIN, MAX_OTHER = 12, 4, 0.25
"""Differences by which blue or red is below green in other stains than H&E, and share of tissue that may be so.

On 2026-12-01 the share of 16 fields of LC25000 was at most 0.06 brown and 0.12 blue in H&E, and at least 0.29 blue in
the same fields recoloured as blue trichrome. IHC with few positive cells cannot be distinguished from H&E.
"""
ACCEPT = "dark-field"
"""Value of the setting `accept` with which slides in dark field and fluorescence are tiled."""


def is_dark_field(overview: npt.NDArray[np.uint8]) -> bool:
    """Return whether an overview, (h, w, 3), is in dark field or fluorescence; black pixels are not judged."""
    brightest, darkest = overview.max(axis=-1), overview.min(axis=-1)
    scanned = brightest > BLACK
    if not scanned.any():
        return False  # `refuse_blank` is for lost pixels
    one_colour = np.percentile(darkest[scanned], BRIGHTEST) < COLOURED
    return bool(one_colour or (brightest[scanned] < DARK).mean() > MAX_DARK)


def refuse_dark_field(path: Path, overview: npt.NDArray[np.uint8]) -> None:
    """Refuse a slide whose overview, (h, w, 3), is in dark field or fluorescence.

    Raises:
        SlideError: It is. Tissue, pen and glass are found by their colours in bright field.
    """
    if is_dark_field(overview):
        raise SlideError(
            "the slide is dark: it seems to be in fluorescence or dark field, and tissue is found in bright field only",
            where=path,
            fix=f"leave it out, or tile it with --accept {ACCEPT} and your own --tissue.masks",
        )


def refuse_false_colours(path: Path, overview: npt.NDArray[np.uint8]) -> None:
    """Refuse a slide whose overview, (h, w, 3), shows glass in the colours that a wrong colour space gives it.

    Raises:
        SlideError: It does: the file's header contradicts its pixels.
    """
    scanned = (overview.max(axis=-1) > BLACK) & (overview.min(axis=-1) < WHITE)
    for what, low, high in GLASS:
        if scanned.any() and (cv2.inRange(overview, low, high) > 0)[scanned].mean() > MAX_GLASS:
            raise SlideError(
                f"the colours are false: glass is not neutral, as where {what}",
                where=path,
                fix="correct the colour space in the header (PhotometricInterpretation), or convert the slide again",
            )


def other_stain(overview: npt.NDArray[np.uint8], tissue: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the shares of tissue that are brown or yellow, and blue or green, 0 to 1; H&E is pink to violet.

    Args:
        overview: Overview of the slide, (h, w, 3).
        tissue: True where the overview is tissue, (h, w).
    """
    red, green, blue = (overview[..., i][tissue].astype(np.int16) for i in range(3))
    if not red.size:
        return 0.0, 0.0
    brown = (blue < green - BROWN_MARGIN) & (red >= green)
    return float(brown.mean()), float((red < green - BLUE_MARGIN).mean())
