import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.config import TissueConfig
from preprocessing.tissue import classify, mark_blurred, sharpness, without_specks

GLASS, PINK = (243, 242, 244), (205, 130, 180)
config = TissueConfig()


def scene(*rectangles, glass=GLASS, noise=2.0):
    """An 8 um overview, 100 x 120: (top, left, height, width, colour) on glass."""
    image = np.full((100, 120, 3), glass, np.float32)
    for top, left, height, width, colour in rectangles:
        image[top : top + height, left : left + width] = colour
    return (image + np.random.default_rng(0).normal(0, noise, (100, 120, 1))).clip(0, 255).astype(np.uint8)


def agreement(found, expected):
    return (found & expected).sum() / (found | expected).sum()


def test_tissue_is_found_on_glass():
    truth = np.zeros((100, 120), bool)
    truth[20:70, 30:90] = True
    assert agreement(classify(scene((20, 30, 50, 60, PINK)), 8, config) == 1, truth) > 0.97


def test_glass_alone_is_glass():
    assert not classify(scene(noise=4), 8, config).any()


def test_pale_fat_beside_dark_tissue_stays():
    picture = scene((10, 10, 40, 40, (120, 40, 150)), (55, 60, 40, 40, (238, 214, 232)))
    saturation = cv2.cvtColor(cv2.medianBlur(picture, 5), cv2.COLOR_RGB2HSV)[..., 1]
    otsu, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert otsu >= saturation[57:93, 62:98].max(), "Otsu's threshold alone would lose it"
    assert (classify(picture, 8, config)[57:93, 62:98] == 1).mean() > 0.95


def test_a_slide_that_is_all_tissue_is_all_tissue():
    mask = classify(scene((0, 0, 100, 120, PINK), (0, 0, 50, 120, (150, 80, 160))), 8, config)
    assert (mask == 1).mean() > 0.99


@pytest.mark.parametrize(
    "colour", [(60, 170, 100), (30, 60, 200), (25, 25, 28), (220, 20, 30)], ids=["green", "blue", "black", "red"]
)
def test_pen_is_pen_and_tissue_beside_it_stays(colour):
    picture = scene((20, 30, 50, 60, PINK), (5, 5, 8, 100, colour))
    mask = classify(picture, 8, config)
    assert (mask[6:12, 6:104] == 2).all()
    assert (mask[25:65, 35:85] == 1).all()
    assert not (classify(picture, 8, TissueConfig(reject_pen=False)) == 2).any()


@given(hue=st.integers(123, 175), saturation=st.integers(40, 200), value=st.integers(95, 240))
def test_no_colour_of_the_stain_is_pen(hue, saturation, value):
    stain = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    assert not (classify(scene((20, 30, 50, 60, stain), noise=0), 8, config) == 2).any()


def test_dust_is_left_out_by_its_area():
    picture = scene((20, 30, 50, 60, PINK), (85, 100, 12, 12, PINK))
    assert (classify(picture, 8, config) == 1)[84:].sum() == 0
    assert (classify(picture, 8, TissueConfig(min_area_um2=5000)) == 1)[84:].sum() > 100


@given(seed=st.integers(0, 1000), area=st.integers(0, 30))
def test_only_whole_pieces_are_left_out(seed, area):
    region = np.random.default_rng(seed).random((20, 20)) < 0.4
    kept = without_specks(region, area)
    assert not (kept & ~region).any()
    grown = cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & region
    np.testing.assert_array_equal(grown, kept)  # no kept piece touches one that was left out


def test_a_blurred_half_is_marked_and_the_sharp_half_is_not():
    rng = np.random.default_rng(0)
    fine = np.repeat(cv2.GaussianBlur(rng.random((160, 320, 1)).astype(np.float32), (0, 0), 0.8)[..., None], 3, axis=2)
    fine = ((fine - fine.mean()) / fine.std() * 25 + 150).clip(0, 255).astype(np.uint8)
    fine[:, 160:] = cv2.GaussianBlur(fine[:, 160:], (0, 0), 2)
    marked = mark_blurred(np.ones((40, 80), np.uint8), sharpness(fine), min_area_px=100)
    assert (marked[:, :36] == 1).mean() > 0.98
    assert (marked[:, 44:] == 3).mean() > 0.98


def test_focus_says_nothing_where_there_is_nothing():
    assert sharpness(np.full((40, 40, 3), 200, np.uint8)).min() == 1
    glass = mark_blurred(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.float32), 0)
    assert not glass.any()
