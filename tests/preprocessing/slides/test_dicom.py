import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from preprocessing.errors import SlideError
from preprocessing.slides.dicom import series_uid, slide_file
from preprocessing.slides.slide import read_slide

SLIDES = Path(__file__).parents[3] / ".." / "shared" / "data" / "slides"
OTHER_SERIES = "multi_frame_jpeg_camelyon_challenge_image.dcm"
pytestmark = pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")


@pytest.fixture
def folder(tmp_path):
    """A function: a folder with copies of the named shared files and a file that is no image."""

    def make(*names):
        (tmp_path / "slide").mkdir()
        for name in names:
            shutil.copy(SLIDES / name, tmp_path / "slide" / name)
        (tmp_path / "slide" / "readme.txt").write_text("DICOM export")
        return tmp_path / "slide"

    return make


def test_a_folder_with_one_series_is_one_slide(folder):
    path = folder("boxes_1.dcm", "boxes_0.dcm")
    assert slide_file(path) == path / "boxes_0.dcm"
    with read_slide(path) as slide, read_slide(SLIDES / "boxes_0.dcm") as alone:
        assert slide.path == path / "boxes_0.dcm"
        assert (slide.vendor, slide.mpp_source) == ("dicom", "metadata")
        assert slide.mpp_l0 == pytest.approx(0.499)
        pixels = slide.read_region((0, 0), 0, slide.size_l0)
        np.testing.assert_array_equal(pixels, alone.read_region((0, 0), 0, alone.size_l0))
        assert pixels.shape == (16, 16, 3)


def test_pixel_spacing_in_millimetres_becomes_micrometres():
    with read_slide(SLIDES / OTHER_SERIES, mpp=0.5) as slide:
        assert slide.mpp_source == "manifest"
        assert slide._backend.stated_mpp == pytest.approx((28.969, 28.968))


def test_a_folder_of_several_series_or_of_none_is_refused(folder, tmp_path):
    with pytest.raises(SlideError, match="DICOM files of 2 series"):
        slide_file(folder("boxes_0.dcm", OTHER_SERIES))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match="the folder contains no DICOM files"):
        read_slide(tmp_path / "empty")


def test_a_file_is_itself():
    assert slide_file(SLIDES / "small.svs") == SLIDES / "small.svs"


def test_the_series_is_read_from_the_head_of_a_file():
    assert series_uid(SLIDES / "boxes_0.dcm") == series_uid(SLIDES / "boxes_1.dcm") != series_uid(SLIDES / OTHER_SERIES)
    assert series_uid(SLIDES / "small.svs") is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation of the DICOM header contradicts the JPEG"),
        (
            {"ConcatenationUID": "1.2.3", "InConcatenationNumber": 1, "ConcatenationFrameOffsetNumber": 0},
            "concatenation",
        ),
        ({"syntax": JPEGLSLossless}, "Unsupported transfer syntax"),
    ],
)
def test_dicom_that_cannot_be_read_with_its_colours_is_refused_with_the_reason(tmp_path, changes, sentence):
    image = dcmread(SLIDES / OTHER_SERIES)
    image.file_meta.TransferSyntaxUID = changes.pop("syntax", image.file_meta.TransferSyntaxUID)
    for name, value in changes.items():
        setattr(image, name, value)
    image.save_as(tmp_path / "a.dcm")
    with pytest.raises(SlideError, match=sentence):
        read_slide(tmp_path / "a.dcm", mpp=0.5)


def test_lossless_jpeg_2000_gives_the_pixels_that_were_encoded(tmp_path):
    image = dcmread(SLIDES / OTHER_SERIES)
    pixels = image.pixel_array
    encoded = [imagecodecs.jpeg2k_encode(one, level=0, reversible=True, codecformat="j2k") for one in pixels]
    image.PixelData, image.PhotometricInterpretation = encapsulate(encoded), "RGB"
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image["PixelData"].is_undefined_length = True
    image.save_as(tmp_path / "a.dcm")
    with read_slide(tmp_path / "a.dcm", mpp=0.5) as slide:
        assert np.array_equal(slide.read_region((0, 0), 0, (256, 256)), pixels[0])
