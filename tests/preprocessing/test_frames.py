import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import frames

grids = arrays(np.int32, st.tuples(st.integers(1, 20), st.just(2)), elements=st.integers(0, 5000))
sides = st.floats(2, 5000)


@given(rc=grids, side_l0=sides)
def test_grid_to_level_0_and_back_is_the_same_tile(rc, side_l0):
    np.testing.assert_array_equal(frames.nearest_rc(frames.l0_from_rc(rc, side_l0), side_l0, (5001, 5001)), rc)


def test_the_nearest_cell_is_one_of_the_grid():
    xy_l0 = np.array([[-60, 0], [149, 51], [151, 49], [1000, 1000]])
    np.testing.assert_array_equal(frames.nearest_rc(xy_l0, 100.0, (2, 3)), [[0, 0], [1, 1], [0, 2], [1, 2]])


@given(xy_l0=grids, px_l0=st.tuples(sides, sides))
def test_level_0_to_an_image_and_back_is_the_same_place(xy_l0, px_l0):
    np.testing.assert_allclose(frames.l0_from_px(frames.px_from_l0(xy_l0, px_l0), px_l0), xy_l0, rtol=1e-12)


@given(rc=grids, tile_st=st.integers(32, 1024), side_l0=st.tuples(st.floats(100, 5000), st.floats(100, 5000)))
def test_both_ways_from_grid_to_store_pixels_agree_to_half_a_level_0_pixel(rc, tile_st, side_l0):
    through_l0 = frames.st_from_l0(frames.l0_from_rc(rc, side_l0), side_l0, tile_st)
    assert np.abs(through_l0 - frames.st_from_rc(rc, tile_st)).max() <= 0.5 * tile_st / min(side_l0) + 1e-6


def test_micrometres_are_level_0_pixels_times_their_size():
    np.testing.assert_array_equal(frames.um_from_l0(np.array([[4, 8]]), 0.25), [[1, 2]])


def test_axes_turn_from_row_column_to_x_y():
    np.testing.assert_array_equal(frames.l0_from_rc(np.array([[1, 3]]), 100.4), [[301, 100]])
    np.testing.assert_array_equal(frames.st_from_rc(np.array([[1, 3]]), 256), [[768, 256]])


def test_a_tile_of_a_40x_slide_is_twice_as_wide_on_level_0():
    assert frames.side_l0_from_st(256, 0.5, 0.25) == 512


boxes = st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(1, 100), st.integers(1, 100))


@given(box=boxes, shape=st.tuples(st.integers(1, 80), st.integers(1, 80)))
def test_a_part_has_the_pixels_that_it_touches(box, shape):
    rows, columns = frames.part_px(box, (1000, 1000), shape)
    left, top, width, height = box
    for lines, start, length, pixels in ((rows, top, height, shape[0]), (columns, left, width, shape[1])):
        touched = [i for i in range(pixels) if i * 1000 < (start + length) * pixels and (i + 1) * 1000 > start * pixels]
        assert list(range(pixels))[lines] == touched
    assert frames.part_px(None, (1000, 1000), shape) == (slice(0, shape[0]), slice(0, shape[1]))


def test_geojson_begins_at_the_corner_that_the_frame_names():
    assert frames.geojson_origin_l0((3, 5, 10, 10), "qupath") == (3, 5)
    assert frames.geojson_origin_l0((3, 5, 10, 10), "slide") == (0, 0)
    assert frames.geojson_origin_l0(None, "qupath") == (0, 0)
