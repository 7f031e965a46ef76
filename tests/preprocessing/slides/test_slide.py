from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.errors import SlideError
from preprocessing.jpeg.from_tiff import JpegTiff
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.tissue.focus import LUMA

SLIDES = Path(__file__).parents[3] / ".." / "shared" / "data" / "slides"
needs_slides = pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")
anywhere = Path(__file__)


class Picture:
    """A backend of one picture and its halves, for what does not depend on a file."""

    vendor, stated_mpp, tagged_mpp, objective_power, bounds_l0 = "picture", (0.5, 0.5), None, None, None

    def __init__(self, image, levels=1):
        self.levels = [image[:: 2**i, :: 2**i] for i in range(levels)]
        self.level_sizes = [(level.shape[1], level.shape[0]) for level in self.levels]
        self.most_pixels = 0

    def read(self, xy_l0, level, size):
        self.most_pixels = max(self.most_pixels, size[0] * size[1])
        x, y = (place >> level for place in xy_l0)
        out = np.full((size[1], size[0], 3), 255, np.uint8)
        part = self.levels[level][y : y + size[1], x : x + size[0]]
        out[: part.shape[0], : part.shape[1]] = part
        return out


def ramp(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, np.zeros_like(x)], axis=-1).astype(np.uint8)


def test_a_slide_says_what_it_is(svs):
    with read_slide(svs) as slide:
        assert (slide.vendor, slide.size_l0, slide.downsamples) == ("aperio", (1280, 1024), [1, 4])
        assert (slide.mpp_l0, slide.mpp_source) == (0.5, "metadata")


def test_the_manifest_goes_before_the_slide_and_the_flag_after(tmp_path, image, save_svs):
    silent = save_svs(tmp_path / "silent.svs", image[:512, :512], mpp=None)
    stated = save_svs(tmp_path / "stated.svs", image[:512, :512], mpp=0.25)
    for path, manifest, flag, expected in [
        (stated, None, 1.0, (0.25, "metadata")),
        (stated, 0.4, 1.0, (0.4, "manifest")),
        (silent, 0.4, 1.0, (0.4, "manifest")),
        (silent, None, 1.0, (1.0, "flag")),
    ]:
        with read_slide(path, manifest, flag) as slide:
            assert (slide.mpp_l0, slide.mpp_source) == expected
    with read_slide(silent, None, 1.0, mpp_from_objective=True) as slide:
        assert (slide.mpp_l0, slide.mpp_source) == (0.5, "objective")


def test_a_slide_without_resolution_fails_with_the_fix_though_it_states_a_magnification(tmp_path, image, save_svs):
    path = save_svs(tmp_path / "silent.svs", image[:512, :512], mpp=None)
    with pytest.raises(SlideError, match="does not state its resolution") as caught:
        read_slide(path)
    assert "an objective of 20x, nominally 0.5 micrometres" in caught.value.what
    for way_out in ("manifest", "--mpp-if-missing", "--mpp-from-objective"):
        assert way_out in caught.value.fix


@given(downsample=st.floats(1, 100))
def test_the_level_read_is_the_coarsest_that_is_fine_enough(downsample):
    slide = Slide(anywhere, Picture(ramp(512, 512), levels=6), 0.5, "metadata")
    level = slide.level_for(downsample)
    assert slide.downsamples[level] <= downsample * 1.02
    assert level == 5 or slide.downsamples[level + 1] > downsample * 1.02


