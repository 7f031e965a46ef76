from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing.config import TissueConfig
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.tissue import detect as found
from preprocessing.tissue.detect import find_tissue

SHARED = Path(__file__).parents[3] / ".." / "shared"
config = TissueConfig(min_area_um2=5000)


@pytest.fixture(scope="module")
def half_soft(tmp_path_factory, image, save_svs):
    soft = image.copy()
    soft[:, 640:] = cv2.GaussianBlur(image, (0, 0), 5)[:, 640:]
    return save_svs(tmp_path_factory.mktemp("soft") / "soft.svs", soft)


def test_focus_is_judged_on_the_slide_not_the_overview(half_soft):
    with read_slide(half_soft) as slide:
        _, mask = find_tissue(slide, config, "soft")
        _, careless = find_tissue(slide, TissueConfig(reject_blur=False), "soft")
    assert (mask[18:46, 44:60] == 3).mean() > 0.95
    assert (mask[18:46, 18:36] == 1).mean() > 0.95
    assert not (careless == 3).any()


def test_threads_find_what_one_alone_finds(half_soft):
    with read_slide(half_soft) as slide, ThreadPoolExecutor(3) as pool:
        overview, mask = find_tissue(slide, config, "soft")
        shared_overview, shared_mask = find_tissue(slide, config, "soft", pool.map)
    np.testing.assert_array_equal(overview, shared_overview)
    np.testing.assert_array_equal(mask, shared_mask)


def test_of_many_blocks_every_other_is_read_and_all_that_look_blurred(half_soft, monkeypatch):
    monkeypatch.setattr(found, "BLOCK_PX", 32)
    read, places, masks, columns = Slide.read_sampled, [], {}, {}
    monkeypatch.setattr(Slide, "read_sampled", lambda *which: (places.append(which[2]), read(*which))[1])
    for most in (1000, 10):
        monkeypatch.setattr(found, "ALL_BLOCKS", most)
        places.clear()
        with read_slide(half_soft) as slide:
            _, masks[most] = find_tissue(slide, config, "soft")
        columns[most] = np.bincount(np.array(places)[:, 0] // 32, minlength=10)
    sharp, blurred = np.s_[:3], np.s_[5:]
    np.testing.assert_array_equal(columns[10][blurred], columns[1000][blurred])
    np.testing.assert_allclose(columns[10][sharp], columns[1000][sharp] / 2, atol=1)
    assert (masks[10] == masks[1000]).mean() > 0.98


def test_a_mask_of_ones_own_is_used_as_it_is(half_soft, tmp_path):
    own = np.zeros((64, 80), np.uint8)
    own[:8] = 1
    (tmp_path / "soft.png").write_bytes(cv2.imencode(".png", own)[1].tobytes())
    with read_slide(half_soft) as slide:
        overview, mask = find_tissue(slide, TissueConfig(masks=tmp_path), "soft")
    assert overview.shape == (64, 80, 3)
    np.testing.assert_array_equal(mask, own)


def test_a_slide_too_coarse_to_judge_keeps_its_tissue(image, save_svs, tmp_path):
    soft = cv2.GaussianBlur(image, (0, 0), 5)
    with read_slide(save_svs(tmp_path / "coarse.svs", soft, mpp=4.0)) as slide:
        _, mask = find_tissue(slide, config, "coarse")
    assert (mask == 1).mean() > 0.3
    assert not (mask == 3).any()


def test_real_sharp_tissue_is_sharp_and_blurred_it_is_blurred(save_svs, tmp_path):
    path = SHARED / "data/slides/CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("../shared is not here")
    with read_slide(path) as slide:
        _, mask = find_tissue(slide, TissueConfig(), "CMU-1")
        pixels = slide.read_region((0, 0), 0, slide.size_l0)
    stained = (mask == 1).sum()
    assert (mask == 3).sum() < 0.02 * stained
    assert stained > 0.3 * mask.size
    soft = save_svs(tmp_path / "soft.svs", cv2.GaussianBlur(pixels, (0, 0), 5), mpp=0.499)
    with read_slide(soft) as slide:
        _, mask = find_tissue(slide, TissueConfig(), "soft")
    assert (mask == 1).sum() < 0.05 * stained
