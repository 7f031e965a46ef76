import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from longvit.tokens.order import raster_order

places = st.integers(0, 30).flatmap(lambda n: arrays(np.int32, (n, 2), elements=st.integers(0, 50)))


@given(rc=places)
def test_raster_order_is_row_by_row_and_left_to_right(rc):
    assert rc[raster_order(rc)].tolist() == sorted(rc.tolist())


@given(rc=places)
def test_every_token_is_there_once(rc):
    assert sorted(raster_order(rc).tolist()) == list(range(len(rc)))
