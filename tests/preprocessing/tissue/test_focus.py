import cv2
import numpy as np
import pytest

from preprocessing.tissue.focus import CELL_PX, blurred_cells, detail


def texture(side=640, seed=0, strength=25.0, soft=0.8):
    """Gray tissue with detail down to `soft` pixels, RGB."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((side, side)).astype(np.float32), (0, 0), soft)
    gray = (noise - noise.mean()) / noise.std() * strength + 150
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def judge(image, tissue=True):
    measured = detail(image[..., 1], glass=242)
    return blurred_cells(measured, np.full(measured.shape[1:], tissue))


@pytest.mark.parametrize("strength", [8, 20, 30])
def test_a_blurred_half_is_told_from_the_sharp_half_however_strong_the_stain(strength):
    fine = texture(strength=strength)
    fine[:, 320:] = cv2.GaussianBlur(fine, (0, 0), 1.25)[:, 320:]  # 2.5 um
    found = judge(fine)
    assert not found[:, :18].any()
    assert found[:, 22:].all()


def test_a_slide_that_is_blurred_all_over_is_blurred():
    assert judge(cv2.GaussianBlur(texture(), (0, 0), 1.25)).all()
    assert not judge(texture()).any()


def test_glass_within_a_sharp_slide_is_not_judged():
    fine = texture()
    fine[:, 320:] = 243
    assert not judge(fine).any()
    measured = detail(fine[..., 1], glass=242)
    assert measured[2, :, 21:].max() == 0
    assert measured[2, :, :18].min() == 255


def test_the_sharp_rim_of_a_blurred_piece_does_not_make_it_sharp():
    fine = texture(soft=1.0)
    fine[:, 320:] = cv2.GaussianBlur(fine, (0, 0), 1.25)[:, 320:]
    holes = np.random.default_rng(1).integers(330, 630, (25, 2))
    for y, x in holes:
        cv2.circle(fine, (int(x), int(y)), 4, (243, 243, 243), -1)
    assert judge(fine)[21:38, 22:].all()


def test_a_flat_lake_in_sharp_tissue_is_not_blurred():
    fine = texture(960)
    cv2.circle(fine, (480, 480), 120, (180, 180, 180), -1)  # 480 um
    assert not judge(fine).any()


@pytest.mark.parametrize("sigma", [2, 5, 10])
def test_tissue_so_far_out_of_focus_that_it_is_flat_is_blurred(sigma):
    assert judge(cv2.GaussianBlur(texture(), (0, 0), sigma)).all()
    fine = texture(1280)
    fine[:, 640:] = cv2.GaussianBlur(fine, (0, 0), sigma)[:, 640:]
    found = judge(fine)
    assert found[:, 46:].all()
    assert not found[:, :36].any()


def test_only_tissue_is_blurred():
    soft = cv2.GaussianBlur(texture(320), (0, 0), 2)
    assert not judge(soft, tissue=False).any()
    tissue = np.zeros((320 // CELL_PX, 320 // CELL_PX), bool)
    tissue[:, :8] = True
    np.testing.assert_array_equal(blurred_cells(detail(soft[..., 1], 242), tissue), tissue)
