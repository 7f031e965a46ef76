"""Stores of schema 2 as they are written: with pixels, and of imported features without pixels."""

import itertools
import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from preprocessing.config import TileConfig
from preprocessing.errors import StoreError
from preprocessing.frames import l0_from_rc, nearest_rc
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.arrays import REMAKE, remedy
from preprocessing.store.features import add_embeddings
from preprocessing.store.schema import ARRAYS, EMBEDDING, FIRST, Source, StoreAttributes
from preprocessing.store.shards import read_chunks, read_index, shard_path
from preprocessing.store.store import open_store, problems
from preprocessing.store.writer import finish_store, write_array, write_arrays
from preprocessing.tiling.manifest import SlideEntry
from preprocessing.tiling.resume import reason_to_tile

FACTS = {"slide_id": "slide", "source": Source(name="slide.svs"), "vendor": "aperio", "mpp": 0.5, "mpp_level0": 0.25}
FACTS |= {"mpp_source": "flag", "size_l0": (256, 192), "tile_st": 32, "grid_shape": (3, 4), "side_l0": (64.0, 64.0)}
FACTS |= {"config": {}, "versions": {}}
OPTIONAL = ("tissue", "overview", "overview_mask", "piece")


@pytest.fixture
def bring(tmp_path, image):
    """Write a store without pixels, of the tiles at `xy_l0`, with some of the small arrays; return its path."""

    def write(xy_l0, *names: str, rc=None, **changes):
        xy_l0 = np.array(xy_l0, np.int64).reshape(-1, 2)
        rc = nearest_rc(xy_l0, 64.0, (3, 4)) if rc is None else np.array(rc, np.int32).reshape(-1, 2)
        small = {"overview": image[:12, :16], "overview_mask": np.zeros((12, 16), np.uint8)}
        small |= {"tissue": np.ones(len(rc), np.float32), "piece": np.full(len(rc), -1, np.int32)}
        arrays = {"rc": rc, "xy_l0": xy_l0} | {name: small[name] for name in names}
        path = tmp_path / "slide.zarr"
        write_arrays(path, None, arrays, 32, jpeg=Jpeg(level=90, subsampling="444"), shard_tiles=2)
        finish_store(path, StoreAttributes(**FACTS | changes))
        return path

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zarrs(folder: Path, spec, array, attributes=None, **layout) -> zarr.Array:
    """Create an array as the writer does, with zarr."""
    given = {"dtype": spec.dtypes[0], "chunks": tuple(max(1, side) for side in array.shape)}
    given |= {"compressors": (ZstdCodec(level=0), Crc32cCodec()), "fill_value": 255 if "rgb" in spec.axes else 0}
    names = {"dimension_names": spec.axes, "attributes": attributes or {"meaning": spec.meaning}}
    config = {"write_empty_chunks": True}
    return zarr.create_array(folder, shape=array.shape, config=config, zarr_format=3, **names, **given | layout)


SMALL = {
    "xy_l0": np.arange(-3, 11).reshape(7, 2),
    "rc": np.arange(14).reshape(7, 2)[::-1],  # of another type, and not contiguous
    "tissue": np.linspace(0, 1, 7, dtype=">f4"),
    "piece": np.full(0, -1, np.int32),
    "overview_mask": np.eye(1030, 700, dtype=np.uint8),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_arrays_have_the_bytes_that_zarr_writes(tmp_path, name):
    write_array(tmp_path / "ours" / name, ARRAYS[name], SMALL[name])
    zarrs(tmp_path / "zarr" / name, ARRAYS[name], SMALL[name])[:] = SMALL[name]
    assert contents(tmp_path / "ours") == contents(tmp_path / "zarr")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "ours" / name, mode="r")[:], SMALL[name])


@pytest.mark.parametrize("dtype", EMBEDDING.dtypes)
def test_features_have_the_bytes_that_zarr_writes(tmp_path, dtype):
    array, attributes = np.arange(12, dtype=dtype).reshape(3, 4).T, {"encoder": "é", "layers": [1, None, 0.1]}
    write_array(tmp_path / "ours", EMBEDDING, array, attributes)
    zarrs(tmp_path / "zarr", EMBEDDING, array, attributes, dtype=dtype)[:] = array
    assert contents(tmp_path / "ours") == contents(tmp_path / "zarr")


