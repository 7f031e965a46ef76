"""Blending of transparent pixels with white, so that areas without a scan appear as glass."""

import numpy as np
import numpy.typing as npt


def on_white(rgba: npt.NDArray[np.uint8], premultiplied: bool = False) -> npt.NDArray[np.uint8]:
    """Blend RGBA, (h, w, 4), with a white background, and return RGB, (h, w, 3).

    Args:
        rgba: Colours and opacity, 0 to 255.
        premultiplied: True if the colours are already multiplied by the opacity (associated alpha of TIFF).
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgb)
    if premultiplied:
        return np.minimum(rgb, alpha) + (255 - alpha)
    weight = alpha.astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
