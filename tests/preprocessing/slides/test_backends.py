import os

import numpy as np
import pytest
import tifffile

from preprocessing.errors import SlideError
from preprocessing.slides.alpha import on_white
from preprocessing.slides.backends import open_backend
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.tiff import TiffBackend


def test_a_scanner_s_slide_opens_with_openslide(svs):
    backend = open_backend(svs)
    assert isinstance(backend, OpenSlideBackend)
    assert (backend.vendor, backend.level_sizes) == ("aperio", [(1280, 1024), (320, 256)])
    assert (backend.stated_mpp, backend.objective_power) == ((0.5, 0.5), 20)
    assert backend.decoded_pixels == 240 * 240
    backend.close()


def test_a_tiff_that_is_no_scanner_s_opens_with_tifffile_though_openslide_could(tmp_path):
    path = tmp_path / "generic.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", tile=(16, 16), metadata=None)
    backend = open_backend(path)
    assert isinstance(backend, TiffBackend)
    backend.close()


def test_half_transparent_is_half_way_to_white():
    pixel = np.array([[[100, 0, 255, 128]]], np.uint8)
    np.testing.assert_allclose(on_white(pixel)[0, 0], [177, 127, 255], atol=1)


def test_colours_that_were_multiplied_by_their_opacity_give_the_same():
    rgba = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    multiplied = rgba.copy()
    multiplied[..., :3] = np.round(rgba[..., :3] * (rgba[..., 3:] / 255.0))
    np.testing.assert_allclose(on_white(multiplied, premultiplied=True).astype(int), on_white(rgba), atol=1)


def test_a_scanner_s_slide_that_openslide_cannot_read_gives_both_reasons(svs, tmp_path):
    torn = tmp_path / "torn.svs"
    torn.write_bytes(svs.read_bytes())
    with tifffile.TiffFile(torn, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(52479)
    with pytest.raises(SlideError, match="compression 52479 has no decoder") as caught:
        open_backend(torn)
    assert "note:  OpenSlide: Unsupported TIFF compression: 52479" in str(caught.value)


@pytest.mark.parametrize(("page", "tag"), [(0, "TileByteCounts"), (1, "StripByteCounts"), (2, "TileByteCounts")])
@pytest.mark.parametrize("beyond", [1, (1 << 32) - 1])
def test_a_tile_that_claims_more_bytes_than_the_file_has_is_refused(svs, tmp_path, page, tag, beyond):
    """OpenSlide takes as much memory before it reads, and where there is none it ends the process."""
    forged = tmp_path / "forged.svs"
    forged.write_bytes(svs.read_bytes())
    claim = min(forged.stat().st_size + beyond, (1 << 32) - 1)
    with tifffile.TiffFile(forged, mode="r+") as tiff:
        counts = tiff.pages[page].tags[tag]
        counts.overwrite((*counts.value[:-1], claim))
    with pytest.raises(SlideError, match=f"a tile or strip claims {claim} bytes"):
        open_backend(forged)


def test_a_strip_of_gigabytes_within_its_file_is_no_reason_to_refuse(svs, tmp_path):
    """A level of a Hamamatsu slide is one strip, longer than the memory that a tile may take."""
    long = tmp_path / "long.svs"
    long.write_bytes(svs.read_bytes())
    with tifffile.TiffFile(long, mode="r+") as tiff:
        counts = tiff.pages[1].tags["StripByteCounts"]
        counts.overwrite((*counts.value[:-1], 3 << 29))
    os.truncate(long, 1 << 31)  # sparse: it takes no room
    backend = open_backend(long)
    assert (backend.vendor, len(backend.level_sizes)) == ("aperio", 2)
    backend.close()


def test_a_file_of_no_format_is_refused_by_name(tmp_path):
    path = tmp_path / "text.svs"
    path.write_text("not a slide")
    with pytest.raises(
        SlideError, match=r"this is a text file, not a slide \(OpenSlide: not .+; tifffile: TiffFileError: not a TIFF"
    ):
        open_backend(path)


def test_a_slide_that_was_copied_by_half_says_so(tmp_path):
    """As Aperio's: the list of its images is the last thing in a file."""
    path = tmp_path / "half.svs"
    path.write_bytes(b"II*\0" + (1_000_000).to_bytes(4, "little") + bytes(5000))
    with pytest.raises(SlideError, match="was not copied whole") as caught:
        open_backend(path)
    assert "copy the slide again" in caught.value.fix


def test_missing_and_empty_files_are_told_apart(tmp_path):
    with pytest.raises(SlideError, match="no such file"):
        open_backend(tmp_path / "none.svs")
    (tmp_path / "empty.svs").write_bytes(b"")
    with pytest.raises(SlideError, match="the file is empty"):
        open_backend(tmp_path / "empty.svs")
