import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.config import TissueConfig
from preprocessing.tissue.classify import SATURATION_LIMITS, classify, glass_colour, saturation

GLASS, PINK = (243, 242, 244), (205, 130, 180)
config = TissueConfig()


def scene(*rectangles, glass=GLASS, noise=2.0, size=(100, 120)):
    """An 8 um overview: (top, left, height, width, colour) on glass."""
    image = np.full((*size, 3), glass, np.float32)
    for top, left, height, width, colour in rectangles:
        image[top : top + height, left : left + width] = colour
    return (image + np.random.default_rng(0).normal(0, noise, (*size, 1))).clip(0, 255).astype(np.uint8)


def agreement(found, expected):
    return (found & expected).sum() / (found | expected).sum()


def test_tissue_is_found_on_glass():
    truth = np.zeros((100, 120), bool)
    truth[20:70, 30:90] = True
    assert agreement(classify(scene((20, 30, 50, 60, PINK)), 8, config) == 1, truth) > 0.93


@given(
    lamp=st.tuples(*[st.integers(-12, 12)] * 3),
    gray=st.integers(205, 240),
    noise=st.floats(0, 4),
    seed=st.integers(0, 99),
)
def test_glass_alone_is_glass_under_any_lamp_but_a_violet_one(lamp, gray, noise, seed):
    colour = np.array(lamp) + gray
    hue, saturation_hsv, _ = cv2.cvtColor(colour.astype(np.uint8)[None, None], cv2.COLOR_RGB2HSV)[0, 0]
    if hue >= 115 and saturation_hsv >= 8:
        return
    noisy = colour + np.random.default_rng(seed).normal(0, noise, (100, 120, 1))
    assert not classify(noisy.clip(0, 255).astype(np.uint8), 8, config).any()


def test_tissue_on_glass_under_a_bluish_lamp_is_found_alone():
    lamp = np.array((0.90, 0.95, 1.0))
    picture = scene((20, 30, 50, 60, PINK * lamp), glass=(243 * lamp).round())
    mask = classify(picture, 8, config)
    assert saturation(picture, np.full(3, 255.0))[:15].min() > SATURATION_LIMITS[1], (
        "without its glass's colour, tissue"
    )
    assert (mask[22:68, 32:88] == 1).all()
    assert not mask[:17].any()


@pytest.mark.parametrize("padding", [0, 255], ids=["black", "white"])
def test_padding_is_glass(padding):
    picture = scene((20, 30, 50, 60, PINK), size=(200, 240), glass=(225, 234, 246))
    picture[100:] = picture[:, 140:] = padding
    mask = classify(picture, 8, config)
    assert not mask[104:].any()
    assert not mask[:, 144:].any()
    assert (mask[22:68, 32:88] == 1).all()


@pytest.mark.parametrize("colour", [(238, 214, 232), (240, 226, 236), (243, 229, 232)], ids=["fat", "eosin", "peach"])
def test_pale_tissue_beside_dark_tissue_stays(colour):
    picture = scene((10, 10, 40, 40, (120, 40, 150)), (55, 60, 40, 40, colour))
    otsu, _ = cv2.threshold(saturation(picture, np.array(GLASS)), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert otsu >= saturation(picture, np.array(GLASS))[57:93, 62:98].max(), "Otsu's threshold alone would lose it"
    assert (classify(picture, 8, config)[57:93, 62:98] == 1).mean() > 0.95


def test_fat_with_walls_as_thin_as_a_pixel_stays():
    picture = scene(size=(200, 200))
    for place in range(40, 161, 9):  # cells of 72 um
        picture[place, 40:161] = picture[40:161, place] = (226, 176, 206)
    mask = classify(picture, 8, config)
    tiles = (mask[48:160, 48:160] == 1).reshape(7, 16, 7, 16).mean(axis=(1, 3))
    assert tiles.min() > 0.25
    assert not mask[:30].any()


def test_a_slide_that_is_all_tissue_is_all_tissue():
    mask = classify(scene((0, 0, 100, 120, PINK), (0, 0, 50, 120, (150, 80, 160))), 8, config)
    assert (mask == 1).mean() > 0.99


@pytest.mark.parametrize("colour", [(90, 30, 100), (56, 20, 88), (60, 22, 60)])
def test_a_fold_is_tissue(colour):
    mask = classify(scene((20, 30, 50, 60, PINK), (30, 30, 12, 60, colour)), 8, config)
    assert (mask[22:68, 32:88] == 1).all()


def test_dust_is_left_out_by_its_area():
    picture = scene((20, 30, 50, 60, PINK), (85, 100, 10, 10, PINK))
    assert (classify(picture, 8, config) == 1)[80:].sum() == 0
    assert (classify(picture, 8, TissueConfig(min_area_um2=5000)) == 1)[80:].sum() > 80


def test_gray_dust_a_coverslip_edge_and_bubbles_are_no_tissue():
    picture = scene(size=(300, 300))
    rng = np.random.default_rng(1)
    for y, x in rng.integers(5, 290, (60, 2)):
        picture[y : y + 3, x : x + 3] = rng.integers(40, 150)
    cv2.line(picture, (0, 40), (299, 55), (150, 151, 156), 2)
    for radius in (20, 35):
        cv2.circle(picture, (150, 170), radius, (120, 122, 121), 2, cv2.LINE_AA)
    assert not (classify(picture, 8, config) == 1).any()


def test_holes_are_kept_or_filled_by_their_area():
    picture = scene((10, 10, 80, 100, PINK), (20, 20, 12, 12, GLASS), (40, 40, 40, 40, GLASS))
    kept = classify(picture, 8, config)
    filled = classify(picture, 8, TissueConfig(fill_holes_um2=20_000))
    assert not kept[23:29, 23:29].any()
    assert (filled[20:32, 20:32] == 1).all()
    assert not filled[43:77, 43:77].any()
    assert not filled[:8].any()
    everything = classify(picture, 8, TissueConfig(fill_holes_um2=150_000))
    assert (everything[12:88, 12:108] == 1).all()
    assert not everything[:8].any()


@given(height=st.integers(8, 61), width=st.integers(8, 61))
def test_the_mask_has_the_overviews_size_whatever_that_is(height, width):
    picture = scene((0, 0, height, width // 2, PINK), (0, 0, 4, width, (25, 25, 28)), size=(height, width))
    mask = classify(picture, 8, TissueConfig(min_area_um2=0, fill_holes_um2=1e4))
    assert mask.shape == (height, width)
    assert mask.max() <= 3


def test_the_colour_of_glass_is_not_that_of_pale_tissue_nor_of_padding():
    pale = scene((0, 0, 100, 100, (240, 226, 236)))
    assert np.abs(glass_colour(pale) - GLASS).max() <= 2
    padded = scene((0, 0, 100, 100, (255, 255, 255)), noise=0)
    assert np.abs(glass_colour(padded) - GLASS).max() <= 2
    assert glass_colour(scene((0, 0, 100, 120, (240, 226, 236)))).tolist() == [255, 255, 255]


def test_saturation_of_strips_is_that_of_the_whole():
    picture = scene((100, 10, 400, 90, PINK), size=(600, 120))
    smooth = cv2.blur(picture, (3, 3))
    expected = smooth.max(axis=2) - smooth.min(axis=2)
    np.testing.assert_array_equal(saturation(picture, np.full(3, 255.0)), expected)
