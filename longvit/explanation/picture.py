"""Picture of the whole slide at a given resolution, from its store."""

import cv2
import numpy as np
from jaxtyping import UInt8

from preprocessing.errors import ConfigError
from preprocessing.frames import l0_from_rc, px_from_l0
from preprocessing.store.store import PatchStore

MOST_PX = 100_000_000
"""Largest number of pixels of a picture: 300 MB in memory, and about the limit of common viewers."""


def slide_picture(store: PatchStore, mpp: float | None) -> UInt8[np.ndarray, "h w 3"]:
    """Return the slide at `mpp` micrometres per pixel: stored tiles on the enlarged overview; default: the overview.

    Raises:
        ConfigError: The image would be larger than `MOST_PX`.
    """
    if mpp is None:
        return store.overview
    px_l0, (width, height) = mpp / store.mpp_l0, picture_size(store, mpp)
    image = cv2.resize(store.overview, (width, height), interpolation=cv2.INTER_LINEAR)
    corners_l0 = (l0_from_rc(rc, store.side_l0) for rc in (store.rc, store.rc + 1))
    starts, ends = (np.rint(px_from_l0(xy_l0, px_l0)).astype(int) for xy_l0 in corners_l0)
    for tile, (x0, y0), (x1, y1) in zip(range(len(store)), starts, ends.clip(max=(width, height)), strict=True):
        if x1 > x0 and y1 > y0:
            image[y0:y1, x0:x1] = cv2.resize(
                store.read_tiles([tile])[0], (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA
            )
    return image


def picture_size(store: PatchStore, mpp: float) -> tuple[int, int]:
    """Return width and height of the slide's picture at `mpp` micrometres per pixel.

    Raises:
        ConfigError: The image would be larger than `MOST_PX`.
    """
    width, height = np.rint(px_from_l0(store.size_l0, mpp / store.mpp_l0)).astype(int).clip(1).tolist()
    if width * height > MOST_PX:
        finest = mpp * (width * height / MOST_PX) ** 0.5
        raise ConfigError(
            f"at {mpp:g} um per pixel the overlay of {store.slide_id} has {width} x {height} pixels",
            where="overlay_mpp",
            fix=f"set overlay_mpp to {finest * 1.01:.3g} or more; QuPath shows the .geojson at any resolution",
        )
    return width, height
