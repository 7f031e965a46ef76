import hashlib

import cv2
import numpy as np
import pytest

from preprocessing.config import TileConfig, TissueConfig
from preprocessing.errors import SlideError
from preprocessing.slides.slide import read_slide
from preprocessing.store.store import open_store, problems
from preprocessing.tiling.manifest import SlideEntry
from preprocessing.tiling.tile_slide import tile_slide
from preprocessing.tissue.detect import find_tissue


@pytest.fixture
def make(svs, tmp_path):
    def make(slide=svs, **settings):
        config = TileConfig(slides=slide, out=tmp_path, **settings)
        tile_slide(SlideEntry("slide", slide), tmp_path / "slide.zarr", config)
        return open_store(tmp_path / "slide.zarr")

    return make


def test_the_store_of_a_slide_is_valid_and_holds_its_tissue(make, image):
    store = make()
    assert problems(store.path) == []
    inside = {(row, column) for row in (1, 2) for column in (1, 2, 3)}
    assert {*map(tuple, store.rc.tolist())} == inside
    assert store.grid_shape == (4, 5)
    assert store.tissue.min() > 0.9
    expected = image[256:512, 256:512]
    tile = store.read_tiles([store.rc.tolist().index([1, 1])])[0]
    assert np.abs(tile.astype(int) - expected).mean() < 6


def test_provenance_is_written_down(make, svs):
    attributes = make(min_tissue=0.3).attributes
    assert attributes["source"] == {
        "name": "slide.svs",
        "more": [],
        "size": svs.stat().st_size,
        "sha256": hashlib.sha256(svs.read_bytes()).hexdigest(),
    }
    assert (attributes["vendor"], attributes["mpp_source"], attributes["mpp_level0"]) == ("aperio", "metadata", 0.5)
    assert attributes["size_l0"] == [1280, 1024]
    assert attributes["config"]["min_tissue"] == 0.3
    assert not {"slides", "out", "workers"} & set(attributes["config"])
    assert attributes["versions"]["zarr"].startswith("3.")
    assert attributes["passthrough"] is True  # cut anew from tiles of 240


def test_tiles_that_were_encoded_are_not_said_to_be_the_slides_own(make):
    assert make(passthrough=False).attributes["passthrough"] is False


def test_a_coarser_store_shows_the_same_place(make, image):
    store = make(mpp=1.0, tile_px=128)
    assert (store.mpp, store.attributes["side_l0"]) == (1.0, [256, 256])
    tile = store.read_tiles([store.rc.tolist().index([1, 1])])[0]
    averaged = image[256:512, 256:512].reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    shifted = {(dy, dx): np.abs(np.roll(tile.astype(float), (dy, dx), (0, 1)) - averaged)[2:-2, 2:-2].mean()
               for dy in (-1, 0, 1) for dx in (-1, 0, 1)}  # fmt: skip
    error = shifted.pop((0, 0))
    assert error < 6  # two generations of JPEG
    assert min(shifted.values()) > 2 * error


def test_the_region_of_the_store_is_the_region_of_the_slide(make, svs):
    region = make().read_region((300, 300), (400, 200))
    with read_slide(svs) as slide:
        assert np.abs(region.astype(int) - slide.read_region((300, 300), 0, (400, 200))).mean() < 4


def test_tiling_twice_gives_the_same_bytes(make):
    def digest(store):
        files = sorted(path for path in store.path.rglob("*") if path.is_file())
        return [(path.relative_to(store.path), path.read_bytes()) for path in files]

    assert digest(make()) == digest(make())


def test_a_slide_without_tissue_fails_and_says_what_was_seen(tmp_path, save_svs, make):
    empty = save_svs(tmp_path / "empty.svs", np.full((512, 512, 3), 243, np.uint8))
    with pytest.raises(SlideError, match=r"no tile is at least 10% tissue; the overview is 100.0% glass"):
        make(empty)
    assert not (tmp_path / "slide.zarr").exists()


def test_tiles_finer_than_the_slide_are_refused(make):
    with pytest.raises(SlideError, match=r"0\.5 micrometres per pixel, too coarse for tiles at 0\.25"):
        make(mpp=0.25)


def test_more_tiles_than_a_store_may_have_are_refused(make, monkeypatch):
    monkeypatch.setattr("preprocessing.tiling.tile_slide.MAX_TILES", 19)
    for settings in ({}, {"canvas": 1280}):
        with pytest.raises(SlideError, match=r"would have [45] x 5 tiles, more than 19"):
            make(**settings)


def test_focus_is_judged_on_the_slide_not_the_overview(tmp_path, image, save_svs):
    soft = image.copy()
    soft[:, 640:] = cv2.GaussianBlur(image, (0, 0), 5)[:, 640:]
    with read_slide(save_svs(tmp_path / "soft.svs", soft)) as slide:
        _, mask = find_tissue(slide, TissueConfig(min_area_um2=5000), "soft")
        _, careless = find_tissue(slide, TissueConfig(reject_blur=False), "soft")
    assert (mask[18:46, 44:60] == 3).mean() > 0.95
    assert (mask[18:46, 18:36] == 1).mean() > 0.95
    assert not (careless == 3).any()
