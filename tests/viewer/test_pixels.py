import numpy as np
import pytest

from longvit.viewer.pixels import OverviewPixels, SlidePixels, StorePixels, open_pixels
from preprocessing.store.schema import Source
from preprocessing.synthetic.cohort import save_svs
from preprocessing.tiling.manifest import SlideEntry

OVERVIEW = 240
SIDE_L0, TILE = 128, 64


def l0(*edges: float) -> tuple[float, ...]:
    return tuple(map(float, edges))


@pytest.fixture
def store(save_store):
    return save_store("slide", [[0, 0], [1, 1], [1, 2], [3, 4]])


def test_the_store_gives_its_own_pixels_where_it_has_tiles(store):
    pixels = StorePixels(store)
    assert pixels.size == (5 * TILE, 4 * TILE)
    read = pixels.read(l0(1 * SIDE_L0, 1 * SIDE_L0, 2 * SIDE_L0, SIDE_L0), (2 * TILE, TILE))
    np.testing.assert_array_equal(read, np.concatenate(list(store.read_tiles([1, 2])), axis=1))


def test_what_has_no_tile_comes_from_the_overview(store):
    read = StorePixels(store).read(l0(0, 0, 2 * SIDE_L0, 2 * SIDE_L0), (2 * TILE, 2 * TILE))
    np.testing.assert_array_equal(read[:TILE, :TILE], store.read_tiles([0])[0])
    assert (read[:TILE, TILE:] == OVERVIEW).all()
    assert (read[TILE:, :TILE] == OVERVIEW).all()


def test_what_is_coarse_comes_from_the_overview(store):
    assert (StorePixels(store).read(l0(0, 0, 640, 512), (40, 32)) == OVERVIEW).all()
    finer = StorePixels(store).read(l0(0, 0, 640, 512), (80, 64))
    assert (finer[:16, :16] != OVERVIEW).any()


def test_smaller_pictures_are_averages(store):
    small = StorePixels(store).read(l0(SIDE_L0, SIDE_L0, SIDE_L0, SIDE_L0), (TILE // 4, TILE // 4))
    assert np.abs(small.mean((0, 1)) - store.read_tiles([1])[0].mean((0, 1))).max() < 2


@pytest.mark.parametrize("kind", [OverviewPixels, StorePixels])
def test_a_picture_may_reach_past_the_edge_by_less_than_a_pixel(store, kind):
    assert kind(store).read(l0(639, 511, 1.5, 1.5), (1, 1)).shape == (1, 1, 3)


@pytest.fixture
def slide(save_store, tmp_path):
    """A store with the slide file that it says it was made from."""
    image = np.full((512, 640, 3), (180, 120, 160), np.uint8)
    image[200:300, 300:400] = (90, 40, 120)
    path = tmp_path / "slide.svs"
    save_svs(path, image, 0.25)
    source = Source(name="slide.svs", size=path.stat().st_size, sha256="")
    return save_store("with_slide", [[0, 0]], source=source), path


def test_the_slide_file_is_read_where_it_is_at_hand(slide):
    store, path = slide
    pixels = open_pixels(store, {"with_slide": SlideEntry("with_slide", path)})
    assert isinstance(pixels, SlidePixels)
    assert pixels.size == (640, 512)
    assert pixels.origin.startswith("the slide file, 0.")
    dark = pixels.read(l0(310, 210, 80, 80), (80, 80)).mean((0, 1))
    assert np.abs(dark - (90, 40, 120)).max() < 5


def test_without_slides_the_store_is_read(slide):
    pixels = open_pixels(slide[0], {})
    assert isinstance(pixels, StorePixels)
    assert "(" not in pixels.origin


def test_another_file_of_the_same_name_is_not_taken_for_the_slide(slide):
    store, path = slide
    path.write_bytes(path.read_bytes() + b"\0")
    pixels = open_pixels(store, {"with_slide": SlideEntry("with_slide", path)})
    assert isinstance(pixels, StorePixels)
    assert "not the file that was tiled" in pixels.origin


def test_a_slide_file_that_cannot_be_read_leaves_the_store_and_says_why(slide, capsys):
    store, path = slide
    path.write_bytes(b"\0" * path.stat().st_size)
    pixels = open_pixels(store, {"with_slide": SlideEntry("with_slide", path)})
    assert isinstance(pixels, StorePixels)
    assert "(the slide file cannot be read)" in pixels.origin
    assert str(path) in capsys.readouterr().err
