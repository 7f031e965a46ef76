"""Both sides of the reading benchmark read the same tissue, and so the same work is timed."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing import TileConfig, open_store, tile_slides
from preprocessing.synthetic.cohort import save_svs

SOURCE = Path(__file__).with_name("read_tiles.py")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("read_tiles", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Violet patches on pink, all of it tissue, at 0.25 micrometres per pixel."""
    rng = np.random.default_rng(0)
    nuclei = cv2.GaussianBlur(rng.random((2048, 2048)).astype(np.float32), (0, 0), 4)
    image = np.where((nuclei > 0.51)[..., None], (110, 60, 140), (222, 150, 190)) + rng.normal(0, 5, (2048, 2048, 1))
    path = tmp_path_factory.mktemp("slides") / "slide.svs"
    save_svs(path, image.clip(0, 255).astype(np.uint8), 0.25)
    return path


@pytest.mark.parametrize("mpp", [0.25, 0.5], ids=["as the slide", "half as fine"])
def test_store_and_slide_give_the_same_tiles(benchmark, slide, tmp_path, mpp):
    tile_slides(TileConfig(slides=slide, out=tmp_path, mpp=mpp, tile_px=256, workers=1))
    store = open_store(tmp_path / "slide.zarr")
    ours, theirs = (
        read(rows).astype(int)
        for read, rows in (benchmark.reader(side, store, slide) for side in ("store", "openslide"))
    )
    assert ours.shape == theirs.shape == (len(store), 256, 256, 3)
    assert np.abs(ours - theirs).mean() < 6
    assert np.abs(ours[1:] - theirs[:-1]).mean() > 12  # another tile is told apart


def test_the_command_counts_the_tiles_of_every_process(measured, slide, tmp_path):
    tile_slides(TileConfig(slides=slide, out=tmp_path, mpp=0.5, tile_px=256, workers=1))
    store = tmp_path / "slide.zarr"
    for side in ("store", "openslide", "decoder"):
        result = measured(SOURCE, side, store, slide, "--workers", "2", "--batch", "3")
        assert result["tiles"] == len(open_store(store))
