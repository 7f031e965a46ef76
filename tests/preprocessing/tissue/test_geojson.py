import json
import time
import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry import shape

from preprocessing.errors import SlideError
from preprocessing.tissue.geojson import fill_polygon, outlines, read_geojson, write_geojson

SIZE = (400, 200)


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(*rings, name=None, kind="Polygon"):
    properties = {"objectType": "annotation"} | ({"classification": {"name": name}} if name else {})
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": list(rings)}, "properties": properties}


@pytest.fixture
def read(tmp_path):
    def read(document, shape=(20, 40)):
        path = tmp_path / "slide.geojson"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_geojson(path, SIZE, shape)

    return read


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95), height=st.integers(1, 25), width=st.integers(1, 25))
def test_a_mask_that_was_written_is_read_back_the_same(tmp_path_factory, seed, share, height, width):
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < share) * rng.integers(1, 4, (height, width))
    mask[0, 0] = 1  # without any tissue it would be refused
    path = tmp_path_factory.getbasetemp() / "mask.geojson"
    write_geojson(path, mask.astype(np.uint8), (width * 33 + 5, height * 33 + 2))
    np.testing.assert_array_equal(read_geojson(path, (width * 33 + 5, height * 33 + 2), mask.shape), mask)
    assert all(shapely.is_valid(shape(one["geometry"])) for one in json.loads(path.read_text())["features"])


def test_outlines_keep_holes_with_the_polygon_around_them():
    region = np.zeros((12, 12), bool)
    region[1:11, 1:11], region[3:9, 3:9], region[5:7, 5:7] = True, False, True
    polygons = outlines(region)
    assert sorted(len(rings) for rings in polygons) == [1, 2]
    assert all((ring[0] == ring[-1]).all() for rings in polygons for ring in rings), "GeoJSON closes its rings"


@example(corners=[(0.0, 0.0), (0.0, 0.0), (12.0, 1e-306)])
@given(corners=st.lists(st.tuples(st.floats(-10, 40), st.floats(-10, 30)), min_size=3, max_size=8))
def test_a_pixel_is_inside_if_its_centre_is(corners):
    mask = np.zeros((20, 30), np.uint8)
    fill_polygon(mask, [np.array(corners, float)], 1)
    y, x = np.mgrid[:20, :30] + 0.5
    crossings = np.zeros(mask.shape, int)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        between = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
        if y0 != y1:
            with np.errstate(over="ignore", invalid="ignore"):  # of edges that lie between two rows of centres
                crossings += between & (x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) <= x)
    np.testing.assert_array_equal(mask, crossings % 2)


def test_holes_and_the_parts_of_a_multipolygon_are_painted(read):
    mask = read([feature(box(0, 0, 200, 200), box(50, 50, 150, 150)),
                 feature([box(300, 0, 350, 50)], [box(300, 100, 350, 150)], kind="MultiPolygon")])  # fmt: skip
    assert mask[2, 2] == mask[2, 32] == mask[12, 32] == 1
    assert mask[10, 10] == mask[7, 32] == 0
    assert mask.sum() == 400 - 100 + 25 + 25


@pytest.mark.parametrize(
    ("name", "value"), [("Pen", 2), ("Ignore*", 0), ("blurred", 3), ("Background", 0), ("Tumor", 1), (None, 1)]
)
def test_what_is_not_tissue_is_cut_out_wherever_it_stands_in_the_file(read, name, value):
    tissue, other = feature(box(0, 0, 200, 200), name="Stroma"), feature(box(0, 0, 100, 100), name=name)
    for features in ([tissue, other], [other, tissue]):
        mask = read({"type": "FeatureCollection", "features": features})
        assert (mask[:10, :10] == value).all()
        assert (mask[10:20, :20] == 1).all()


def test_polygons_in_collections_of_geometries_are_painted(read):
    """QuPath writes them for objects that were merged."""
    parts = [
        {"type": "Point", "coordinates": [3, 4]},
        {"type": "Polygon", "coordinates": [box(0, 0, 100, 100)]},
        {
            "type": "GeometryCollection",
            "geometries": [{"type": "MultiPolygon", "coordinates": [[box(300, 0, 400, 50)]]}],
        },
    ]
    mask = read({"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": parts}, "properties": {}})
    assert mask[:10, :10].all()
    assert mask[:5, 30:].all()
    assert mask.sum() == 100 + 50


