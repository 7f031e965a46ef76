import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.explanation import heatmap
from longvit.explanation.colour import ColourScale
from longvit.explanation.overlay import overlay

SLIDE = np.full((40, 60, 3), 240, np.uint8)

places = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30, unique=True)


@given(rc=places)
def test_every_score_stands_at_its_row_and_column_and_nothing_elsewhere(rc):
    scores = np.arange(1, len(rc) + 1, dtype=np.float32)
    grid = heatmap(scores, np.array(rc))
    assert [grid[row, column] for row, column in rc] == scores.tolist()
    assert np.isfinite(grid).sum() == len(rc)
    assert grid.shape == (max(row for row, _ in rc) + 1, max(column for _, column in rc) + 1)


def pictures(grid: np.ndarray, extent_px: tuple[float, float]):
    figure = overlay(SLIDE, grid, extent_px, ColourScale.of(grid, signed=True), "title", "label")
    plain, covered = figure.axes[:2]
    return figure, plain, covered


def test_the_grid_lies_on_the_pixels_of_the_slide_that_it_covers():
    _, plain, covered = pictures(np.ones((2, 3), np.float32), (45.0, 20.0))
    slide, heat = covered.images
    # Pixel centres are whole numbers, so the first pixel begins at -0.5; rows go down.
    assert list(slide.get_extent()) == [-0.5, 59.5, 39.5, -0.5]
    assert list(heat.get_extent()) == [-0.5, 44.5, 19.5, -0.5]
    for axes in (plain, covered):
        assert axes.get_xlim() == (-0.5, 59.5)
        assert axes.get_ylim() == (39.5, -0.5)
    np.testing.assert_array_equal(plain.images[0].get_array(), SLIDE)


def test_a_grid_larger_than_the_slide_does_not_move_it():
    _, _, covered = pictures(np.ones((2, 3), np.float32), (90.0, 80.0))
    assert (covered.get_xlim(), covered.get_ylim()) == ((-0.5, 59.5), (39.5, -0.5))


def test_the_grid_begins_at_its_own_corner_on_a_picture_of_a_part():
    figure = overlay(SLIDE, np.ones((2, 3), np.float32), (45.0, 20.0), ColourScale.of(np.ones(1), signed=True), "", "",
                     corner_px=(-7, -4))  # fmt: skip
    assert list(figure.axes[1].images[1].get_extent()) == [-7.5, 37.5, 15.5, -4.5]


def test_what_speaks_for_is_red_what_speaks_against_is_blue_and_no_token_is_clear():
    grid = np.array([[1.0, -1.0, 0.0, np.nan]], np.float32)
    figure, _, covered = pictures(grid, (60.0, 40.0))
    heat = covered.images[1]
    red, blue, grey, clear = heat.to_rgba(heat.get_array())[0]
    assert red[0] > blue[0]
    assert blue[2] > red[2]
    assert min(grey[:3]) > 0.8
    assert clear[3] == 0
    assert figure.axes[-1].get_ylabel() == "label"


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_scores_that_are_all_alike_can_be_drawn(value):
    figure, _, covered = pictures(np.full((2, 2), value, np.float32), (10.0, 10.0))
    figure.canvas.draw()
    heat = covered.images[1]
    assert heat.norm.vmin < heat.norm.vmax
    assert np.ptp(heat.to_rgba(heat.get_array()).reshape(-1, 4), axis=0).max() == 0
