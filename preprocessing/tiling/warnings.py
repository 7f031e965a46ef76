"""What a person should look at in a slide that was tiled without an error; said in its report and kept in its store."""

from collections.abc import Collection

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError, few
from preprocessing.slides.sanity import black_share
from preprocessing.store.schema import MASK_CLASSES

FEW_TILES = 10
"""Fewer tiles than this are worth a look."""
MOST_NAMED = 100
"""Damaged tiles that are named; the others are counted."""


def review(
    overview: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    n_tiles: int,
    mpp_source: str,
    bad_tiles: Collection[SlideError] = (),
    unseen: Collection[SlideError] = (),
) -> list[str]:
    """Sentences about a slide; none if all is well.

    Args:
        overview: The whole slide, small (h, w, 3).
        mask: Its classes (h, w), see `preprocessing.store.schema.MASK_CLASSES`.
        n_tiles: Tiles in the store.
        mpp_source: Who stated the resolution.
        bad_tiles: Why tiles were left out that could not be decoded.
        unseen: Why tiles of the slide could not be decoded when tissue was looked for, and were taken for glass.
    """
    counts = {name: cv2.countNonZero(cv2.inRange(mask, value, value)) for name, value in MASK_CLASSES.items()}
    shares = {name: count / mask.size for name, count in counts.items()}
    stained = shares["tissue"] + shares["blurred"]
    black = black_share(overview)
    found = {
        f"only {n_tiles} tiles": n_tiles < FEW_TILES,
        "no glass found: is the mask right?": shares["glass"] < 0.02,
        f"{shares['blurred'] / max(stained, 1e-9):.0%} of the tissue is out of focus": shares["blurred"]
        > 0.1 * stained,
        f"pen marks cover {shares['pen']:.1%} of the slide": shares["pen"] > 0.001,
        f"{black:.1%} of the slide is pure black: is the file whole?": black > 0.01,
        "its resolution is not the slide's own word": mpp_source == "flag",
        "its resolution is nominal, that of its objective": mpp_source == "objective",
        f"{len(bad_tiles)} damaged tiles left out: {_each(bad_tiles)}": len(bad_tiles) > 0,
        f"{len(unseen)} damaged tiles of the slide taken for glass: {_each(unseen)}": len(unseen) > 0,
    }
    return [sentence for sentence, holds in found.items() if holds]


def _each(errors: Collection[SlideError]) -> str:
    return few([error.what for error in errors], MOST_NAMED, "; ")
