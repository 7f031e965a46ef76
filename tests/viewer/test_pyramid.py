import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.viewer.pyramid import TILE_DZ, Pyramid

sides = st.integers(1, 3000)
pyramids = st.builds(Pyramid.of, st.tuples(sides, sides), st.tuples(sides, sides), st.none() | st.integers(256, 2000))


@given(pyramid=pyramids)
def test_the_tiles_of_the_finest_level_cover_the_slide_once(pyramid):
    level = pyramid.max_level
    columns, rows = pyramid.tiles(level)
    boxes = [pyramid.tile(level, x, y)[0] for y in range(rows) for x in range(columns)]
    width_l0, height_l0 = pyramid.size_l0
    assert sum(box[2] * box[3] for box in boxes) == pytest.approx(width_l0 * height_l0)
    assert max(box[0] + box[2] for box in boxes) == pytest.approx(width_l0)
    assert max(box[1] + box[3] for box in boxes) == pytest.approx(height_l0)


@given(pyramid=pyramids)
def test_a_tile_shows_what_the_four_below_it_show(pyramid):
    for level in range(pyramid.min_level, pyramid.max_level):
        (x, y, width, _), size = pyramid.tile(level, 0, 0)
        (_, _, finer, _), finer_size = pyramid.tile(level + 1, 0, 0)
        assert (x, y) == (0, 0)
        assert width / size[0] == pytest.approx(2 * finer / finer_size[0])
        assert max(size) <= TILE_DZ


@given(pyramid=pyramids)
def test_the_coarsest_level_is_one_tile_and_the_next_is_more(pyramid):
    assert pyramid.tiles(pyramid.min_level) == (1, 1)
    if pyramid.min_level < pyramid.max_level:
        assert pyramid.tiles(pyramid.min_level + 1) != (1, 1)


@given(pyramid=pyramids, level=st.integers(-2, 40), x=st.integers(-2, 50), y=st.integers(-2, 50))
def test_there_is_no_tile_outside(pyramid, level, x, y):
    within = pyramid.min_level <= level <= pyramid.max_level
    columns, rows = pyramid.tiles(level) if within else (0, 0)
    assert (pyramid.tile(level, x, y) is not None) == (0 <= x < columns and 0 <= y < rows)


@given(size=st.tuples(sides, sides), finest=st.tuples(sides, sides), most=st.integers(256, 2000))
def test_the_finest_level_keeps_the_bound_and_the_shape(size, finest, most):
    pyramid = Pyramid.of(size, finest, most)
    assert max(pyramid.size_dz) == min(max(finest), most)
    assert pyramid.size_dz[0] / max(pyramid.size_dz) == pytest.approx(
        finest[0] / max(finest), abs=1 / min(most, max(finest))
    )
