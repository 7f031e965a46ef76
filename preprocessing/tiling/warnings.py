"""Warnings on slides that were tiled without an error but need a person's check; in the report and in the store."""

from collections.abc import Collection

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.errors import SlideError, few
from preprocessing.slides.sanity import black_share
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.tissue.light import MAX_OTHER, other_stain

FEW_TILES = 10
"""Number of tiles below which a slide gets a warning."""
MOST_NAMED = 100
"""Number of damaged tiles that are listed; further tiles are counted only."""


def review(
    overview: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    n_tiles: int,
    mpp_source: str,
    *,
    bad_tiles: Collection[SlideError] = (),
    unseen: Collection[SlideError] = (),
    blank: int = 0,
) -> list[str]:
    """Return the warnings on a slide, one sentence each; empty if there is no problem.

    Args:
        overview: Overview of the slide, (h, w, 3).
        mask: Mask of the overview, (h, w), with the classes of `preprocessing.store.schema.MASK_CLASSES`.
        n_tiles: Number of tiles in the store.
        mpp_source: Source of the resolution: `manifest`, `metadata`, `objective` or `flag`.
        bad_tiles: Errors of tiles that could not be decoded and were left out.
        unseen: Errors of slide tiles that could not be decoded during tissue detection and were treated as glass.
        blank: Number of tiles of a drawn mask that have no pixels and were left out.
    """
    counts = {name: cv2.countNonZero(cv2.inRange(mask, value, value)) for name, value in MASK_CLASSES.items()}
    shares = {name: count / mask.size for name, count in counts.items()}
    stained = shares["tissue"] + shares["blurred"]
    black = black_share(overview)
    brown, blue = other_stain(overview, mask == MASK_CLASSES["tissue"])
    found = {
        f"only {n_tiles} tiles": n_tiles < FEW_TILES,
        "no glass was found: check the mask": shares["glass"] < 0.02,
        f"{shares['blurred'] / max(stained, 1e-9):.0%} of the tissue is out of focus": shares["blurred"]
        > 0.1 * stained,
        f"pen marks cover {shares['pen']:.1%} of the slide": shares["pen"] > 0.001,
        f"{black:.1%} of the slide is pure black: check that the file is complete": black > 0.01,
        f"{brown:.0%} of the tissue is brown or yellow: another stain than H&E, for example IHC": brown > MAX_OTHER,
        f"{blue:.0%} of the tissue is blue or green: another stain than H&E, for example trichrome": blue > MAX_OTHER,
        "the resolution is from --mpp-if-missing, not from the slide file": mpp_source == "flag",
        "the resolution is nominal, computed from the objective's power": mpp_source == "objective",
        f"{len(bad_tiles)} damaged tiles left out: {_each(bad_tiles)}": len(bad_tiles) > 0,
        f"{blank} tiles of the mask left out, where the slide is pure white": blank > 0,
        f"{len(unseen)} damaged tiles of the slide treated as glass: {_each(unseen)}": len(unseen) > 0,
    }
    return [sentence for sentence, holds in found.items() if holds]


def _each(errors: Collection[SlideError]) -> str:
    return few([error.what for error in errors], MOST_NAMED)