@pytest.mark.parametrize("size", [(20, 30), (1100, 1030)])  # the second in four chunks, three of them padded
def test_overviews_have_the_bytes_that_zarr_writes(tmp_path, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    jpeg, spec = Jpeg(level=90, subsampling="420"), ARRAYS["overview"]
    write_array(tmp_path / "ours", spec, image, jpeg=jpeg)
    chunks = (min(size[0], 1024), min(size[1], 1024), 3)
    zarrs(tmp_path / "zarr", spec, image, chunks=chunks, serializer=jpeg, compressors=Crc32cCodec())[:] = image
    assert contents(tmp_path / "ours") == contents(tmp_path / "zarr")


def test_documents_of_tiles_and_groups_have_the_bytes_that_zarr_writes(tmp_path, make_store):
    path, theirs = make_store(warnings=["odd, ä"]).path, tmp_path / "zarr"
    group = zarr.create_group(theirs, zarr_format=3)
    group.create_group("embeddings")
    group.attrs.put(dict(zarr.open_group(path, mode="r").attrs))
    layout = {"chunks": (1, 32, 32, 3), "shards": (2, 32, 32, 3), "compressors": Crc32cCodec()}
    tiles = zarr.open_array(path / "tiles", mode="r")
    zarrs(theirs / "tiles", ARRAYS["tiles"], tiles, serializer=Jpeg(level=90, subsampling="444"), **layout)
    for document in ("zarr.json", "embeddings/zarr.json", "tiles/zarr.json"):
        assert (path / document).read_bytes() == (theirs / document).read_bytes(), document


def test_everything_that_was_written_is_read_back(make_store):
    store = make_store(bounds_l0=(10, 20, 200, 100), warnings=["odd"])
    assert set(store.arrays) == set(ARRAYS)
    assert store.attributes["schema_version"] == 2
    assert (store.size_l0, store.bounds_l0, store.side_l0) == ((256, 192), (10, 20, 200, 100), (64.0, 64.0))
    assert (store.mpp_l0, store.mpp_source, store.vendor, store.lattice) == (0.25, "metadata", "aperio", True)
    assert (store.source.name, store.source.sha256, store.warnings) == ("slide.svs", "0", ("odd",))
    assert (store.piece.tolist(), store.piece.dtype) == ([0, 0, 0, 1, 2], np.int32)
    assert problems(store.path) == []


def test_crc32c_is_that_of_the_bytes_of_each_jpeg(make_store):
    store = make_store()
    path = shard_path(store.path / "tiles", 0)
    first, second = (chunk[:-4] for chunk in read_chunks(path, read_index(path, 2, 1 << 20), np.array([0, 1])))
    assert first.endswith(b"\xff\xd9")
    assert store.crc32c[:2].tolist() == [google_crc32c.value(first), google_crc32c.value(second)]


def test_a_flipped_byte_of_a_tile_is_named_with_place_and_fix(make_store):
    path = make_store().path
    shard = Path(shard_path(path / "tiles", 1))
    data = bytearray(shard.read_bytes())
    data[300] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"tile 2 is damaged \(a checksum is wrong\)") as caught:
        open_store(path).read_tiles([2])
    assert caught.value.where == path
    assert "remove this store" in caught.value.fix


def test_a_tile_in_the_place_of_another_is_named_though_it_is_whole(make_store):
    path = make_store().path
    shutil.copyfile(shard_path(path / "tiles", 0), shard_path(path / "tiles", 1))
    assert problems(path) == []  # which reads no tile
    with pytest.raises(StoreError, match=r"tile 2 is damaged \(the chunk was written for another place or array\)"):
        open_store(path).read_tiles([2])


@pytest.mark.parametrize("names", [n for k in range(5) for n in itertools.combinations(OPTIONAL, k)])
def test_each_array_but_two_may_be_absent(bring, names):
    path = bring([[0, 0], [64, 128]], *names)
    store = open_store(path)
    assert problems(path) == []
    assert set(store.arrays) == {"rc", "xy_l0", *names}
    assert (store.source.size, store.source.sha256) == (None, None)
    for name in ("tiles", "crc32c", *OPTIONAL):
        if name not in names:
            with pytest.raises(StoreError, match=f"the store has no {name}: it has imported features without") as error:
                store.read_tiles([0]) if name == "tiles" else getattr(store, name)
            assert (error.value.where, "longvit tile" in error.value.fix) == (path, True)


