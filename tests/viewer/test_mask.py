import cv2
import numpy as np
import pytest

from longvit.viewer.mask import MASK_COLOURS, mask_picture
from preprocessing.store.schema import MASK_CLASSES


@pytest.mark.parametrize("name", MASK_COLOURS)
def test_a_class_is_outlined_in_its_colour_and_all_else_stays_clear(name):
    mask = np.zeros((12, 16), np.uint8)
    mask[2:10, 3:9] = MASK_CLASSES[name]
    edge = np.zeros(mask.shape, bool)
    edge[2:10, 3:9] = True
    edge[3:9, 4:8] = False
    picture = cv2.imdecode(np.frombuffer(mask_picture(mask), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture[..., 3], np.where(edge, 255, 0))
    colour = [int(MASK_COLOURS[name][i : i + 2], 16) for i in (5, 3, 1)]  # OpenCV's order
    assert (picture[edge][:, :3] == colour).all()
