"""Memory does not grow with the slide: 100,000 x 100,000 pixels with two workers stay under 500 MB."""

import os
from pathlib import Path

import pytest

TILE_OURS = Path(__file__).parent / "tile_ours.py"
LIMIT_MB = 500
SLIDES = {1: "one slide for both workers", 2: "a slide for each worker"}


@pytest.fixture(scope="module")
def huge(make_huge):
    slide = make_huge(100_000)
    yield slide
    slide.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(("mpp", "tiles"), [(0.5, 10_000), (0.25, 40_000)], ids=["shrunk", "bytes kept"])
@pytest.mark.parametrize("slides", SLIDES, ids=SLIDES.values())
def test_a_huge_slide_is_tiled_in_little_memory(huge, tmp_path, measured, slides, mpp, tiles):
    folder = tmp_path / "slides"
    folder.mkdir()
    for i in range(slides):
        os.link(huge, folder / f"slide-{i}.svs")
    result = measured(TILE_OURS, folder, tmp_path / "stores", "--mpp", str(mpp), "--workers", "2")
    assert result["tiles"] > tiles * slides
    assert result["passthrough"] is (mpp == 0.25)
    assert 0 < result["peak_mb"] < LIMIT_MB
