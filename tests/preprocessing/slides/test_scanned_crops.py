"""Law: a scanner's JPEG tiles show the same pixels and become the same store, whatever file they are in.

The three crops are committed (`tests/data/slides/SOURCE.md`), so that every clone reads pixels of a scanner.
"""

from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from preprocessing import TileConfig, open_store, problems, tile_slides
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.slide import read_slide
from preprocessing.slides.tiff import TiffBackend

CROPS = Path(__file__).parents[2] / "data" / "slides"
WHOLE = Path(__file__).parents[3] / ".." / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
NAMES = ["aperio.svs", "generic.tif", "dicom.dcm"]
SIDE, WIDTH, HEIGHT = 240, 920, 900
FIRST = np.array([0, 2])
"""Row and column of the whole slide's tile at which the crop begins."""
PLACES = np.argwhere(np.ones((4, 4)))
"""Row and column of every tile of the scanner."""


def read_jpegs(path: Path, places: np.ndarray) -> tuple[list[bytes], bytes]:
    """Return tiles of a TIFF as its bytes, and the tables that they share, by tifffile alone."""
    with tifffile.TiffFile(path) as file:
        page, data = file.pages[0], path.read_bytes()
        indices = [row * page.chunked[1] + column for row, column in places]
        starts, lengths = page.dataoffsets, page.databytecounts
        return [data[starts[i] : starts[i] + lengths[i]] for i in indices], page.jpegtables


@pytest.fixture(scope="module")
def jpegs() -> tuple[list[bytes], bytes]:
    return read_jpegs(CROPS / "aperio.svs", PLACES)


@pytest.fixture(scope="module")
def picture(jpegs) -> np.ndarray:
    """The crop, decoded tile by tile without any reader of slides."""
    tiles, tables = jpegs
    picture = np.empty((4 * SIDE, 4 * SIDE, 3), np.uint8)
    for (row, column), tile in zip(PLACES, tiles, strict=True):
        pixels = imagecodecs.jpeg8_decode(tile, tables=tables, colorspace="RGB", outcolorspace="RGB")
        picture[row * SIDE :, column * SIDE :][:SIDE, :SIDE] = pixels
    return picture[:HEIGHT, :WIDTH]


@pytest.mark.parametrize(
    ("name", "backend", "vendor"),
    [
        ("aperio.svs", OpenSlideBackend, "aperio"),
        ("generic.tif", TiffBackend, "generic-tiff"),
        ("dicom.dcm", OpenSlideBackend, "dicom"),
    ],
)
def test_a_crop_opens_with_its_backend_at_the_resolution_that_it_states(name, backend, vendor):
    with read_slide(CROPS / name) as slide:
        assert type(slide._backend) is backend
        assert (slide.vendor, slide.size_l0, slide.mpp_source) == (vendor, (WIDTH, HEIGHT), "metadata")
        assert slide.mpp_l0 == pytest.approx(0.499, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_into_a_crop_show_the_scanner_s_pixels_and_white_beyond_its_edge(name, picture):
    assert picture.std() > 20
    with read_slide(CROPS / name) as slide:
        assert list(slide.jpeg_levels) == [0]
        for read in (slide.read_region, slide._backend.read):
            region = read((0, 0), 0, (4 * SIDE, 4 * SIDE))
            np.testing.assert_array_equal(region[:HEIGHT, :WIDTH], picture)
            assert (region[HEIGHT:] == 255).all()
            assert (region[:, WIDTH:] == 255).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_fetched_tile_ends_in_the_scanner_s_bytes(name, jpegs):
    tiles, tables = jpegs
    with read_slide(CROPS / name) as slide:
        for fetched, tile in zip(slide.jpeg_levels[0].fetch(PLACES), tiles, strict=True):
            whole = b"".join(fetched)
            assert whole.rstrip(b"\0").endswith(tile[2:])  # without the start of image; DICOM pads to even lengths
            assert tables[2:-2] in whole


def test_the_three_crops_become_one_store_whose_whole_tiles_lose_nothing(tmp_path, picture):
    stores = []
    for name in NAMES:
        report = tile_slides(TileConfig(slides=CROPS / name, out=tmp_path, workers=1))
        assert [(row.status, row.reason) for row in report.rows] == [("done", "")]
        path = (tmp_path / name).with_suffix(".zarr")
        assert problems(path) == []
        stores.append(open_store(path))
    store = stores[0]
    whole = (store.rc < 3).all(axis=1)
    assert 4 <= whole.sum() < len(store) < 16  # most of the crop is glass; tiles over its edge are encoded again
    for (row, column), tile, kept in zip(store.rc.tolist(), store.read_tiles(range(len(store))), whole, strict=True):
        inside = picture[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256].astype(int)
        difference = np.abs(tile[: inside.shape[0], : inside.shape[1]] - inside)
        assert difference.max() == 0 if kept else difference.mean() < 6
    for other in stores:
        assert (other.mpp, other.attributes["passthrough"]) == (0.499, True)
        np.testing.assert_array_equal(other.rc, store.rc)
        np.testing.assert_array_equal(other.read_tiles(range(len(store))), store.read_tiles(range(len(store))))


@pytest.mark.skipif(not WHOLE.exists(), reason="the whole slide is not beside this checkout (../shared/data/slides)")
def test_the_crops_hold_the_tiles_of_the_whole_slide(jpegs, picture):
    assert read_jpegs(WHOLE, PLACES + FIRST) == jpegs
    assert read_jpegs(CROPS / "generic.tif", PLACES) == jpegs
    with openslide.OpenSlide(WHOLE) as whole:
        region = np.asarray(whole.read_region((FIRST[1] * SIDE, 0), 0, (WIDTH, HEIGHT)))
    np.testing.assert_array_equal(region[..., :3], picture)