def test_points_lines_and_what_reaches_beyond_the_slide_do_no_harm(read):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4]}, "properties": {}}
    mask = read([point, feature(box(-500, -500, 100, 1000))])
    assert (mask[:, :10] == 1).all()
    assert not mask[:, 10:].any()


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("{", "not GeoJSON of polygons"),
        ("7", "not GeoJSON of polygons"),
        ({"type": "FeatureCollection"}, "not GeoJSON of polygons"),
        ([feature([[0, 0], [1, 1]])], "fewer than three corners"),
        ([feature([[0, 0], [1, "a"], [2, 2]])], "not GeoJSON of polygons"),
        ('[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[0,0],[NaN,1],[2,2]]]}}]', "pair of numbers"),
        ([feature()], "a polygon has no rings"),
        ([feature([])], "fewer than three corners"),
        ([feature([box(0, 0, 9, 9)], [], kind="MultiPolygon")], "a polygon has no rings"),
        ([feature([[0, 0], [10**400, 1], [2, 2]])], "OverflowError"),
        ([feature([[0, 0], [10**30, 1], [2, 2]])], "pair of numbers"),
        ([feature(box(0, 0, "x" * 1000, 9))], "not GeoJSON of polygons"),
        ([{"type": "Feature", "geometry": {"type": "GeometryCollection"}}], "KeyError"),
        ([{"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [7]}}], "TypeError"),
        ([{"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": []}}], "no polygon of tissue"),
        ("[" * 100_000, "not GeoJSON of polygons"),
        ('{"type":' * 100_000, "not GeoJSON of polygons"),
        ("\xff\x00", "not GeoJSON of polygons"),
        ("9" * 5000, "not GeoJSON of polygons"),
        ([], "no polygon of tissue"),
        ([feature(box(0, 0, 9, 9), name="Pen")], "no polygon of tissue"),
        ([feature(box(1000, 1000, 2000, 2000))], r"outside of the slide, which has 400 x 200 pixels"),
        ([feature(box(-300, 0, -200, 100))], "outside of the slide"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_sentence(read, document, sentence):
    with pytest.raises(SlideError, match=sentence) as error:
        read(document)
    assert error.value.fix
    assert len(str(error.value)) < 1000


def zigzag(corners, height):
    return [[x / 10, height * (x % 2)] for x in range(corners)]


def test_many_corners_over_many_rows_are_painted_in_little_memory(tmp_path):
    mask = np.zeros((5000, 200), np.uint8)
    tracemalloc.start()
    fill_polygon(mask, [np.array(zigzag(1000, 5000.0))], 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6, "2.2 GB for 8,000 corners when all edges were looked at at once"
    assert 0 < mask.sum() < mask.size


@given(seed=st.integers(0, 1000), at_once=st.integers(1, 50))
def test_groups_of_edges_give_what_all_edges_at_once_give(seed, at_once):
    rng = np.random.default_rng(seed)
    rings = [rng.uniform(-10, 40, (rng.integers(3, 30), 2)) for _ in range(2)]
    whole, grouped = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    fill_polygon(whole, rings, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preprocessing.tissue.geojson.AT_ONCE", at_once)
        fill_polygon(grouped, rings, 1)
    np.testing.assert_array_equal(whole, grouped)


@pytest.mark.parametrize(
    "polygons",
    [[zigzag(600_000, 200)], [[[0, 0], [400, 0], [0, 200]]] * 99_000, [[[0, 0], [1, 0], [0, 1]]] * 101_000],
    ids=["a long zigzag", "many large triangles", "many small triangles"],
)
def test_files_of_megabytes_are_refused_in_seconds(tmp_path, polygons):
    path = tmp_path / "slide.geojson"
    path.write_text(json.dumps([feature(*([polygon] for polygon in polygons), kind="MultiPolygon")]))
    begun = time.process_time()
    with pytest.raises(SlideError, match="more and longer edges than can be painted"):
        read_geojson(path, SIZE, (4000, 4000))
    assert time.process_time() - begun < 60, "3 s on a quiet machine"