@pytest.mark.parametrize("name", ["rc", "xy_l0", "tissue"])
def test_an_array_that_is_listed_and_not_there_is_lost(bring, name):
    path = bring([[0, 0]], "tissue")
    shutil.rmtree(path / name)
    assert problems(path) == [f"array {name} is missing"]


def test_a_slide_may_have_no_tiles_if_it_has_no_pixels(bring, make_store):
    path = bring([], "tissue", "piece")
    add_embeddings(path, "uni", np.zeros((0, 7), np.float16), {})
    store = open_store(path)
    assert (len(store), store.rc.shape, store.xy_l0.shape, store.tissue.shape) == (0, (0, 2), (0, 2), (0,))
    assert (store.embeddings("uni").shape, store.embeddings("uni").dtype) == ((0, 7), np.float16)
    assert zarr.open_array(path / "rc", mode="r").shape == (0, 2)
    assert problems(path) == []


def test_tiles_that_are_no_lattice_may_share_a_cell_and_overlap(bring):
    path = bring([[0, 0], [5, 3], [-30, -7], [250, 191]], lattice=False)
    store = open_store(path)
    assert store.rc.tolist() == [[0, 0], [0, 0], [0, 0], [2, 3]]
    assert store.xy_l0.tolist() == [[0, 0], [5, 3], [-30, -7], [250, 191]]
    assert store.xy_st.tolist() == [[0, 0], [2, 2], [-15, -4], [125, 96]]
    assert problems(path) == []


@pytest.mark.parametrize(
    ("xy_l0", "rc", "lattice", "sentence"),
    [
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], True, "rc contains a tile twice"),
        ([[0, 0], [5, 3]], [[0, 0], [0, 1]], True, "xy_l0 is not rc times side_l0"),
        ([[0, 0], [5, 3]], [[0, 0], [0, 1]], False, "rc is not the cell nearest to xy_l0"),
        ([[0, 0], [-65, 0]], None, False, "xy_l0 is outside the slide"),
        ([[0, 0], [0, 192]], None, False, "xy_l0 is outside the slide"),
        ([[0, 0], [-(2**63), 2**62]], [[0, 0], [0, 0]], False, "xy_l0 is outside the slide"),
    ],
)
def test_places_that_contradict_each_other_are_refused(bring, xy_l0, rc, lattice, sentence):
    path = bring(xy_l0, rc=rc, lattice=lattice)
    assert any(sentence in problem for problem in problems(path))
    with pytest.raises(StoreError, match=sentence):
        _ = open_store(path).rc, open_store(path).xy_l0


def test_a_store_with_pixels_may_be_no_lattice_and_is_shown_where_its_tiles_lie(tmp_path, tiles):
    xy_l0 = np.array([[0, 0], [6, 70]])
    arrays = {"rc": nearest_rc(xy_l0, 64.0, (3, 4)), "xy_l0": xy_l0}
    jpeg = Jpeg(level=90, subsampling="444")
    jpegs = ((i, (jpeg.encode_image(tile),)) for i, tile in enumerate(tiles[:2]))
    write_arrays(tmp_path / "slide.zarr", jpegs, arrays, 32, jpeg=jpeg, shard_tiles=2)
    source = Source(name="slide.svs", size=1, sha256="0")
    finish_store(tmp_path / "slide.zarr", StoreAttributes(**FACTS | {"lattice": False, "source": source}))
    store = open_store(tmp_path / "slide.zarr")
    np.testing.assert_array_equal(store.read_region((3, 35), (32, 32)), store.read_tiles([1])[0])


def test_features_have_their_encoder_and_hash_and_others_are_refused(bring):
    path = bring([[0, 0], [64, 0]])
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    add_embeddings(path, "uni", vectors, {"encoder": "MahmoodLab/UNI", "weights": "abc"})
    attributes = dict(zarr.open_array(path / "embeddings" / "uni", mode="r").attrs)
    assert (attributes["encoder"], attributes["weights"]) == ("MahmoodLab/UNI", "abc")
    np.testing.assert_array_equal(open_store(path).embeddings("uni"), vectors)
    zarr.open_array(path / "embeddings" / "uni", mode="r+")[:] = vectors + 1  # with the right checksum of its chunk
    with pytest.raises(StoreError, match="embeddings/uni does not have the values of its values_sha256") as caught:
        open_store(path).embeddings("uni")
    assert (caught.value.where, caught.value.fix) == (path, "write these features again")
    assert len(problems(path)) == 1


