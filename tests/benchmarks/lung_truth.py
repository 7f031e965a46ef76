"""Where the tumour lies in the slides of `make_lung_cohort.py`: draw them again, and write masks in place of slides.

python tests/benchmarks/lung_truth.py make_lung_cohort.py OUT --tiles FOLDER --patients 60 --seed 0

What follows OUT are the arguments that the cohort was made with. Writes `<slide_id>.png` into OUT, 255 where the tissue
is of tumour tiles and 0 elsewhere, a pixel for 8 x 8 of level 0, and the cohort's tables, to compare with the cohort's.
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
    """The command line."""
    script, out, *arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("make_lung_cohort", script)
    lung = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lung)
    lung.save_svs = save_mask
    lung.compose = composer(lung)
    sys.argv = [script, "--out", out, *arguments]
    lung.main()


def composer(lung: ModuleType) -> Callable[..., np.ndarray]:
    """`compose` of red tumour and blue lung, on glass that is both: the same random numbers, another slide."""
    compose = lung.compose
    red, blue = (np.full((lung.TILE, lung.TILE, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))

    def masked(rng: np.random.Generator, tumour: list, normal: list, grid: int, fraction: float) -> np.ndarray:
        drawn = compose(rng, [red] * len(tumour), [blue] * len(normal), grid, fraction)[::STEP, ::STEP]
        return np.where((drawn[..., 0] > 128) & (drawn[..., 2] < 128), 255, 0).astype(np.uint8)

    return masked


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write the mask where the slide would be written, a folder higher."""
    cv2.imwrite(str(path.parents[1] / f"{path.stem}.png"), mask)


if __name__ == "__main__":
    main()
