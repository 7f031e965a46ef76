import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.config import TissueConfig
from preprocessing.tissue.classify import classify

GLASS, PINK, VIOLET = (243, 242, 244), (205, 130, 180), (130, 70, 150)
PENS = {
    "green": (60, 170, 100),
    "blue": (30, 60, 200),
    "navy": (20, 30, 110),
    "black": (25, 25, 28),
    "red": (220, 20, 30),
}
config = TissueConfig()


def slide(tissue=PINK):
    """An 8 um overview with tissue in its middle."""
    image = np.full((160, 200, 3), GLASS, np.float32)
    image[40:130, 40:160] = tissue
    return image


def draw(image, ink, row=85, opacity=1.0):
    """A stroke across the whole slide, 12 pixels wide, that lets through what real ink does and fades at its sides."""
    weight = np.zeros(image.shape[:2], np.float32)
    cv2.line(weight, (0, row), (199, row), 1.0, 12)
    weight = opacity * cv2.GaussianBlur(weight, (0, 0), 1.5)[..., None]
    noise = np.random.default_rng(0).normal(0, 2, (*image.shape[:2], 1))
    return (image * (1 - weight + weight * np.array(ink) / 255) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("ink", PENS.values(), ids=PENS)
@pytest.mark.parametrize("row", [85, 15], ids=["over tissue", "over glass"])
@pytest.mark.parametrize("tissue", [PINK, VIOLET], ids=["pink", "violet"])
def test_a_stroke_is_pen_and_the_tissue_beside_it_stays(ink, row, tissue):
    mask = classify(draw(slide(tissue), ink, row), 8, config)
    assert (mask[row - 5 : row + 5, 2:198] == 2).mean() > 0.95
    assert (mask[112:128, 43:157] == 1).all()
    assert not (mask[row - 12 : row + 13, :35] == 1).any(), "its fading rim is no tissue"


def test_a_pen_that_is_not_rejected_is_not_marked():
    assert not (classify(draw(slide(), PENS["green"]), 8, TissueConfig(reject_pen=False)) == 2).any()


def test_a_faint_green_stroke_over_glass_is_no_tissue():
    mask = classify(draw(slide(), PENS["green"], row=15, opacity=0.5), 8, config)
    assert not (mask[:30] == 1).any()


@given(hue=st.integers(123, 175), saturation=st.integers(40, 200), value=st.integers(95, 240))
def test_no_colour_of_the_stain_is_pen(hue, saturation, value):
    stain = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    mask = classify(slide(stain).astype(np.uint8), 8, config)
    assert not (mask == 2).any()
    assert (mask[42:128, 42:158] == 1).all()


def test_clumps_of_carbon_or_blood_in_tissue_are_tissue():
    picture = slide().astype(np.uint8)
    for x, colour in zip(range(50, 150, 12), [(20, 20, 22), (190, 20, 30)] * 4, strict=False):
        cv2.circle(picture, (x, 85), 4, colour, -1)
    mask = classify(picture, 8, config)
    assert not (mask == 2).any()
