import numpy as np
import pytest
import tifffile

from preprocessing.backends import OpenSlideBackend, TiffBackend, on_white, open_backend
from preprocessing.errors import SlideError


@pytest.fixture
def save_tiff(tmp_path):
    def save(image, **options):
        tifffile.imwrite(tmp_path / "plain.tif", image, **{"photometric": "rgb", "metadata": None} | options)
        return tmp_path / "plain.tif"

    return save


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def test_an_aperio_slide_opens_with_openslide(svs):
    backend = open_backend(svs)
    assert isinstance(backend, OpenSlideBackend)
    assert (backend.vendor, backend.level_sizes) == ("aperio", [(1280, 1024), (320, 256)])
    assert backend.stated_mpp == (0.5, 0.5)
    backend.close()


def test_a_tiff_in_strips_opens_with_tifffile_and_reads_any_region(save_tiff, picture):
    backend = open_backend(save_tiff(picture, resolution=(20000, 20000), resolutionunit="CENTIMETER"))
    assert isinstance(backend, TiffBackend)
    assert backend.stated_mpp == pytest.approx((0.5, 0.5))
    np.testing.assert_array_equal(backend.read((10, 20), 0, (30, 25)), picture[20:45, 10:40])
    around = backend.read((-5, 40), 0, (100, 20))
    np.testing.assert_array_equal(around[:10, 5:75], picture[40:])
    assert around[:, :5].min() == around[10:].min() == around[:, 75:].min() == 255
    backend.close()


def test_resolution_without_a_unit_is_not_a_resolution(save_tiff, picture):
    backend = open_backend(save_tiff(picture, resolution=(300, 300), resolutionunit="NONE"))
    assert backend.stated_mpp is None
    backend.close()


def test_transparent_is_white_in_both_libraries(save_tiff, picture, svs):
    rgba = np.dstack([picture, np.zeros((50, 70), np.uint8)])
    backend = open_backend(save_tiff(rgba, extrasamples="unassalpha"))
    assert backend.read((0, 0), 0, (70, 50)).min() == 255
    backend.close()
    outside = open_backend(svs)
    assert outside.read((5000, 5000), 0, (10, 10)).min() == 255
    outside.close()


def test_half_transparent_is_half_way_to_white():
    pixel = np.array([[[100, 0, 255, 128]]], np.uint8)
    np.testing.assert_allclose(on_white(pixel)[0, 0], [177, 127, 255], atol=1)


@pytest.mark.parametrize(
    ("image", "options", "sentence"),
    [
        (np.zeros((50, 70, 3), np.uint16), {}, "not 8-bit RGB but uint16 RGB"),
        (np.zeros((50, 70), np.uint8), {"photometric": "minisblack"}, "not 8-bit RGB but uint8 MINISBLACK"),
        (np.zeros((50, 70, 4), np.uint8), {"photometric": "separated"}, "not 8-bit RGB but uint8 SEPARATED"),
        (np.zeros((3, 50, 70), np.uint8), {"planarconfig": "separate"}, "axes SYX"),
    ],
)
def test_other_pixels_are_refused_by_name(save_tiff, image, options, sentence):
    with pytest.raises(SlideError, match=sentence):
        open_backend(save_tiff(image, **options))


def test_a_file_that_no_library_reads_gives_both_reasons(tmp_path):
    path = tmp_path / "text.svs"
    path.write_text("not a slide")
    with pytest.raises(SlideError, match=r"OpenSlide: .+; tifffile: .+"):
        open_backend(path)


def test_missing_and_empty_files_are_told_apart(tmp_path):
    with pytest.raises(SlideError, match="no such file"):
        open_backend(tmp_path / "none.svs")
    (tmp_path / "empty.svs").write_bytes(b"")
    with pytest.raises(SlideError, match="the file is empty"):
        open_backend(tmp_path / "empty.svs")
