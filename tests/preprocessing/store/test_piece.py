import pickle
from pathlib import Path

import numpy as np
import pytest

from preprocessing.errors import StoreError
from preprocessing.store.features import add_embeddings
from preprocessing.store.patch_tissue import patch_tissue
from preprocessing.store.piece import all_pieces, open_piece, split_path, with_pieces
from preprocessing.store.store import open_store


@pytest.fixture
def whole(make_store):
    """Five tiles; the fourth and the fifth are pieces of their own."""
    store = make_store()
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    add_embeddings(store.path, "made", vectors, {"encoder": "made"})
    return open_store(store.path)


@pytest.mark.parametrize(("piece", "members"), [(0, [0, 1, 2]), (1, [3]), (2, [4])])
def test_a_piece_has_its_tiles_of_every_array_and_the_pictures_of_the_slide(whole, piece, members):
    part = pickle.loads(pickle.dumps(open_store(f"{whole.path}~{piece}")))
    assert (len(part), part.slide_id, part.path) == (len(members), f"slide~{piece}", whole.path)
    for name in ("rc", "xy_l0", "tissue", "piece", "crc32c", "xy_st"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[members])
    for name in ("overview", "overview_mask"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
    np.testing.assert_array_equal(part.embeddings("made"), whole.embeddings("made")[members])
    np.testing.assert_array_equal(part.read_tiles(range(len(members))), whole.read_tiles(members))
    np.testing.assert_array_equal(patch_tissue(part, 2), patch_tissue(whole, 2)[members])
    for beyond in ([len(members)], [-1]):
        with pytest.raises(IndexError, match=f"go from 0 to {len(members) - 1}"):
            part.read_tiles(beyond)


def test_pixels_of_other_pieces_are_white(whole):
    part = open_store(f"{whole.path}~2").read_region((0, 0), (128, 96))
    assert part[64:, 96:].std() > 5
    part[64:, 96:] = 255
    assert part.min() == 255


def test_pieces_of_one_glass_are_neither_copies_nor_the_same_input(whole):
    parts = [whole, *(open_store(f"{whole.path}~{piece}") for piece in range(3))]
    assert [part.source.sha256 for part in parts] == ["0", "0~0", "0~1", "0~2"]
    assert len({part.identity() for part in parts}) == 4


def test_a_piece_that_is_not_there_is_refused(whole, make_store):
    with pytest.raises(StoreError, match="no piece 3 with tiles; it has 3 pieces, 0 to 2") as error:
        open_store(f"{whole.path}~3")
    assert "pieces.csv" in error.value.fix
    with pytest.raises(StoreError, match="not the name of a store's piece"):
        open_piece(whole.path)
    with pytest.raises(StoreError):
        open_store(whole.path.with_name("other.zarr~0"))


def test_paths_of_pieces_and_of_stores_are_told_apart():
    assert split_path(Path("a/b.zarr~12")) == (Path("a/b.zarr"), 12)
    for path in ("a/b.zarr", "a/b~12.zarr", "a/b.zarr~x", "a/b.zarr~"):
        assert split_path(Path(path)) == (Path(path), None)


def test_only_named_slides_are_divided():
    stores = {name: Path(f"{name}.zarr") for name in ("TMA", "B", "C~1")}
    assert with_pieces(stores, ["B", "C~1"]) == stores
    assert with_pieces(stores, ["TMA~2", "D~1"]) == {
        "B": Path("B.zarr"), "C~1": Path("C~1.zarr"), "TMA~2": Path("TMA.zarr~2")}  # fmt: skip
    assert "TMA" in with_pieces(stores, ["TMA", "TMA~2"])


def test_all_pieces_of_what_can_be_read(whole):
    stores = {"slide": whole.path, "gone": Path("gone.zarr")}
    assert list(all_pieces(stores)) == ["slide~0", "slide~1", "slide~2", "gone"]
