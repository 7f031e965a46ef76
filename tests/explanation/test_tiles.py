import json
import re

import numpy as np
import pytest

from longvit.config import PixelInput
from longvit.explanation.geojson import AGAINST, FOR, HIGH, REST, write_tiles
from longvit.explanation.picture import slide_picture
from longvit.explanation.result import ScoreMap
from longvit.explanation.tiles import sheet, tile_scores
from longvit.tokens.source import token_source
from preprocessing.errors import ConfigError
from preprocessing.tissue.geojson import read_geojson


def one(scores: np.ndarray, *, signed: bool = True) -> ScoreMap:
    return ScoreMap("gradient", "gradient", "Gradient", "a meaning", signed, scores)


def test_a_tile_has_the_mean_score_of_its_tokens_whatever_their_order(store):
    rc = token_source(store, PixelInput(patch_px=16)).rc  # tile after tile, 16 tokens each
    scores = np.random.default_rng(0).normal(size=64)
    mixed = np.random.default_rng(1).permutation(64)
    expected = scores.reshape(4, 16).mean(1)
    np.testing.assert_allclose(tile_scores(scores[mixed], rc[mixed], store.rc, 4), expected)
    np.testing.assert_allclose(tile_scores(expected, store.rc, store.rc, 1), expected)


def test_the_sheet_shows_the_highest_tiles_above_the_lowest_and_none_twice(store):
    scores = np.array([0.5, -2.0, 3.0, 0.1])
    upper, lower = sheet(store, scores, one(scores), most=12).subfigs
    for part, order in ((upper, [2, 0]), (lower, [1, 3])):
        shown = [ax for ax in part.axes if ax.images]
        assert [ax.get_title().split("\n")[0] for ax in shown] == [f"{scores[tile]:.3g}" for tile in order]
        for ax, tile in zip(shown, order, strict=True):
            np.testing.assert_array_equal(ax.images[0].get_array(), store.read_tiles([tile])[0])
            assert ax.get_title().endswith("at {}, {}".format(*store.xy_l0[tile]))
    assert len([ax for ax in sheet(store, scores, one(scores), most=1).subfigs[0].axes if ax.images]) == 1


def test_qupath_gets_a_rectangle_a_measurement_and_a_class_for_every_tile(store, tmp_path):
    scores = np.array([0.5, -2.0, 3.0, 0.1])
    write_tiles(tmp_path / "t.geojson", one(scores), scores, store.xy_l0, (128.0, 128.5))
    features = json.loads((tmp_path / "t.geojson").read_text())["features"]
    assert [f["properties"]["measurements"]["gradient"] for f in features] == scores.tolist()
    assert [f["properties"]["classification"]["name"] for f in features] == [FOR[0], AGAINST[0], FOR[0], FOR[0]]
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    x, y = store.xy_l0[1].tolist()
    ring = [[x, y], [x + 128.0, y], [x + 128.0, y + 128.5], [x, y + 128.5], [x, y]]
    assert features[1]["geometry"] == {"type": "Polygon", "coordinates": [ring]}


def test_rectangles_cover_the_tiles_where_a_mask_is_read_from_them(store, tmp_path):
    write_tiles(tmp_path / "t.geojson", one(np.zeros(4)), np.zeros(4), store.xy_l0, tuple(store.attributes["side_l0"]))
    mask = read_geojson(tmp_path / "t.geojson", tuple(store.attributes["size_l0"]), store.grid_shape)
    assert sorted(zip(*np.nonzero(mask), strict=True)) == sorted(map(tuple, store.rc.tolist()))


def test_rectangles_begin_at_the_corner_that_is_asked_for(store, tmp_path):
    write_tiles(tmp_path / "t.geojson", one(np.zeros(4)), np.zeros(4), store.xy_l0, (128.0, 128.0), (100, 20))
    features = json.loads((tmp_path / "t.geojson").read_text())["features"]
    corners = np.array([feature["geometry"]["coordinates"][0][0] for feature in features])
    np.testing.assert_array_equal(corners, store.xy_l0 - (100, 20))


def test_scores_without_a_sign_are_classed_by_the_highest_tenth(tmp_path):
    scores, xy_l0 = np.arange(20.0), np.zeros((20, 2), np.int64)
    write_tiles(tmp_path / "t.geojson", one(scores, signed=False), scores, xy_l0, (4.0, 4.0))
    features = json.loads((tmp_path / "t.geojson").read_text())["features"]
    assert [f["properties"]["classification"]["name"] for f in features] == [REST[0]] * 18 + [HIGH[0]] * 2


def test_the_slide_is_shown_at_the_resolution_that_is_asked_for(store):
    assert slide_picture(store, None) is store.overview
    image = slide_picture(store, 0.5)  # the store's own: 5 x 4 tiles of 64 pixels
    assert image.shape == (256, 320, 3)
    for tile, (row, column) in enumerate(store.rc.tolist()):
        part = image[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
        np.testing.assert_array_equal(part, store.read_tiles([tile])[0])
    half = slide_picture(store, 1.0)
    np.testing.assert_allclose(half[96:128, 32:64].mean((0, 1)), store.read_tiles([0])[0].mean((0, 1)), atol=1)


def test_an_overlay_that_no_viewer_would_open_is_refused_with_what_would_do(store):
    with pytest.raises(ConfigError, match="pixels") as error:
        slide_picture(store, 0.001)
    finest = float(re.search(r"\d+\.\d+", error.value.fix)[0])
    assert np.prod([side * 0.25 / finest for side in store.attributes["size_l0"]]) <= 100_000_000
