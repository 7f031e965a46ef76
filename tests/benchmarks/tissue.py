"""Detection of tissue tiles compared with the truth that `make_slide.py` writes; writes the table `tissue.md`.

    python tests/benchmarks/tissue.py slide20.svs slide40.svs CMU-1-Small-Region.svs

Tiles of 128 um (256 pixels at 0.5 um), chosen with the default settings. A cell of the truth (32 level-0 pixels) is
pen if `pen` exceeds 0.5, blurred if `blur` exceeds 0.5, tissue if `field` exceeds 0. Good tissue is neither pen nor
blurred. A tile is true if at least 10 % of it is good tissue.

    recall          share of true tiles that were chosen
    precision       share of chosen tiles that are true
    clear           the same without tiles that have 5 to 15 % of good tissue
    pen, blur       share left out of the tiles that are not true and are more than half pen, or blurred tissue
    any             the same with tiles that are also true, because of tissue in their other half
    called blurred  share of the found tissue that was classified as blurred; for sharp slides without a truth
    CPU             seconds of one thread for overview, tissue, pen and focus
    reading         part of these seconds for reading and decoding
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocessing.config import TissueConfig
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.store.schema import MASK_CLASSES
from preprocessing.tiling.grid import select_tiles
from preprocessing.tissue.detect import find_tissue

TILE_UM, MIN_TISSUE = 128.0, 0.1
COLUMNS = ("slide", "true tiles", "recall", "clear", "precision", "clear", "pen", "any", "blur", "any")
COLUMNS += ("called blurred", "CPU", "reading")


def main() -> None:
    """Measure every slide, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(measure, arguments.slides)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    command = shlex.join(["python", "tests/benchmarks/tissue.py", *(path.name for path in arguments.slides)])
    made = (
        f"{date.today().isoformat()}, {os.cpu_count()} cores of {platform.machine()}, "
        f"Python {platform.python_version()}, OpenCV {cv2.__version__}"
    )
    explained = (__doc__ or "").split("\n\n", 2)[2]
    arguments.out.write_text(f"# Tissue\n\n{made}\nCommand: `{command}`\n\n{table}\n\n{explained}", encoding="utf-8")
    print(table)


def measure(path: Path) -> tuple[str, ...]:
    """Return the row of a slide."""
    with read_slide(path) as slide:
        find_tissue(slide, TissueConfig(), path.stem)  # brings the file into memory before it is timed
        reading = timed_reads(slide)
        start = time.process_time()
        _, mask = find_tissue(slide, TissueConfig(), path.stem)
        seconds = time.process_time() - start
        side_l0 = round(TILE_UM / slide.mpp_l0)
        truth = Path(f"{path}.truth.npz")
        counts = ("",) * 9
        if truth.exists():
            counts = compare(mask, slide.size_l0, side_l0, dict(np.load(truth)))
    tissue, blurred = ((mask == MASK_CLASSES[name]).sum() for name in ("tissue", "blurred"))
    called = "" if truth.exists() else f"{blurred / max(1, tissue + blurred):.2%}"
    return (path.stem, *counts, called, f"{seconds:.3f}", f"{reading[0]:.3f}")


def timed_reads(slide: Slide) -> list[float]:
    """Make a slide sum the CPU seconds of its reads, in the single number of the returned list."""
    spent = [0.0]

    def timed(read: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **settings: Any) -> Any:
            start = time.process_time()
            result = read(*arguments, **settings)
            spent[0] += time.process_time() - start
            return result

        return wrapper

    slide.read_scaled, slide.read_sampled = timed(slide.read_scaled), timed(slide.read_sampled)
    return spent


def compare(mask: np.ndarray, size_l0: tuple[int, int], side_l0: int, truth: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Return the shares of a row, in the order of the columns."""
    pen, blur, tissue = truth["pen"] > 0.5, truth["blur"] > 0.5, truth["field"] > 0
    cell_l0 = int(truth["S"])
    good, pen, blurred = (
        shares(cells, cell_l0, size_l0, side_l0) for cells in (tissue & ~pen & ~blur, pen, tissue & blur & ~pen)
    )
    grid = select_tiles(mask, size_l0, (side_l0, side_l0), MIN_TISSUE)
    chosen = np.zeros(grid.shape, bool)
    chosen[grid.rc[:, 0], grid.rc[:, 1]] = True
    chosen = chosen[: good.shape[0], : good.shape[1]]
    true, clear = good >= MIN_TISSUE, (good < 0.05) | (good > 0.15)
    found = [f"{share(chosen, among):.4f}" for among in (true, true & clear)]
    found += [f"{share(true, among):.4f}" for among in (chosen, chosen & clear)]
    for wrong in (pen > 0.5, blurred > 0.5):
        found += [
            f"{share(~chosen, among):.3f} of {among.sum()}" if among.any() else "none"
            for among in (wrong & ~true, wrong)
        ]
    return (str(true.sum()), *found)


def shares(cells: np.ndarray, cell_l0: int, size_l0: tuple[int, int], side_l0: int) -> np.ndarray:
    """Return the share of every whole tile (rows, columns) that the cells cover; tiles consist of whole cells."""
    columns, rows = (side // side_l0 for side in size_l0)
    per_tile = side_l0 // cell_l0
    cells = cells[: rows * per_tile, : columns * per_tile].astype(np.float64)
    return cells.reshape(rows, per_tile, columns, per_tile).mean(axis=(1, 3))


def share(event: np.ndarray, among: np.ndarray) -> float:
    """Return the share of the tiles `among` that are in `event`."""
    return float(event[among].mean())


if __name__ == "__main__":
    sys.exit(main())
