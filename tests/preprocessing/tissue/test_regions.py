import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.tissue.regions import without_specks


@given(seed=st.integers(0, 1000), area=st.integers(0, 30))
def test_only_whole_pieces_are_left_out(seed, area):
    region = (np.random.default_rng(seed).random((20, 20)) < 0.4).astype(np.uint8)
    kept = without_specks(region, area)
    assert not (kept & (1 - region)).any()
    grown = cv2.dilate(kept, np.ones((3, 3), np.uint8)) & region
    np.testing.assert_array_equal(grown, kept)  # no kept piece touches one that was left out
    count, _, statistics, _ = cv2.connectedComponentsWithStats(kept, connectivity=8)
    assert all(statistics[1:count, cv2.CC_STAT_AREA] >= area)


def test_a_region_without_specks_stays():
    region = np.zeros((9, 9), np.uint8)
    region[2:6, 2:6] = 1
    np.testing.assert_array_equal(without_specks(region, 16), region)
    assert not without_specks(region, 17).any()
