"""Masks of the tumour in the slides of `make_lung_cohort.py`: draw the slides again, and write masks instead.

python tests/benchmarks/lung_truth.py make_lung_cohort.py OUT --tiles FOLDER --patients 60 --seed 0

After OUT are the arguments with which the cohort was made. OUT receives `<slide_id>.png`, 255 in tumour tiles and 0
elsewhere, with a pixel for 8 x 8 pixels of level 0. It also receives the cohort's tables, for comparison.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

STEP = 8


def main() -> None:
    """Run the command line."""
    script, out, *arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("make_lung_cohort", script)
    lung = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lung)
    lung.save_svs = save_mask
    lung.compose = composer(lung)
    sys.argv = [script, "--out", out, *arguments]
    lung.main()


def composer(lung: ModuleType) -> Callable[..., np.ndarray]:
    """Return a `compose` that draws red tumour and blue lung on white glass, with the cohort's random numbers."""
    compose = lung.compose
    red, blue = (np.full((lung.TILE, lung.TILE, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))

    def masked(rng: np.random.Generator, tumour: list, normal: list, grid: int, fraction: float) -> np.ndarray:
        drawn = compose(rng, [red] * len(tumour), [blue] * len(normal), grid, fraction)[::STEP, ::STEP]
        return np.where((drawn[..., 0] > 128) & (drawn[..., 2] < 128), 255, 0).astype(np.uint8)

    return masked


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write the mask in place of the slide, one folder higher."""
    cv2.imwrite(str(path.parents[1] / f"{path.stem}.png"), mask)


if __name__ == "__main__":
    main()