def test_scaling_is_averaging_over_area():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    slide = Slide(anywhere, Picture(image), 0.5, "metadata")
    averaged = image[:48, :64].reshape(12, 4, 16, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(slide.read_scaled((0, 0), (64, 48), (16, 12)), averaged, atol=0.51)


def test_luma_is_read_alike_from_a_jpeg_level_and_through_a_library(svs):
    with read_slide(svs) as slide:
        luma = replace(slide.sampling(1.0), channels=1)
        jpeg = slide.read_sampled(luma, (100, 50), (300, 200))
        colours = slide.read_sampled(slide.sampling(1.0), (100, 50), (300, 200))
        slide.jpeg_levels.clear()
        other = slide.read_sampled(luma, (100, 50), (300, 200))
    assert jpeg.shape == other.shape == (200, 300, 1)
    assert np.abs(jpeg[..., 0] - colours @ LUMA).mean() < 1
    assert np.abs(jpeg.astype(int) - other).mean() < 1


def test_at_its_own_resolution_pixels_are_left_as_they_are(svs, image):
    with read_slide(svs) as slide:
        tile = slide.read_scaled((256, 256), (256.0, 256.0), (256, 256))
    assert np.abs(tile.astype(int) - image[256:512, 256:512]).mean() < 5


def test_a_tile_over_the_edge_is_white_beyond_the_slide(svs):
    with read_slide(svs) as slide:
        tile = slide.read_scaled((1200, 900), (256, 256), (256, 256))
    assert tile[130:].min() == tile[:, 90:].min() == 255
    assert tile[:120, :70].max() < 255


def test_the_overview_in_strips_is_the_overview_in_one_piece(monkeypatch):
    backend = Picture(ramp(600, 900))
    slide = Slide(anywhere, backend, 0.5, "metadata")
    whole = slide.overview(4.0)
    monkeypatch.setattr("preprocessing.slides.slide.STRIP_PIXELS", 50_000)
    backend.most_pixels = 0
    strips = slide.overview(4.0)
    assert whole.shape == strips.shape == (75, 113, 3)
    assert backend.most_pixels <= 50_000
    assert np.abs(whole.astype(int) - strips).max() <= 2


def shifted(level):
    return replace(level, offsets=np.roll(level.offsets, 1, 1), lengths=np.roll(level.lengths, 1, 1))


def as_it_is(level):
    return level


@pytest.mark.parametrize(("changed", "holds"), [(as_it_is, True), (shifted, False)])
def test_tiles_that_show_other_pixels_than_openslide_are_left_to_it(svs, monkeypatch, changed, holds):
    class Changed(JpegTiff):
        def __init__(self, *of):
            super().__init__(*of)
            self.levels = {number: changed(level) for number, level in self.levels.items()}

    with read_slide(svs) as slide:
        pixels = slide.read_region((200, 200), 0, (300, 300))
    monkeypatch.setattr("preprocessing.slides.slide.JpegTiff", Changed)
    with read_slide(svs) as slide:
        assert bool(slide.jpeg_levels) == holds
        np.testing.assert_array_equal(slide.read_region((200, 200), 0, (300, 300)), pixels)


def test_a_place_that_cannot_be_decoded_is_named(tmp_path, image, save_svs):
    path = save_svs(tmp_path / "torn.svs", image)
    with tifffile.TiffFile(path) as tiff:
        third_of_second_row = 6 + 2
        offset = tiff.pages[0].dataoffsets[third_of_second_row]
        length = tiff.pages[0].databytecounts[third_of_second_row]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = b"\0" * length
    path.write_bytes(data)
    with read_slide(path) as slide, pytest.raises(SlideError, match=r"cannot decode level 0 at x=480, y=240") as caught:
        slide.read_region((480, 240), 0, (240, 240))
    assert caught.value.where == path


@pytest.mark.parametrize(("value", "sentence"), [(0, "100.0% of its overview is pure black"), (255, "has no pixels")])
def test_a_slide_that_opens_and_shows_nothing_is_an_error(value, sentence):
    slide = Slide(anywhere, Picture(np.full((64, 96, 3), value, np.uint8)), 0.5, "metadata")
    with pytest.raises(SlideError, match=sentence):
        slide.overview(4.0)


@needs_slides
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("kidney-48-5.tif", "does not state its resolution"),
        ("google.tif", "84.6667 x 84.6667"),
        ("boxes.tiff", "352.778"),
        ("multi_frame_jpeg_camelyon_challenge_image.dcm", "28.969"),
        ("bad/unopenable.tiff", "compression 52479 has no decoder"),
    ],
)
def test_real_slides_that_cannot_be_used_say_why(name, sentence):
    with pytest.raises(SlideError, match=sentence):
        read_slide(SLIDES / name)


@needs_slides
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "boxes_0.dcm", "emoji_name.svs"])
def test_real_slides_that_state_their_resolution_open(name):
    with read_slide(SLIDES / name) as slide:
        assert slide.mpp_l0 == pytest.approx(0.499)


@needs_slides
def test_a_real_slide_that_opens_but_does_not_decode_is_an_error_not_black():
    with read_slide(SLIDES / "bad" / "unreadable.svs") as slide, pytest.raises(SlideError, match="cannot decode"):
        slide.overview(8.0)
