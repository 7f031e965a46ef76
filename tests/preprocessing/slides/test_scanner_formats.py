"""Law: slides in scanners' formats show the picture that they were made from, and real ones what two libraries show."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from preprocessing.errors import SlideError
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.slide import read_slide

SLIDES = Path(__file__).parents[3] / ".." / "shared" / "data" / "slides"
needs_slides = pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")
HEAD = "Aperio Image Library\n{w}x{h} [0,0 {w}x{h}] (128x128) J2K Q=70|AppMag = 20|MPP = {mpp}"
JP2000_YCBCR, JP2000_RGB = 33003, 33005


@pytest.fixture(scope="module")
def picture(image):
    return image[200:712, 200:968]


@pytest.fixture
def aperio(tmp_path, picture):
    """A function: an Aperio slide of one level."""

    def write(pixels=picture, mpp="0.5", **options):
        head = HEAD.format(w=picture.shape[1], h=picture.shape[0], mpp=mpp)
        settings = {"photometric": "rgb", "tile": (128, 128), "metadata": None, "description": head} | options
        tifffile.imwrite(tmp_path / "slide.svs", pixels, **settings)
        return tmp_path / "slide.svs"

    return write


def difference(path, picture):
    with read_slide(path) as slide:
        assert slide.vendor == "aperio"
        return np.abs(slide.read_region((0, 0), 0, slide.size_l0).astype(int) - picture).mean()


@pytest.mark.parametrize("colours", ["rgb", "ycbcr"])
def test_aperio_in_jpeg(aperio, picture, colours):
    path = aperio(compression="jpeg", compressionargs={"level": 95, "outcolorspace": colours})
    assert difference(path, picture) < 6


def test_aperio_in_jpeg_2000_of_rgb(aperio, picture):
    assert difference(aperio(compression=JP2000_RGB), picture) == 0


def test_aperio_in_jpeg_2000_of_ycbcr(aperio, picture):
    ycrcb = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    path = aperio(ycrcb[..., [0, 2, 1]], compression=JP2000_YCBCR, compressionargs={"level": 0, "mct": False})
    assert difference(path, picture) < 1.5


@pytest.mark.parametrize("mpp", ["0", "1000", "-0.5"])
def test_an_absurd_word_of_aperio_is_refused_though_the_flag_says_more(aperio, mpp):
    with pytest.raises(SlideError, match=f"the slide states {mpp} x {mpp}"):
        read_slide(aperio(mpp=mpp, compression="jpeg"), mpp_if_missing=0.5)


@pytest.mark.parametrize("mpp", ["abc", "nan", ""])
def test_a_word_of_aperio_that_is_no_number_is_none(aperio, mpp):
    with pytest.raises(SlideError, match="only an objective of 20x"):
        read_slide(aperio(mpp=mpp, compression="jpeg"))


def test_a_bad_tile_spoils_no_other_read(aperio, picture):
    """OpenSlide's handle gives nothing but the first error ever after; a new one is taken."""
    path = aperio(compression=JP2000_RGB)
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[8], tiff.pages[0].databytecounts[8]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes(length)
    path.write_bytes(data)
    places = [(x, y) for y in range(0, 512, 128) for x in range(0, 768, 128)]

    def read(place):
        try:
            return slide.read_region(place, 0, (128, 128))
        except SlideError as error:
            return error

    with read_slide(path) as slide:
        for apply in (map, ThreadPoolExecutor(4).map):
            for (x, y), tile in zip(places, apply(read, places), strict=True):
                if (x, y) == (2 * 128, 128):
                    assert "cannot decode level 0 at x=256, y=128" in str(tile)
                else:
                    np.testing.assert_array_equal(tile, picture[y : y + 128, x : x + 128])


@needs_slides
def test_a_real_aperio_slide_decodes_alike_in_two_libraries():
    path = SLIDES / "CMU-1-Small-Region.svs"
    backend = OpenSlideBackend(path)
    assert (backend.stated_mpp, backend.objective_power, backend.decoded_pixels) == ((0.499, 0.499), 20, 240 * 240)
    other = tifffile.imread(path, series=0)
    with read_slide(path) as slide:
        for x, y in ((0, 0), (333, 777), (1000, 2000)):
            region = slide.read_region((x, y), 0, (500, 400))
            np.testing.assert_allclose(region.astype(int), backend.read((x, y), 0, (500, 400)), atol=3)
            np.testing.assert_allclose(region.astype(int), other[y : y + 400, x : x + 500], atol=3)
    backend.close()


@needs_slides
@pytest.mark.parametrize("name", ["google.tif", "kidney-48-5.tif"])
def test_real_pictures_without_a_pyramid_are_read_as_they_are(name):
    expected = tifffile.imread(SLIDES / name)
    with read_slide(SLIDES / name, mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.size_l0), expected)


@needs_slides
def test_a_real_generic_pyramid_has_all_its_levels():
    with read_slide(SLIDES / "boxes.tiff", mpp=0.5) as slide:
        assert slide.level_sizes == [(300, 250), (150, 125), (75, 62), (37, 31)]
        for number, size in enumerate(slide.level_sizes):
            ours = slide.read_region((0, 0), number, size)
            np.testing.assert_array_equal(ours, OpenSlideBackend(SLIDES / "boxes.tiff").read((0, 0), number, size))
