"""Random changes of an image that keep its content: turns, flips, stain and focus."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from longvit.config import ViewsConfig
from longvit.tokens.stain import Image, change_stain

# Optical density of haematoxylin, eosin and residual in red, green and blue (Ruifrok & Johnston 2001).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_UNMIX = np.linalg.inv(_STAINS)
_TURNS = (None, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)


@dataclass(frozen=True)
class Change:
    """Random change of a square crop: one of eight turns and flips, jittered stain, sometimes a blur."""

    turn: int
    """Clockwise quarter turns."""
    flip: bool
    """True if left and right are exchanged after the turn."""
    stain: Float[np.ndarray, "3 4"] | None
    """Change of optical density; None for no change."""
    blur: float
    """Standard deviation of the blur, pixels; 0 for none."""

    @classmethod
    def draw(cls, views: ViewsConfig, rng: np.random.Generator) -> "Change":
        """Return a random change."""
        turn, flip = int(rng.integers(4)), rng.random() < 0.5
        stain = draw_stain(views.stain_jitter, rng) if views.stain_jitter else None
        return cls(turn, flip, stain, rng.uniform(0.3, 1.5) if rng.random() < views.blur_probability else 0.0)

    def rows_for(self, rows: range, side: int) -> range:
        """Return the rows of the changed crop from which some of its rows can be computed: a blur needs neighbours."""
        margin = int(3 * self.blur) + 2 if self.blur else 0  # OpenCV's kernel for uint8 ends at 3 standard deviations
        return range(max(0, rows.start - margin), min(side, rows.stop + margin))

    def source(self, rows: range, side: int) -> tuple[slice, slice]:
        """Return the rows and columns of the crop that are some rows of the turned and flipped crop."""
        part = slice(rows.start, rows.stop) if self.turn < 2 else slice(side - rows.stop, side - rows.start)
        return (slice(0, side), part) if self.turn % 2 else (part, slice(0, side))

    def apply(self, image: Image) -> UInt8[np.ndarray, "rows columns 3"]:
        """Return the changed image; quarter turns exchange its height and width."""
        turn = _TURNS[self.turn]
        if turn is not None:
            image = cv2.rotate(image, turn)  # several times faster than a copy of numpy's turned view
        if self.flip:
            image = cv2.flip(image, 1)
        if self.stain is not None:
            image = change_stain(image, self.stain)
        return cv2.GaussianBlur(image, (0, 0), self.blur) if self.blur else image


def draw_stain(strength: float, rng: np.random.Generator) -> Float[np.ndarray, "3 4"]:
    """Return a random linear map of optical density that scales and shifts each stain (Tellez et al. 2018).

    Unmixing, scaling, shifting and mixing are one map (arXiv:1808.05896).

    Args:
        strength: Densities are scaled by 1 - strength to 1 + strength, and shifted by up to a tenth of the strength.
        rng: Generator that draws three scales and three shifts.
    """
    scale = rng.uniform(1 - strength, 1 + strength, 3)
    shift = rng.uniform(-strength, strength, 3) * 0.1
    mix = _UNMIX @ np.diag(scale) @ _STAINS
    return np.concatenate([mix.T, (shift @ _STAINS)[:, None]], axis=1).astype(np.float32)
