"""Random changes of an image that keep its content: turns, flips, stain and focus."""

import cv2
import numpy as np
from jaxtyping import UInt8

from longvit.config import ViewsConfig

# Optical density of haematoxylin, eosin and residual in red, green and blue (Ruifrok & Johnston 2001).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_UNMIX = np.linalg.inv(_STAINS)
_DENSITY = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
_ROWS = 16
_TURNS = (None, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)

Image = UInt8[np.ndarray, "height width 3"]


def augment(image: Image, views: ViewsConfig, rng: np.random.Generator) -> Image:
    """Return a random version of a square crop: one of eight turns and flips, jittered stain, sometimes a blur."""
    turn = _TURNS[rng.integers(4)]
    if turn is not None:
        image = cv2.rotate(image, turn)  # several times faster than a copy of numpy's turned view
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
    if views.stain_jitter:
        image = jitter_stain(image, views.stain_jitter, rng)
    if rng.random() < views.blur_probability:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))
    return image


def jitter_stain(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Scale and shift each stain's density (Tellez et al. 2018, arXiv:1808.05896), in one 3 x 4 matrix.

    Unmixing, scaling, shifting and mixing are one linear map of optical density. It is applied to a few rows at a time:
    the densities of a crop of 1,024 pixels are 12 MB, which take longer to read from memory than to compute.

    Args:
        image: RGB image.
        strength: Densities are scaled by 1 - strength to 1 + strength, and shifted by up to a tenth of the strength.
        rng: Generator that draws three scales and three shifts.
    """
    scale = rng.uniform(1 - strength, 1 + strength, 3)
    shift = rng.uniform(-strength, strength, 3) * 0.1
    mix = _UNMIX @ np.diag(scale) @ _STAINS
    matrix = np.concatenate([mix.T, (shift @ _STAINS)[:, None]], axis=1).astype(np.float32)
    jittered = np.empty_like(image, order="C")
    for top in range(0, len(image), _ROWS):
        grey = cv2.transform(cv2.LUT(image[top : top + _ROWS], _DENSITY), -matrix)
        np.exp(grey, out=grey)
        grey *= 256
        grey -= 0.5  # minus the 1 in the density's definition, plus 0.5 so that truncation becomes rounding
        jittered[top : top + _ROWS] = np.clip(grey, 0, 255, out=grey)
    return jittered
