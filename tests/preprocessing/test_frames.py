import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import frames

grids = arrays(np.int32, st.tuples(st.integers(1, 20), st.just(2)), elements=st.integers(0, 5000))
sides = st.floats(2, 5000)
resolutions = st.floats(0.05, 20)


@given(rc=grids, side_l0=sides)
def test_grid_to_level_0_and_back_is_the_same_tile(rc, side_l0):
    np.testing.assert_array_equal(frames.rc_from_l0(frames.l0_from_rc(rc, side_l0), side_l0), rc)


@given(xy_l0=grids, mpp_l0=resolutions)
def test_level_0_to_micrometres_and_back_is_the_same_place(xy_l0, mpp_l0):
    np.testing.assert_allclose(frames.l0_from_um(frames.um_from_l0(xy_l0, mpp_l0), mpp_l0), xy_l0, rtol=1e-12)


@given(xy_l0=grids, mpp_l0=resolutions, mpp_st=resolutions)
def test_level_0_to_store_pixels_and_back_is_the_same_place(xy_l0, mpp_l0, mpp_st):
    there = frames.st_from_l0(xy_l0, mpp_l0, mpp_st)
    np.testing.assert_allclose(frames.l0_from_st(there, mpp_l0, mpp_st), xy_l0, rtol=1e-9)


@given(rc=grids, tile_st=st.integers(32, 1024), mpp_l0=st.floats(0.2, 0.6), mpp_st=st.floats(0.6, 4))
def test_both_ways_from_grid_to_store_pixels_agree_to_half_a_level_0_pixel(rc, tile_st, mpp_l0, mpp_st):
    side_l0 = frames.side_l0_from_st(tile_st, mpp_st, mpp_l0)
    through_l0 = frames.st_from_l0(frames.l0_from_rc(rc, side_l0), mpp_l0, mpp_st)
    assert np.abs(through_l0 - frames.st_from_rc(rc, tile_st)).max() <= 0.5 * mpp_l0 / mpp_st + 1e-6


def test_axes_turn_from_row_column_to_x_y():
    np.testing.assert_array_equal(frames.l0_from_rc(np.array([[1, 3]]), 100.4), [[301, 100]])
    np.testing.assert_array_equal(frames.st_from_rc(np.array([[1, 3]]), 256), [[768, 256]])


def test_a_tile_of_a_40x_slide_is_twice_as_wide_on_level_0():
    assert frames.side_l0_from_st(256, 0.5, 0.25) == 512
