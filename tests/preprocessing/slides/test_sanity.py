from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.errors import SlideError
from preprocessing.slides.sanity import black_share, is_blank, refuse_blank, refuse_sizes
from preprocessing.slides.slide import read_slide

anywhere = Path("slide.svs")
side = st.integers(1, 400_000)


def bomb(path, claims, **options):
    """A TIFF of a few hundred bytes whose tags claim `claims` pixels (width, height)."""
    image = np.zeros((256, 256, 3), np.uint8)
    settings = {"photometric": "rgb", "compression": "deflate", "metadata": None}
    tifffile.imwrite(path, image, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **settings | options)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[0].tags
        names = ["ImageWidth", "ImageLength"] + ([] if tiff.pages[0].is_tiled else ["RowsPerStrip"])
        for name, value in zip(names, [*claims, claims[1]], strict=False):
            tags[name].overwrite(value)
    assert path.stat().st_size < 2000
    return path


@given(width=side, height=side, level=st.integers(0, 12), rounding=st.sampled_from([np.floor, np.ceil, np.round]))
def test_levels_that_halve_the_slide_are_of_one_picture_however_they_round(width, height, level, rounding):
    sizes = [(width, height)]
    sizes += [(max(1, int(rounding(width / 2**i))), max(1, int(rounding(height / 2**i)))) for i in range(1, level)]
    assert refuse_sizes(anywhere, sizes, 256 * 256) is None


@given(width=st.integers(1000, 100_000), height=st.integers(1000, 100_000), by=st.floats(1.1, 5))
def test_a_level_of_another_shape_is_refused_with_its_number(width, height, by):
    sizes = [(width, height), (width // 2, height // 2), (width // 4, int(height / 4 / by))]
    with pytest.raises(SlideError, match=f"not of one image: level 0 has {width} x {height} pixels, level 2"):
        refuse_sizes(anywhere, sizes, 256 * 256)


def test_a_large_pyramid_in_tiles_is_fine():
    assert refuse_sizes(anywhere, [(100_000, 100_000), (25_000, 25_000), (6_250, 6_250)], 1024 * 1024) is None
    assert refuse_sizes(anywhere, [(500_000, 500_000)], 256 * 256) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tile": (256, 256)}, "the file has 15264649 tiles or strips, but lists 1"),
        ({"rowsperstrip": 256}, "the slide claims 1000000 x 1000000 pixels"),
    ],
)
def test_a_small_file_that_claims_a_million_pixels_a_side_is_refused_unread(tmp_path, options, sentence):
    path = bomb(tmp_path / "bomb.tif", (1_000_000, 1_000_000), **options)
    with pytest.raises(SlideError, match=sentence):
        read_slide(path)


def test_a_strip_that_would_fill_the_memory_is_refused_unread(tmp_path):
    path = bomb(tmp_path / "strip.tif", (60_000, 60_000), rowsperstrip=256)
    with pytest.raises(SlideError, match="a tile or strip of 3600000000 pixels takes more than 1 GiB") as caught:
        read_slide(path)
    assert "--tile --pyramid" in caught.value.fix


anywhere = Path("slide.svs")


def overview(black, rest=243, pixels=1000):
    image = np.full((1, pixels, 3), rest, np.uint8)
    image[:, : round(black * pixels)] = 0
    return image


def test_the_share_of_black_counts_pixels_that_are_zero_in_every_colour():
    image = overview(0.25)
    image[:, -10:] = (0, 0, 1)
    assert black_share(image) == 0.25


def test_only_pure_black_and_pure_white_tiles_are_blank():
    assert [value for value in range(256) if is_blank(np.full((4, 4, 3), value, np.uint8))] == [0, 255]
    speck = np.full((4, 4, 3), 255, np.uint8)
    speck[2, 1, 0] = 254
    assert not is_blank(speck)


def test_a_slide_that_is_black_is_refused_and_one_that_is_partly_black_is_not():
    refuse_blank(anywhere, overview(0.9))
    with pytest.raises(SlideError, match=r"99\.5% of its overview is pure black") as caught:
        refuse_blank(anywhere, overview(0.995))
    assert caught.value.where == anywhere


def test_a_slide_without_a_pixel_is_refused_and_one_with_a_single_one_is_not():
    refuse_blank(anywhere, overview(0.001, rest=255))
    with pytest.raises(SlideError, match="has no pixels"):
        refuse_blank(anywhere, overview(0, rest=255))
