from pathlib import Path

import numpy as np
import pytest

from preprocessing.errors import SlideError
from preprocessing.slides.blank import black_share, is_blank, refuse_blank

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
