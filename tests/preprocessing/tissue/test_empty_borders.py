"""Law: slides with empty borders are searched and tiled within their bounds; GeoJSON has the frame of QuPath."""

import json

import cv2
import numpy as np
import pytest
import shapely
from shapely.geometry import shape

import preprocessing.slides.slide as slides
from preprocessing.config import TileConfig, TissueConfig
from preprocessing.errors import ConfigError
from preprocessing.slides.openslide import OpenSlideBackend
from preprocessing.slides.slide import Slide, read_slide
from preprocessing.store.store import open_store
from preprocessing.tile import run

LEFT, TOP, WIDTH, HEIGHT = BOUNDS = (640, 1280, 1280, 1024)
SIZE = (2560, 3072)
DRAWN = (300, 300, 900, 700)
"""Left, top, right, bottom of a rectangle on the tissue, in the scanned part's pixels."""


@pytest.fixture
def bordered(tmp_path, image, save_svs, monkeypatch):
    """The slide of all tests on a larger frame, as MRXS has it: white, and not scanned."""
    frame = np.full((*SIZE[::-1], 3), 255, np.uint8)
    frame[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = image
    numbers = dict(zip(("x", "y", "width", "height"), BOUNDS, strict=True))
    stated, number = (
        {f"openslide.bounds-{name}": float(value) for name, value in numbers.items()},
        OpenSlideBackend._number,
    )
    monkeypatch.setattr(OpenSlideBackend, "_number", lambda self, name: stated.get(name) or number(self, name))
    return save_svs(tmp_path / "slide.svs", frame)


@pytest.fixture
def tile(bordered, tmp_path):
    """Tile the slide into a folder; return the store, or the reason and fix of its failure."""

    def tile(name="out", **settings):
        out = tmp_path / name
        (row,) = run(TileConfig(slides=bordered, out=out, workers=1, **settings)).rows
        return (row.reason, row.fix) if row.status == "failed" else open_store(out / "slide.zarr")

    return tile


def drawn(folder, box, origin=(0, 0)):
    folder.mkdir(exist_ok=True)
    (left, right), (top, bottom) = (np.array(box).reshape(2, 2) + origin).T.tolist()
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    polygon = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (folder / "slide.geojson").write_text(json.dumps(polygon))
    return folder


def outline(path):
    """The polygons of a file of GeoJSON, all valid."""
    polygons = [shape(feature["geometry"]) for feature in json.loads(path.read_text())["features"]]
    assert polygons
    assert all(map(shapely.is_valid, polygons))
    return shapely.union_all(polygons)


def test_the_overview_is_that_of_the_scanned_part_and_the_border_is_not_read(bordered, image, save_svs, monkeypatch):
    read, corners = Slide.read_scaled, []
    keep = lambda self, xy, size_l0, size: (corners.append([xy, np.add(xy, size_l0)]), read(self, xy, size_l0, size))[1]
    monkeypatch.setattr(Slide, "read_scaled", keep)
    monkeypatch.setattr(slides, "STRIP_PIXELS", 1 << 12)
    with read_slide(bordered) as slide:
        assert (slide.size_l0, slide.bounds_l0) == (SIZE, BOUNDS)
        overview = slide.overview(8.0)
    assert overview.shape == (192, 160, 3)
    assert len(corners) > 1, "in strips"
    assert (np.min(corners, axis=(0, 1)) == BOUNDS[:2]).all()
    assert (np.max(corners, axis=(0, 1)) == np.add(BOUNDS[:2], BOUNDS[2:])).all()
    expected = cv2.resize(image, (80, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(overview[80:144, 40:120] - expected).mean() < 2
    overview[80:144, 40:120] = 255
    assert overview.min() == 255


def test_tiles_lie_in_the_frame_of_the_whole_slide_and_none_on_the_border(tile, image):
    store = tile()
    assert (store.size_l0, store.bounds_l0, store.grid_shape) == (SIZE, BOUNDS, (12, 10))
    tiles = store.read_tiles(range(len(store)))
    for pixels, (x, y) in zip(tiles, (store.xy_l0 - BOUNDS[:2]).tolist(), strict=True):
        part = image[max(y, 0) : y + 256, max(x, 0) : x + 256]
        seen = pixels[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
        assert np.abs(seen.astype(int) - part).mean() < 6
    every = tile("every", min_tissue=0.0)  # glass, too
    assert len(every) == 4 * 6, "columns 2.5 to 7.5, rows 5 to 9"
    assert (every.xy_l0 + 256 > BOUNDS[:2]).all()
    assert (every.xy_l0 < np.add(BOUNDS[:2], BOUNDS[2:])).all()


def test_masks_go_out_in_the_frame_of_qupath_or_of_the_slide_and_come_back(tile, tmp_path):
    store = tile(export_masks="geojson")
    tile("whole", export_masks="geojson", tissue=TissueConfig(geojson_frame="slide"))
    ours, whole = (outline(tmp_path / name / "masks" / "slide.geojson") for name in ("out", "whole"))
    np.testing.assert_allclose(ours.bounds, (256, 256, 1024, 768), atol=40)
    np.testing.assert_allclose(whole.bounds, np.add(ours.bounds, BOUNDS[:2] * 2), atol=0.01)
    for frame, name in (("qupath", "out"), ("slide", "whole")):
        own = TissueConfig(masks=tmp_path / name / "masks", geojson_frame=frame)
        again = tile(f"again {frame}", tissue=own)
        np.testing.assert_array_equal(again.overview_mask, store.overview_mask)
        assert again.attributes["config"]["geojson_frame"] == frame


def test_a_mask_drawn_in_qupath_is_on_the_tissue(tile, tmp_path):
    store = tile(tissue=TissueConfig(masks=drawn(tmp_path / "masks", DRAWN)))
    y, x = (index * 16 for index in np.nonzero(store.overview_mask))
    assert (x.min(), y.min()) == pytest.approx((LEFT + 300, TOP + 300), abs=16)
    assert (x.max() + 16, y.max() + 16) == pytest.approx((LEFT + 900, TOP + 700), abs=16)


@pytest.mark.parametrize(
    ("frame", "origin", "box", "question"),
    [
        ("slide", (0, 0), DRAWN, "is it in QuPath's cropped frame?"),
        ("qupath", BOUNDS[:2], DRAWN, "is it in the frame of the whole slide, with its empty borders?"),
        ("qupath", (0, 0), (-200, 300, 900, 700), "is it in the frame of the whole slide"),
        ("qupath", SIZE, DRAWN, "is it in the frame of the whole slide"),
    ],
)
def test_a_mask_on_the_border_is_asked_about(tile, tmp_path, frame, origin, box, question):
    what, fix = tile(tissue=TissueConfig(masks=drawn(tmp_path / "masks", box, origin), geojson_frame=frame))
    assert fix.startswith(question)
    assert "damaged" not in what + fix
    if origin != SIZE:
        assert "of the mask's tissue is on empty borders" in what
        assert what.endswith("outside of the scanned part, 1280 x 1024 pixels at x=640, y=1280")


def test_the_margin_of_a_drawn_outline_beyond_the_scanned_part_is_glass(tile, tmp_path):
    store = tile(tissue=TissueConfig(masks=drawn(tmp_path / "masks", (-32, 300, 900, 700))))
    assert np.nonzero(store.overview_mask)[1].min() == LEFT // 16


def test_a_picture_of_the_scanned_part_is_asked_about_and_one_of_the_whole_slide_is_read(tile, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    cv2.imwrite(str(masks / "slide.png"), np.ones((HEIGHT // 16, WIDTH // 16), np.uint8))
    what, fix = tile(tissue=TissueConfig(masks=masks))
    assert "another aspect ratio" in what
    assert fix.startswith("is it in QuPath's cropped frame?")
    whole = np.zeros((192, 160), np.uint8)
    whole[100:120, 60:100] = 1
    cv2.imwrite(str(masks / "slide.png"), whole)
    np.testing.assert_array_equal(tile(tissue=TissueConfig(masks=masks)).overview_mask, whole)
    cv2.imwrite(str(masks / "slide.png"), whole[::-1])
    assert tile("other", tissue=TissueConfig(masks=masks))[1].startswith("is it in QuPath's cropped frame?")


def test_the_frame_of_a_mask_is_a_setting_of_its_store(tile, tmp_path):
    masks = drawn(tmp_path / "masks", DRAWN)
    store = tile(tissue=TissueConfig(masks=masks))
    assert tile(tissue=TissueConfig(masks=masks)).overview_mask.any(), "nothing to do"
    with pytest.raises(ConfigError, match=r"geojson_frame \(qupath there, slide now\)"):
        tile(tissue=TissueConfig(masks=masks, geojson_frame="slide"))
    document = store.path / "zarr.json"
    content = json.loads(document.read_text())
    del content["attributes"]["config"]["geojson_frame"]  # as version 0.2 wrote it
    document.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"geojson_frame \(slide there, qupath now\)"):
        tile(tissue=TissueConfig(masks=masks))
    plain = tile("plain")
    assert "geojson_frame" not in {**plain.attributes["config"], **plain.attributes["config"]["tissue"]}
    tile("plain", tissue=TissueConfig(geojson_frame="slide"))


def test_the_picture_of_the_report_shows_the_scanned_part(tile, tmp_path):
    tile()
    picture = cv2.imread(str(tmp_path / "out" / "tile_report" / "slide.jpg"))
    assert picture.shape[:2] == (64, 80)
    (tmp_path / "out" / "tile_report" / "slide.jpg").unlink()
    tile()  # from the finished store
    assert cv2.imread(str(tmp_path / "out" / "tile_report" / "slide.jpg")).shape == picture.shape


def test_areas_that_were_not_scanned_are_left_out_of_a_drawn_mask(tmp_path, image, save_svs):
    """Some slides have such areas within their bounds, or state no bounds."""
    lost = image.copy()
    lost[512:768, 512:768] = 255
    svs, masks = save_svs(tmp_path / "slide.svs", lost), drawn(tmp_path / "masks", (256, 256, 1024, 768))
    config = TileConfig(slides=svs, out=tmp_path / "out", workers=1, tissue=TissueConfig(masks=masks))
    (row,) = run(config).rows
    assert (row.status, row.n_tiles) == ("done", 5)
    assert row.warnings == "only 5 tiles; 1 tiles of the mask left out, where the slide is pure white"
    lost[256:768, 256:768] = 255
    save_svs(svs, lost)
    (row,) = run(config).rows
    assert row.reason == "4 of 6 tiles of the mask are pure white: nothing was scanned there"
    assert row.fix.startswith("is it the mask of this slide")
    lost[256:512, 256:512], lost[256:768, 512:768] = 0, image[256:768, 512:768]
    save_svs(svs, lost)
    (row,) = run(config).rows
    assert "pure black" in row.reason, "never glass: its pixels are lost"
