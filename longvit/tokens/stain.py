"""Stain of a slide: linear changes of optical density, and normalisation to a published reference.

Laboratories and scanners colour the same tissue differently. A slide is estimated once, from pixels of tiles spread
evenly over it, so that all of its tiles change alike. The methods are Macenko's and Reinhard's:

- Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis" (ISBI): the densities of
  haematoxylin and eosin are unmixed, scaled by their 99th percentiles, and mixed by reference stains. The reference is
  that of the method's usual implementation (github.com/mitkovetta/staining-normalization), which torchstain has, too.
- Reinhard et al. 2001, "Color transfer between images" (doi:10.1109/38.946629): mean and deviation of the stained
  pixels in the decorrelated space of Ruderman are set to a reference. The reference is the region of TCGA-A2-A3XS-DX1
  in Amgad et al. 2019 (doi:10.1093/bioinformatics/btz083) that HistomicsTK uses.

torchstain 1.4.1 estimates every image that it normalises from that image alone. Tiles of one slide would change
differently, and tiles with one stain would be forced to have both, so only its numbers are used, in tests.
"""

import sys
from threading import Lock
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from longvit.config import Stain
from preprocessing.errors import printable
from preprocessing.store.store import PatchStore

Image = UInt8[np.ndarray, "height width 3"]

MACENKO_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
"""Reference density of haematoxylin and eosin (columns) in red, green and blue (rows)."""
MACENKO_MOST = np.array([1.9705, 1.0308])
"""Reference 99th percentile of the amounts of haematoxylin and eosin."""
REINHARD_MEAN = np.array([8.74108109, -0.12440419, 0.0444982])
REINHARD_STD = np.array([0.6135447, 0.10989545, 0.0286032])
"""Reference mean and deviation of lightness, yellow-blue and red-green, of natural logarithms of 0 to 255."""

LIGHT = 240
"""Grey value of light without tissue, in Macenko's method."""
LEAST_DENSITY = 0.15
"""Smallest density, in each colour, of a pixel that counts as stained (Macenko's beta)."""
LEAST_PIXELS = 1000
"""Fewest stained pixels that an estimate is made from."""
LEAST_ANGLE = 3.0
"""Smallest angle between the two stains that Macenko's method finds, degrees; about 20 in H&E."""
SAMPLED_TILES, SAMPLED_SIDE = 48, 64
"""Most tiles of a slide that are sampled, and most pixels along the side of each."""

_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
"""Response of the eye's cones to red, green and blue (Reinhard et al. 2001, equation 4)."""
_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
"""Lightness, yellow-blue and red-green of the logarithms of the cones' responses (equation 6)."""
_DENSITY = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
_ROWS = 16
_LOCK = Lock()


class StainMap(NamedTuple):
    """Change of the colours of a slide: an affine map of optical density, of colours or of cones' responses."""

    matrix: Float[np.ndarray, "3 4"]
    mix: Float[np.ndarray, "3 3"] | None = None
    """Colours to responses; None if the map is of the colours themselves."""

    def apply(self, images: UInt8[np.ndarray, "n height width 3"]) -> UInt8[np.ndarray, "n height width 3"]:
        """Return images with the changed colours."""
        height, width = images.shape[1:3]
        return change_stain(images.reshape(-1, width, 3), *self).reshape(-1, height, width, 3)


def change_stain(image: Image, matrix: Float[np.ndarray, "3 4"], mix: Float[np.ndarray, "3 3"] | None = None) -> Image:
    """Return an RGB image with another optical density, by an affine map.

    It is applied to a few rows at a time: the densities of a crop of 1,024 pixels are 12 MB, which take longer to read
    from memory than to compute.

    Args:
        image: The image.
        matrix: Map of the densities, natural logarithms of 256 / (value + 1).
        mix: Matrix by which colours are mixed before the logarithm, and unmixed after; default: they are not mixed.
    """
    changed = np.empty_like(image, order="C")
    unmix = None if mix is None else np.linalg.inv(mix).astype(np.float32)
    for top in range(0, len(image), _ROWS):
        light = cv2.transform(_density(image[top : top + _ROWS], mix), -matrix)
        np.exp(light, out=light)
        if unmix is not None:
            light = cv2.transform(light, unmix)
        light *= 256
        light -= 0.5  # minus the 1 in the density's definition, plus 0.5 so that truncation becomes rounding
        changed[top : top + _ROWS] = np.clip(light, 0, 255, out=light)
    return changed


def _density(image: Image, mix: Float[np.ndarray, "3 3"] | None = None) -> Float[np.ndarray, "height width 3"]:
    if mix is None:
        return cv2.LUT(image, _DENSITY)
    return -np.log(cv2.transform((image.astype(np.float32) + 1) / 256, mix.astype(np.float32)))


