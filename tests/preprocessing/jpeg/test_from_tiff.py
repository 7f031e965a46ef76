from functools import lru_cache
from pathlib import Path

import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.jpeg.from_tiff import JpegTiff
from preprocessing.slides.slide import read_slide
from preprocessing.tissue.focus import LUMA

APERIO = Path(__file__).parents[3] / ".." / "shared/data/slides/CMU-1-Small-Region.svs"


def write_tiff(path, image, tile=(128, 128), photometric="ycbcr", bigtiff=False, **options):
    """A tiled TIFF whose tiles we compress ourselves, so that their colours are what `photometric` says."""
    colorspace = "YCBCR" if photometric == "ycbcr" else "RGB"
    height, width = image.shape[:2]
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        tiff.write(
            image,
            tile=tile,
            photometric="rgb",
            compression="jpeg",
            compressionargs={"level": 95, "outcolorspace": colorspace},
            resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER",
            **options,
        )
    return path, (width, height)


@pytest.fixture(params=["ycbcr", "rgb"])
def tiff(request, tmp_path, image):
    path, size = write_tiff(tmp_path / "slide.tif", image[:700, :900], photometric=request.param)
    opened = JpegTiff(path, [size])
    yield opened
    opened.close()


def test_a_level_is_read_as_it_was_written(tiff, image):
    pixels = tiff.levels[0].read((0, 0), (900, 700)).astype(int)
    assert np.abs(pixels - image[:700, :900]).mean() < 4


def test_a_fetched_tile_is_a_jpeg_of_its_own_with_the_right_colours(tiff, image):
    (jpeg,) = tiff.levels[0].fetch(np.array([[2, 3]]))
    pixels = simplejpeg.decode_jpeg(b"".join(jpeg), "RGB").astype(int)
    assert np.abs(pixels - image[256:384, 384:512]).mean() < 4


@settings(max_examples=30, deadline=None)
@given(x=st.integers(-200, 1000), y=st.integers(-200, 800), width=st.integers(1, 400), height=st.integers(1, 400))
def test_any_rectangle_is_cut_from_the_level_and_white_outside(tmp_path_factory, image, x, y, width, height):
    path = tmp_path_factory.getbasetemp() / "rectangles.tif"
    if not path.exists():
        write_tiff(path, image[:700, :900])
    opened = JpegTiff(path, [(900, 700)])
    level = opened.levels[0]
    padded = np.full((700 + 1600, 900 + 1600, 3), 255, np.uint8)
    padded[800:1500, 800:1700] = level.read((0, 0), (900, 700))
    region = level.read((x, y), (width, height))
    opened.close()
    np.testing.assert_array_equal(region, padded[800 + y :, 800 + x :][:height, :width])


