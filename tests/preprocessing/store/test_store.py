import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing.errors import StoreError
from preprocessing.store.features import add_embeddings
from preprocessing.store.shards import shard_path
from preprocessing.store.store import find_stores, open_store, problems


@pytest.fixture
def store(make_store):
    return make_store()


def test_the_store_says_what_it_was_given(store):
    assert (store.slide_id, store.mpp, store.tile_st, store.grid_shape, len(store)) == ("slide", 0.5, 32, (3, 4), 5)
    assert store.attributes["complete"] is True
    assert store.rc.tolist() == [[0, 0], [0, 1], [1, 1], [2, 0], [2, 3]]
    assert store.xy_l0.tolist() == [[0, 0], [64, 0], [64, 64], [0, 128], [192, 128]]
    assert store.tissue.dtype == np.float32
    assert store.overview.shape == (12, 16, 3)
    assert store.overview_mask.shape == (12, 16)


def test_the_reader_gives_what_plain_zarr_gives(store):
    plain = zarr.open_group(store.path, mode="r")["tiles"]
    np.testing.assert_array_equal(store.read_tiles(range(5)), plain[:])


def test_tiles_are_near_those_that_were_written(store, tiles):
    assert np.abs(store.read_tiles(range(5)).astype(int) - tiles).mean() < 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(0, 4), max_size=8))
def test_tiles_come_in_the_order_asked_for_and_as_often(store, indices):
    all_tiles = store.read_tiles(range(5))
    np.testing.assert_array_equal(store.read_tiles(indices), all_tiles[np.array(indices, int)])


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_is_refused(store, index):
    with pytest.raises(IndexError, match="0 to 4"):
        store.read_tiles([0, index])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=st.integers(-40, 150), y=st.integers(-40, 120), width=st.integers(1, 130), height=st.integers(1, 110))
def test_any_region_is_cut_from_the_white_slide_with_its_tiles(store, x, y, width, height):
    whole = np.full((3 * 32 + 400, 4 * 32 + 400, 3), 255, np.uint8)
    for (row, column), tile in zip(store.rc.tolist(), store.read_tiles(range(5)), strict=True):
        whole[200 + 32 * row : 232 + 32 * row, 200 + 32 * column : 232 + 32 * column] = tile
    expected = whole[200 + y : 200 + y + height, 200 + x : 200 + x + width]
    np.testing.assert_array_equal(store.read_region((x, y), (width, height)), expected)


def test_a_store_goes_to_another_process_without_what_it_has_read(store):
    store.read_tiles(range(5))
    sent = pickle.dumps(store)
    assert len(sent) < 4000
    np.testing.assert_array_equal(pickle.loads(sent).read_tiles([3]), store.read_tiles([3]))


def test_small_arrays_are_read_once_and_cannot_be_changed(store):
    assert store.rc is store.rc
    with pytest.raises(ValueError, match="read-only"):
        store.rc[0] = 7


def test_a_damaged_tile_is_named_not_black(store):
    path = Path(shard_path(store.path / "tiles", 1))
    path.write_bytes(b"\0" * 200 + path.read_bytes()[200:])
    with pytest.raises(StoreError, match="tile 2 is damaged"):
        store.read_tiles([2])
    assert store.read_tiles([0]).shape == (1, 32, 32, 3)


def test_what_is_not_a_finished_store_does_not_open(make_store, tmp_path):
    with pytest.raises(StoreError, match="no store here"):
        open_store(tmp_path / "none.zarr")
    store = make_store()
    group = zarr.open_group(store.path, mode="a")
    group.attrs["complete"] = False
    with pytest.raises(StoreError, match="unfinished"):
        open_store(store.path)
    group.attrs["schema_version"] = 99
    with pytest.raises(StoreError, match="schema version 99"):
        open_store(store.path)


def test_embeddings_come_back_with_their_provenance(store):
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float16)
    assert store.encoders == []
    add_embeddings(store.path, "resnet50", vectors, {"weights": "none"})
    np.testing.assert_array_equal(store.embeddings("resnet50"), vectors)
    assert store.encoders == ["resnet50"]
    assert zarr.open_array(store.path / "embeddings" / "resnet50").attrs["weights"] == "none"
    assert problems(store.path) == []


def test_embeddings_of_the_same_name_are_replaced(store):
    for value in (1, 2):
        add_embeddings(store.path, "resnet50", np.full((5, 3), value, np.float32), {})
    assert open_store(store.path).embeddings("resnet50").max() == 2
    assert [path.name for path in (store.path / "embeddings").iterdir() if path.is_dir()] == ["resnet50"]


def test_missing_embeddings_name_those_that_are_there(store):
    add_embeddings(store.path, "resnet50", np.zeros((5, 3), np.float32), {})
    with pytest.raises(StoreError, match=r"'uni' \(it has: resnet50\)"):
        store.embeddings("uni")


@pytest.mark.parametrize(
    ("encoder", "array", "sentence"),
    [
        ("../x", np.zeros((5, 3), np.float32), "not a plain name"),
        ("uni", np.zeros((4, 3), np.float32), r"shape \(4, 3\), not \(5, e\)"),
        ("uni", np.zeros((5, 3), np.float64), "float64, not"),
        ("uni", np.full((5, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(store, encoder, array, sentence):
    with pytest.raises(StoreError, match=sentence):
        add_embeddings(store.path, encoder, array, {})
    assert store.encoders == []


def test_five_lines_with_plain_zarr_read_a_store(store):
    shape = f"zarr.open_group({str(store.path)!r}, mode='r')['tiles'][2].shape"
    lines = f"import zarr, preprocessing.jpeg.codec\nprint({shape})"
    assert subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True).stdout == "(32, 32, 3)\n"


def test_stores_are_found_by_slide_id_in_order(cohort):
    stores = find_stores(cohort.stores)
    assert list(stores) == sorted(slide for slides in cohort.slides.values() for slide in slides)
    assert all(open_store(path).slide_id == slide_id for slide_id, path in stores.items())


def test_half_written_stores_and_other_files_are_no_stores(save_store, tmp_path):
    save_store("a.b", [[0, 0]])
    (tmp_path / ".c.zarr.partial").mkdir()
    (tmp_path / "notes.zarr").write_text("")
    assert list(find_stores(tmp_path)) == ["a.b"]


@pytest.mark.parametrize(("name", "sentence"), [("", "there are no stores"), ("none", "folder of stores does not")])
def test_a_folder_without_stores_is_refused(tmp_path, name, sentence):
    with pytest.raises(StoreError, match=sentence):
        find_stores(tmp_path / name)
