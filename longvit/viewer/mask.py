"""Tissue mask as a picture to draw over the slide. Pure functions."""

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.store.schema import MASK_CLASSES

MASK_COLOURS = {"tissue": "#00963c", "pen": "#dc7800", "blurred": "#005aff"}
"""Colour of each class, the same as in the tiling report."""


def mask_picture(mask: npt.NDArray[np.uint8]) -> bytes:
    """Return the outlines of the classes of an overview mask (h, w) as a PNG; other pixels are transparent."""
    bgra = np.zeros((*mask.shape, 4), np.uint8)
    for name, colour in MASK_COLOURS.items():
        region = (mask == MASK_CLASSES[name]).astype(np.uint8)
        inside = cv2.erode(region, np.ones((3, 3), np.uint8), borderValue=1)
        bgra[region > inside] = (*bytes.fromhex(colour[1:])[::-1], 255)
    return cv2.imencode(".png", bgra)[1].tobytes()