def test_luma_is_that_of_the_colours_and_white_outside(tiff):
    luma = tiff.levels[0].read((-20, 10), (960, 720), channels=1)
    assert luma.shape == (720, 960, 1)
    expected = tiff.levels[0].read((-20, 10), (960, 720)) @ LUMA
    assert np.abs(luma[..., 0] - expected).mean() < 0.6
    assert luma[:, :20].min() == luma[690:].min() == 255


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_decoding_at_a_scale_is_near_to_averaging(tiff, image, scale):
    small = tiff.levels[0].read((0, 0), (640 // scale, 640 // scale), scale).astype(float)
    averaged = image[:640, :640].reshape(640 // scale, scale, 640 // scale, scale, 3).mean(axis=(1, 3))
    assert np.abs(small - averaged).mean() < 4


def test_a_decoder_that_remembers_gives_the_same_and_is_asked_for_the_same_tiles(tiff):
    level, asked = tiff.levels[0], []

    @lru_cache
    def decode(*tile):
        asked.append(tile)
        return level.decode(*tile)

    for xy in ((0, 0), (64, 0), (64, 64)):
        np.testing.assert_array_equal(level.read(xy, (128, 128), decode=decode), level.read(xy, (128, 128)))
    assert asked == [(0, 0, 1, 3), (0, 1, 1, 3), (1, 0, 1, 3), (1, 1, 1, 3)]


def test_a_tile_that_the_scanner_left_out_is_white(tiff):
    tiff.levels[0].lengths[0, 0] = 0
    assert tiff.levels[0].fetch(np.array([[0, 0]])) == [None]
    assert tiff.levels[0].fetch(np.zeros((0, 2), int)) == []
    assert (tiff.levels[0].decode(0, 0) == 255).all()


def test_tiles_are_fetched_in_the_order_asked_for_and_a_damaged_one_is_an_error_among_them(tmp_path, image):
    path, size = write_tiff(tmp_path / "slide.tif", image[:700, :900])
    opened = JpegTiff(path, [size])
    level, rc = opened.levels[0], np.argwhere(np.ones((6, 8)))[::-1]
    whole = [simplejpeg.decode_jpeg(b"".join(jpeg), "RGB") for jpeg in level.fetch(rc)]
    for (row, column), pixels in zip(rc.tolist(), whole, strict=True):
        inside = min(128, 700 - row * 128), min(128, 900 - column * 128)
        decoded = level.decode(row, column)
        np.testing.assert_array_equal(pixels[: inside[0], : inside[1]], decoded[: inside[0], : inside[1]])
    with path.open("r+b") as file:
        file.seek(int(level.offsets[2, 3] + level.lengths[2, 3] // 2))
        file.write(bytes(int(level.lengths[2, 3] // 2)))
        file.truncate(int(level.offsets[5, 7] + 100))
    level.lengths[1, 1] = 0
    kinds = {(row, column): tile for (row, column), tile in zip(rc.tolist(), level.fetch(rc), strict=True)}
    opened.close()
    assert "damaged" in str(kinds.pop((2, 3)))
    assert "bytes are missing" in str(kinds.pop((5, 7)))
    assert kinds.pop((1, 1)) is None
    assert not any(isinstance(tile, ValueError) for tile in kinds.values())


@pytest.mark.parametrize("name", ["TileByteCounts", "TileOffsets"])
def test_a_tile_that_is_said_to_reach_beyond_the_file_is_not_there_and_no_memory_is_asked_for(tmp_path, image, name):
    path, size = write_tiff(tmp_path / "slide.tif", image[:700, :900], bigtiff=True)
    with tifffile.TiffFile(path) as tiff, path.open("r+b") as file:
        tag = tiff.pages[0].tags[name]
        width = tag.valuebytecount // tag.count
        file.seek(tag.valueoffset + 3 * width)
        file.write((2 ** (8 * width - 1) - 1).to_bytes(width, "little"))
    opened = JpegTiff(path, [size])
    level = opened.levels[0]
    with pytest.raises(ValueError, match="bytes are missing"):
        level.decode(0, 3)
    found, lost = level.fetch(np.array([[0, 2], [0, 3]]))
    opened.close()
    assert isinstance(found, tuple)
    assert "bytes are missing" in str(lost)
    assert level.lengths.max() < path.stat().st_size


def test_strips_other_compressions_and_other_files_have_no_such_levels(tmp_path, image):
    tifffile.imwrite(tmp_path / "strips.tif", image[:256, :256], photometric="rgb", compression="jpeg")
    tifffile.imwrite(tmp_path / "lzw.tif", image[:256, :256], photometric="rgb", compression="lzw", tile=(128, 128))
    (tmp_path / "text.tif").write_text("no slide")
    for name in ("strips.tif", "lzw.tif", "text.tif"):
        opened = JpegTiff(tmp_path / name, [(256, 256)])
        assert opened.levels == {}
        opened.close()


@pytest.mark.skipif(not APERIO.exists(), reason="../shared is not here")
def test_a_real_aperio_slide_with_shared_tables_and_rgb_tiles_reads_as_openslide_reads_it():
    with read_slide(APERIO) as slide, openslide.OpenSlide(APERIO) as other:
        assert slide.jpeg_levels[0].tile == (240, 240)
        for xy in ((0, 0), (701, 1203), (1900, 2700)):
            theirs = np.asarray(other.read_region(xy, 0, (320, 300)))
            inside = theirs[..., 3] == 255
            np.testing.assert_array_equal(slide.read_region(xy, 0, (320, 300))[inside], theirs[..., :3][inside])


@pytest.mark.skipif(not APERIO.exists(), reason="../shared is not here")
def test_a_kept_tile_of_a_real_aperio_slide_decodes_to_the_pixels_of_openslide():
    with read_slide(APERIO) as slide, openslide.OpenSlide(APERIO) as other:
        (jpeg,) = slide.jpeg_levels[0].fetch(np.array([[5, 4]]))
        pixels = simplejpeg.decode_jpeg(b"".join(jpeg), "RGB")
        np.testing.assert_array_equal(pixels, np.asarray(other.read_region((960, 1200), 0, (240, 240)))[..., :3])