def test_features_of_schema_1_have_no_hash_and_are_read(make_store, as_schema_1):
    path = make_store().path
    add_embeddings(path, "uni", np.ones((5, 4), np.float32), {})
    zarr.open_array(path / "embeddings" / "uni", mode="r+").attrs.put({"weights": "abc"})
    as_schema_1(path)
    assert open_store(path).embeddings("uni").shape == (5, 4)


def test_a_store_of_schema_1_opens_and_says_what_it_lacks(make_store, as_schema_1):
    path = make_store().path
    expected = open_store(path).read_tiles(range(5))
    as_schema_1(path)
    store = open_store(path)
    assert problems(path) == []
    assert (store.arrays, store.lattice, store.bounds_l0) == (FIRST, True, None)
    assert set(store.attributes) & {"arrays", "lattice", "bounds_l0"} == set()
    np.testing.assert_array_equal(store.read_tiles(range(5)), expected)
    np.testing.assert_array_equal(store.xy_l0, l0_from_rc(store.rc, store.side_l0))
    with pytest.raises(StoreError, match="the store has no piece: an earlier version made it"):
        _ = store.piece


@pytest.mark.parametrize("name", FIRST)
def test_a_store_of_schema_1_needs_all_its_arrays(make_store, as_schema_1, name):
    path = make_store().path
    as_schema_1(path)
    shutil.rmtree(path / name)
    assert problems(path) == [f"array {name} is missing"]


def edit(old: str, new: str):
    """Return a function that replaces a text in a store's document."""

    def damage(path: Path) -> None:
        text = (path / "zarr.json").read_text()
        assert old in text
        (path / "zarr.json").write_text(text.replace(old, new))

    return damage


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: shutil.rmtree(path / "rc"),
        lambda path: (path / "zarr.json").unlink(),
        lambda path: (path / "zarr.json").write_text("{"),
        lambda path: (path / "zarr.json").write_bytes(b" " * (1 << 21)),
        lambda path: (path / "xy_l0" / "zarr.json").write_bytes(b" " * (1 << 21)),
        lambda path: (path / "xy_l0" / "zarr.json").write_text("{}"),
        lambda path: shutil.rmtree(path / "xy_l0" / "c"),
        lambda path: (path / "xy_l0" / "c" / "0" / "0").write_bytes(b"not zstd"),
        edit('"vendor"', '"brand"'),
        edit('"schema_version": 2', '"schema_version": 9'),
        edit('"slide_id": "slide"', '"slide_id": "other"'),
        edit('"slide_id": "slide"', '"slide_id": "../x"'),
    ],
)
def test_only_slides_of_stores_with_pixels_are_to_be_tiled_again(bring, make_store, pixels, damage, monkeypatch):
    path = make_store().path if pixels else bring([[0, 0], [64, 128]])
    add_embeddings(path, "uni", np.ones((len(open_store(path)), 4), np.float32), {})
    damage(path)
    with pytest.raises(StoreError) as error:
        _ = open_store(path).xy_l0
    fix = error.value.fix
    assert remedy(path / "rc" / "c" / "0", "tile it") == ("tile it" if pixels else REMAKE)
    monkeypatch.chdir(path)
    assert remedy(".", "tile it") == remedy(path, "tile it")
    assert ("longvit tile" in fix or "tile the slide" in fix, "make its features again" in fix) == (pixels, not pixels)


def test_a_damaged_store_without_pixels_is_not_replaced_by_tiling_its_slide(bring):
    path = bring([[0, 0], [64, 128]])
    add_embeddings(path, "uni", np.ones((2, 4), np.float32), {})
    shutil.rmtree(path / "rc")
    entry, config = SlideEntry("slide", Path("slide.svs")), TileConfig(slides=Path("slide.svs"), out=path.parent)
    with pytest.raises(StoreError, match="array rc is missing"):
        reason_to_tile(entry, path, config)
    shutil.rmtree(path / "embeddings")
    assert reason_to_tile(entry, path, config) == "its store was damaged (array rc is missing)"
