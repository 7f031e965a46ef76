"""Pixels with an opacity, laid on white: what a scanner did not see looks like glass."""

import numpy as np
import numpy.typing as npt


def on_white(rgba: npt.NDArray[np.uint8], premultiplied: bool = False) -> npt.NDArray[np.uint8]:
    """Lay RGBA (h, w, 4) on white: RGB (h, w, 3).

    Args:
        rgba: Colours and opacity, 0 to 255.
        premultiplied: Whether the colours have been multiplied by the opacity already (TIFF's associated alpha).
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgb)
    if premultiplied:
        return np.minimum(rgb, alpha) + (255 - alpha)
    weight = alpha.astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
