import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from preprocessing.frames import grid_shape
from preprocessing.tiling.grid import select_tiles, tissue_share

sizes_l0 = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
sides = st.floats(30, 2000)
masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 3))


@given(mask=masks, size_l0=sizes_l0, side_l0=sides)
def test_chosen_tiles_begin_inside_the_slide_lie_in_the_grid_and_do_not_overlap(mask, size_l0, side_l0):
    grid = select_tiles(mask, size_l0, side_l0, 0.0)
    assert np.all((grid.xy_l0 >= 0) & (grid.xy_l0 < size_l0))
    assert np.all((grid.rc >= 0) & (grid.rc < grid.shape))
    apart = np.abs(grid.xy_l0[:, None] - grid.xy_l0[None]).max(axis=-1)
    np.fill_diagonal(apart, 10**6)
    assert apart.min(initial=10**6) >= np.floor(side_l0)


@given(size_l0=sizes_l0, side_l0=sides)
def test_the_grid_covers_the_slide(size_l0, side_l0):
    rows, columns = grid_shape(size_l0, side_l0)
    assert columns * side_l0 >= size_l0[0] - 0.5
    assert rows * side_l0 >= size_l0[1] - 0.5


@given(mask=masks, size_l0=sizes_l0, side_l0=sides)
def test_shares_add_up_to_the_tissue_of_the_mask(mask, size_l0, side_l0):
    rows, columns = grid_shape(size_l0, side_l0)
    share = tissue_share(mask, size_l0, side_l0, (rows, columns))
    pixel_l0 = size_l0[0] * size_l0[1] / mask.size
    uncovered = (side_l0 + max(size_l0)) * 1.0  # a grid may leave half a pixel of the slide's edge
    assert abs(share.sum() * side_l0**2 - (mask == 1).sum() * pixel_l0) <= uncovered + 1e-4 * side_l0**2 * share.size


@given(mask=masks, size_l0=sizes_l0, side_l0=sides, low=st.floats(0, 1), high=st.floats(0, 1))
def test_asking_for_more_tissue_never_adds_a_tile(mask, size_l0, side_l0, low, high):
    few, many = (select_tiles(mask, size_l0, side_l0, share) for share in (max(low, high), min(low, high)))
    assert {*map(tuple, few.rc.tolist())} <= {*map(tuple, many.rc.tolist())}


def test_only_tissue_counts_not_pen_or_blur_or_glass():
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    grid = select_tiles(mask, (512, 512), 256.0, 0.1)
    assert grid.rc.tolist() == [[0, 1]]
    assert grid.tissue.tolist() == [1.0]
    assert grid.xy_l0.tolist() == [[256, 0]]


def test_what_lies_beyond_the_slide_counts_as_glass():
    share = tissue_share(np.ones((3, 3), np.uint8), (300, 300), 200.0, (2, 2))
    np.testing.assert_allclose(share, [[1, 0.5], [0.5, 0.25]])


def test_a_tile_that_straddles_mask_pixels_is_weighed_by_area():
    share = tissue_share(np.array([[1, 0]], np.uint8), (200, 100), 150.0, (1, 2))
    np.testing.assert_allclose(share, [[100 * 100 / 150**2, 0]], atol=1e-5)


def test_tiles_of_a_piece_touch_and_pieces_are_numbered_as_they_come():
    mask = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], np.uint8)
    grid = select_tiles(mask, (500, 400), 100.0, 0.5)
    assert grid.rc.tolist() == [[0, 4], [1, 0], [1, 4], [2, 1], [3, 3]]
    assert (grid.piece.tolist(), grid.piece.dtype) == ([0, 1, 0, 1, 2], np.int32)
    assert grid.without([3]).piece.tolist() == [0, 1, 0, 2]


def test_tiles_of_glass_are_of_no_piece():
    grid = select_tiles(np.array([[1, 0, 1]], np.uint8), (300, 100), 100.0, 0.0)
    assert grid.piece.tolist() == [0, -1, 1]
    assert select_tiles(np.zeros((2, 2), np.uint8), (200, 200), 100.0, 0.0).piece.tolist() == [-1] * 4