def normalised(
    images: UInt8[np.ndarray, "n height width 3"], store: PatchStore, method: Stain
) -> UInt8[np.ndarray, "n height width 3"]:
    """Return images of a slide in normalised colours; the images themselves if the slide cannot be estimated.

    Raises:
        StoreError: A sampled tile is missing or damaged.
    """
    change = None if method == "none" else stain_map(store, method)
    return images if change is None else change.apply(images)


def stain_map(store: PatchStore, method: Literal["macenko", "reinhard"]) -> StainMap | None:
    """Return the change that normalises a slide, the same in every process; None if the slide cannot be estimated.

    Each process estimates a slide once, and prints a note if it has too little stain.

    Raises:
        StoreError: A sampled tile is missing or damaged.
    """
    key = (method, str(store.path), hash(store.identity()), len(store))
    with _LOCK:  # threads that read ahead wait for one estimate
        if key not in _KNOWN:
            try:
                _KNOWN[key] = _ESTIMATES[method](sampled(store))
            except ValueError as error:
                _KNOWN[key] = None
                note = f"note: {store.path.name}: the colours are not normalised, because {error}"
                print(printable(note), file=sys.stderr)
        return _KNOWN[key]


def sampled(store: PatchStore) -> UInt8[np.ndarray, "n 3"]:
    """Return pixels of at most 48 tiles, 64 x 64 of each, evenly spread over the slide and over the tile."""
    tiles = np.unique(np.linspace(0, len(store) - 1, SAMPLED_TILES).round().astype(int))
    step = -(-store.tile_st // SAMPLED_SIDE)
    return np.concatenate([store.read_tiles([tile])[0, ::step, ::step].reshape(-1, 3) for tile in tiles])


def stained(pixels: UInt8[np.ndarray, "n 3"], colours: int) -> UInt8[np.ndarray, "k 3"]:
    """Return the pixels that are dense in at least so many of the three colours.

    Raises:
        ValueError: There are too few.
    """
    kept = pixels[(pixels + 1.0 <= LIGHT * np.exp(-LEAST_DENSITY)).sum(axis=1) >= colours]
    if len(kept) < LEAST_PIXELS:
        raise ValueError(f"only {len(kept)} of {len(pixels)} sampled pixels are stained")
    return kept


def macenko(pixels: UInt8[np.ndarray, "n 3"]) -> StainMap:
    """Return the map from the stains of these pixels to the reference (Macenko et al. 2009).

    Raises:
        ValueError: Too few pixels are stained, or they have only one stain.
    """
    stains, most = find_stains(stained(pixels, 3))
    change = MACENKO_STAINS @ np.diag(MACENKO_MOST / most) @ np.linalg.pinv(stains)
    dark = np.log(256 / LIGHT)  # density of light without tissue, in the scale of `change_stain`
    return StainMap(np.column_stack([change, dark - change.sum(axis=1) * dark]).astype(np.float32))


def find_stains(pixels: UInt8[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "3 2"], Float[np.ndarray, "2"]]:
    """Return the density of haematoxylin and eosin in red, green and blue, and the 99th percentile of their amounts.

    The stains are the extreme directions, first and 99th percentile, in the plane of most variance.

    Raises:
        ValueError: The pixels have only one stain.
    """
    density = -np.log((pixels + 1.0) / LIGHT)
    plane = np.linalg.eigh(np.cov(density.T))[1][:, 1:]
    along = density @ plane
    ends = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [1, 99])
    if not np.ptp(ends) > np.radians(LEAST_ANGLE):
        raise ValueError("the stained pixels have only one stain")
    stains = plane @ np.array([np.cos(ends), np.sin(ends)])
    stains = stains[:, np.argsort(-stains[0])]  # haematoxylin absorbs more red than eosin
    most = np.percentile(np.linalg.pinv(stains) @ density.T, 99, axis=1)
    if not (most > 0).all():
        raise ValueError("the stained pixels have only one stain")
    return stains, most


def reinhard(pixels: UInt8[np.ndarray, "n 3"]) -> StainMap:
    """Return the map from the mean and deviation of the stained pixels to the reference (Reinhard et al. 2001).

    Raises:
        ValueError: Too few pixels are stained, or they have only one colour.
    """
    pixels = stained(pixels, 1)
    lab = np.log(256) * _LAB.sum(axis=1) - _density(pixels[None], _LMS)[0].astype(float) @ _LAB.T
    mean, std = lab.mean(axis=0), lab.std(axis=0)
    if not (std > 1e-3).all():
        raise ValueError("the stained pixels have only one colour")
    back = np.linalg.inv(_LAB)
    change = back @ np.diag(REINHARD_STD / std) @ _LAB
    shift = back @ (REINHARD_MEAN - mean * REINHARD_STD / std)
    offset = np.log(256) * (1 - change.sum(axis=1)) - shift
    return StainMap(np.column_stack([change, offset]).astype(np.float32), _LMS)


_ESTIMATES = {"macenko": macenko, "reinhard": reinhard}
_KNOWN: dict[tuple[str, str, int, int], StainMap | None] = {}
"""Estimates of this process, by method, path, hash of the attributes, and number of tiles."""
