import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.tissue.pieces import label_pieces, piece_of_tiles, reading_order

MASK = np.zeros((30, 40), np.uint8)
MASK[2:8, 2:8] = MASK[3:9, 20:26] = MASK[15:20, 10:16] = 1
MASK[15:20, 17:19] = 3  # blurred, a pixel away from tissue


def test_tissue_closer_than_the_gap_is_one_piece_and_the_gap_is_none():
    labels = label_pieces(MASK, 8.0, 0.0)
    assert [int(labels[place]) for place in ((2, 2), (3, 20), (15, 10), (15, 17))] == [0, 1, 2, 3]
    assert (labels[MASK == 0] == -1).all()
    joined = label_pieces(MASK, 8.0, 16.0)
    assert [int(joined[place]) for place in ((2, 2), (3, 20), (15, 10), (15, 17), (15, 16))] == [0, 1, 2, 2, -1]
    assert label_pieces(MASK, 8.0, 400.0).max() == 0
    assert (label_pieces(np.zeros((3, 4), np.uint8), 8.0, 50.0) == -1).all()


@given(seed=st.integers(0, 1000), tilt=st.floats(-0.05, 0.05))
def test_a_lattice_that_is_not_quite_straight_is_read_row_by_row(seed, tilt):
    rng = np.random.default_rng(seed)
    places = np.array(list(np.ndindex(4, 6)))
    centres = places[:, ::-1] * 100.0 + rng.uniform(-10, 10, (24, 2))
    centres[:, 1] += tilt * centres[:, 0]
    boxes = np.column_stack([centres - 30, np.full((24, 2), 60)])
    mixed = rng.permutation(24)
    order = mixed[reading_order(boxes[mixed], centres[mixed])]
    np.testing.assert_array_equal(order, np.arange(24))


def test_a_tile_is_of_the_piece_with_most_of_its_tissue():
    labels = np.array([[0, 0, 0, 1, 1, -1, -1, -1], [0, 0, 0, 1, 1, -1, -1, -1]], np.int32)
    rc = np.array([[0, 0], [0, 1], [0, 2], [0, 3]])
    assert piece_of_tiles(labels, rc, np.array([2.0, 2.0]), (1, 4)).tolist() == [0, 0, 1, -1], "a tie is the first's"
    assert piece_of_tiles(labels, rc[[1, 0]], np.array([4.0, 2.0]), (1, 2)).tolist() == [1, 0]


def test_tiles_smaller_than_a_pixel_have_the_piece_of_their_centre():
    labels = np.array([[0, -1], [-1, 1]], np.int32)
    rc = np.array(list(np.ndindex(6, 6)))
    pieces = piece_of_tiles(labels, rc, np.array([1 / 3, 1 / 3]), (6, 6)).reshape(6, 6)
    np.testing.assert_array_equal(pieces, labels.repeat(3, axis=0).repeat(3, axis=1))
