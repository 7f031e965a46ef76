from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing.config import TissueConfig
from preprocessing.errors import SlideError
from preprocessing.slides.slide import read_slide
from preprocessing.tissue.detect import find_tissue
from preprocessing.tissue.light import MAX_OTHER, is_dark_field, other_stain, refuse_dark_field, refuse_false_colours

REAL = Path(__file__).parents[3] / ".." / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
GLASS, H_AND_E, IHC, TRICHROME = (243, 242, 244), (200, 120, 170), (130, 85, 50), (70, 110, 190)


def overview(background, tissue, noise=4):
    picture = np.full((100, 120, 3), background, np.float32)
    picture[20:80, 20:100] = tissue
    picture += np.random.default_rng(0).normal(0, noise, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("background", "tissue"),
    [
        ((12, 2, 2), (190, 30, 25)),  # one dye
        ((0, 0, 0), (20, 60, 230)),
        ((10, 10, 12), (200, 210, 220)),  # dark field: light where tissue scatters it
        ((40, 0, 0), (70, 0, 0)),
        ((160, 8, 8), (230, 30, 20)),  # a bright background of the dye's colour
    ],
)
def test_fluorescence_and_dark_field_are_refused_by_name(background, tissue):
    with pytest.raises(SlideError, match="fluorescence or dark field") as error:
        refuse_dark_field(Path("a.ndpi"), overview(background, tissue))
    assert error.value.where == Path("a.ndpi")


@pytest.mark.parametrize("tissue", [H_AND_E, IHC, TRICHROME, (90, 50, 120), (60, 40, 25)])
def test_bright_field_passes_also_without_glass_and_with_black_borders(tissue):
    assert not is_dark_field(overview(GLASS, tissue))
    bordered = np.pad(overview(GLASS, tissue), ((150, 150), (150, 150), (0, 0)))
    assert not is_dark_field(bordered)
    refuse_dark_field(Path("a.svs"), bordered)


@pytest.mark.parametrize("glass", [(0, 0, 0), (255, 255, 255), (230, 160, 190), (255, 180, 230), (200, 90, 100)])
def test_no_glass_and_glass_under_pale_tissue_are_not_false_colours(glass):
    assert refuse_false_colours(Path("a.svs"), overview(glass, H_AND_E, noise=0)) is None


def test_black_only_is_not_dark_field_but_lost_pixels():
    assert not is_dark_field(np.zeros((5, 5, 3), np.uint8))


@pytest.mark.parametrize("glass", [GLASS, (225, 225, 220), (250, 246, 235), (205, 210, 212)])
@pytest.mark.parametrize("tissue", [H_AND_E, IHC, TRICHROME])
def test_glass_in_the_colours_of_another_colour_space_is_refused(glass, tissue):
    right = overview(glass, tissue)
    refuse_false_colours(Path("a.dcm"), right)
    as_ycbcr = cv2.cvtColor(right, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    from_ycbcr = cv2.cvtColor(np.ascontiguousarray(right[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
    for false, sentence in ((as_ycbcr, "YCbCr is shown as RGB"), (from_ycbcr, "RGB is converted from YCbCr")):
        with pytest.raises(SlideError, match=f"the colours are false: .*{sentence}"):
            refuse_false_colours(Path("a.dcm"), np.ascontiguousarray(false))


def test_stains_are_told_apart_by_colour():
    tissue = np.zeros((100, 120), bool)
    tissue[20:80, 20:100] = True
    brown, blue = zip(
        *(other_stain(overview(GLASS, colour), tissue) for colour in (H_AND_E, IHC, TRICHROME)), strict=True
    )
    assert [share > MAX_OTHER for share in brown] == [False, True, False]
    assert [share > MAX_OTHER for share in blue] == [False, False, True]
    assert other_stain(overview(GLASS, IHC), ~np.ones_like(tissue)) == (0, 0)


@pytest.mark.skipif(not REAL.exists(), reason="no shared slides on this machine")
def test_a_real_slide_of_h_and_e_has_no_alarm():
    with read_slide(REAL) as slide:
        picture, mask = find_tissue(slide, TissueConfig(), "a")
    assert not is_dark_field(picture)
    assert max(other_stain(picture, mask == 1)) < 0.05
