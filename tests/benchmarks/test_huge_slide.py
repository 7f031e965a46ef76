"""The large slide is what a scanner writes: OpenSlide knows it, and its levels show the same tissue."""

import cv2
import numpy as np
import openslide
import pytest

SIDE = 9000


@pytest.fixture(scope="module")
def slide(make_huge):
    with openslide.OpenSlide(make_huge(SIDE)) as slide:
        yield slide


def pixels(slide: openslide.OpenSlide, xy_l0: tuple[int, int], level: int, side: int) -> np.ndarray:
    return np.asarray(slide.read_region(xy_l0, level, (side, side)).convert("RGB"))


def test_it_is_an_aperio_slide_with_three_levels_and_a_resolution(slide):
    assert slide.properties["openslide.vendor"] == "aperio"
    assert slide.level_dimensions == ((SIDE, SIDE), (SIDE // 4, SIDE // 4), (SIDE // 16, SIDE // 16))
    assert float(slide.properties["openslide.mpp-x"]) == 0.25


def test_its_levels_agree(slide):
    for xy_l0 in ((0, 0), (4096, 2048), (6144, 6144)):
        fine, coarse = pixels(slide, xy_l0, 0, 2048), pixels(slide, xy_l0, 2, 128)
        small = cv2.resize(fine, (128, 128), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - coarse).mean() < 6


def test_about_the_share_asked_for_is_tissue(slide):
    whole = pixels(slide, (0, 0), 2, SIDE // 16)
    assert 0.25 < (whole.min(axis=2) < 220).mean() < 0.35
