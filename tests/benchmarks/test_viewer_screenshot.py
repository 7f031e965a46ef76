"""The whole way to the reader's eye: a planted tumour, a model that knows of slides alone, and pixels of a browser."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvit.explanation.faithfulness import auroc

SOURCE = Path(__file__).with_name("viewer_screenshot.py")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("viewer_screenshot", SOURCE)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_heat_is_read_back_from_its_colour(script):
    heat = np.linspace(0, 1, 256).reshape(16, 16)
    rgba = np.round(script.DIVERGING(heat) * 255).astype(np.uint8)
    rgba[0, 0, 3] = 0
    np.testing.assert_allclose(script.heat_of(rgba).ravel()[1:], heat.ravel()[1:], atol=2 / 255)
    assert np.isnan(script.heat_of(rgba)[0, 0])


@pytest.mark.slow
def test_the_hottest_pixels_of_the_page_are_where_the_tumour_was_planted(script, tmp_path):
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")
    if not any(map(shutil.which, script.CHROMIUMS)):
        pytest.skip("no Chromium is on the path (apt install chromium)")
    case = script.make_case(tmp_path)
    with script.viewing(case) as address, script.chromium() as page:
        rgba, picture = script.look(page, case, address)
    Image.fromarray(picture).save(tmp_path / "viewer.png")
    heat = script.heat_of(rgba)
    tissue, covered = script.on_stage(script.TISSUE, *heat.shape), ~np.isnan(heat)
    assert covered[tissue].mean() > 0.999  # a line of pixels at the stage's edge may fall to either side
    shown = tissue & covered
    planted = script.on_stage(case.planted, *heat.shape)[shown]
    assert 0.03 < planted.mean() < 0.3
    assert auroc(heat[shown], planted.astype(float)) >= 0.85
    hottest = heat[shown] >= np.quantile(heat[shown], 1 - planted.mean() / 2)
    assert planted[hottest].mean() >= 0.8  # at random, as much as the tumour's share of the tissue
