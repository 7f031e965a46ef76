"""Memory does not grow with the slide: 100,000 x 100,000 pixels with two workers stay under 500 MB.

Of many slides each worker has one of its own, in a process of its own: then a worker takes 325 MB, and the process that
waits for them 110.
"""

import os
from pathlib import Path

import pytest

from preprocessing.tile import MANY

TILE_OURS = Path(__file__).parent / "tile_ours.py"
LIMIT_MB = 500
LIMIT_OF_MANY_MB = 850
NUMBA_MB = 125
"""Memory of a process after loading Numba, to re-tile."""
SLIDES = {1: "one slide", 2: "two slides in turn"}


@pytest.fixture(scope="module")
def huge(make_huge):
    slide = make_huge(100_000)
    yield slide
    slide.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mpp", "side", "tiles"),
    [(0.5, 256, 10_000), (0.25, 256, 40_000), (0.25, 224, 50_000)],
    ids=["shrunk", "bytes kept", "re-tiled"],
)
@pytest.mark.parametrize("slides", SLIDES, ids=SLIDES.values())
def test_a_huge_slide_is_tiled_in_little_memory(huge, tmp_path, measured, slides, mpp, side, tiles):
    folder = tmp_path / "slides"
    folder.mkdir()
    for i in range(slides):
        os.link(huge, folder / f"slide-{i}.svs")
    options = ["--mpp", str(mpp), "--tile-px", str(side), "--workers", "2"]
    result = measured(TILE_OURS, folder, tmp_path / "stores", *options)
    assert result["tiles"] > tiles * slides
    assert result["passthrough"] is (mpp == 0.25)
    anew_in_turn = slides > 1 and side != 256  # by a process of their own, while another waits
    assert 0 < result["peak_mb"] < LIMIT_MB + NUMBA_MB * anew_in_turn


@pytest.mark.slow
def test_of_many_huge_slides_two_at_a_time_take_no_more_than_two(huge, tmp_path, measured):
    (tmp_path / "slides").mkdir()
    for i in range(MANY * 2):
        os.link(huge, tmp_path / "slides" / f"slide-{i:02d}.svs")
    result = measured(TILE_OURS, tmp_path / "slides", tmp_path / "stores", "--mpp", "2.0", "--workers", "2")
    assert result["tiles"] > 500 * MANY * 2
    assert 0 < result["peak_mb"] < LIMIT_OF_MANY_MB
