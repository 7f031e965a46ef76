"""Law: stores made to do harm, or damaged, are refused by name, before code runs and before memory is taken.

`test_oldest_versions_slow.py` runs this file under the oldest versions of zarr and numcodecs that the project admits.
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from preprocessing.errors import StoreError
from preprocessing.store.arrays import MAX_DOCUMENT_BYTES, checksum
from preprocessing.store.features import add_embeddings
from preprocessing.store.schema import ARRAYS
from preprocessing.store.shards import EMPTY, shard_path
from preprocessing.store.store import find_stores, open_store, problems

READS = {
    **{name: lambda store, name=name: getattr(store, name) for name in ARRAYS if name != "tiles"},
    "tiles": lambda store: store.read_tiles(range(len(store))),
    "region": lambda store: store.read_region((0, 0), (128, 96)),
    "embeddings/uni": lambda store: store.embeddings("uni"),
}


@pytest.fixture
def path(make_store):
    path = make_store().path
    add_embeddings(path, "uni", np.arange(20, dtype=np.float32).reshape(5, 4), {})
    return path


def change(document: Path, edit) -> None:
    content = json.loads(document.read_text())
    edit(content)
    document.write_text(json.dumps(content))


def set_attribute(path: Path, **changes) -> None:
    change(path / "zarr.json", lambda document: document["attributes"].update(changes))


def set_layout(path: Path, name: str, **changes) -> None:
    change(path / name / "zarr.json", lambda document: document.update(changes))


def write_chunk(path: Path, name: str, array: np.ndarray) -> None:
    """Replace the only chunk of an array by others values, with the right checksum."""
    data = imagecodecs.zstd_encode(np.ascontiguousarray(array).tobytes())
    path.joinpath(name, "c", *"0" * array.ndim).write_bytes(data + checksum([data]))


def refused(path: Path, read=None) -> StoreError:
    """The error of a store, which names the place and a fix."""

    def open_and_read():
        store = open_store(path)
        for function in READS.values() if read is None else [READS[read]]:
            function(store)

    with pytest.raises(StoreError) as caught:
        open_and_read()
    error = caught.value
    assert error.fix
    assert path.name in str(error.where)
    return error


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mknod, (str(self.marker),)


V2 = {"zarr_format": 2, "shape": [5, 2], "chunks": [5, 2], "order": "C", "fill_value": 0, "dimension_separator": "."}
V2_ARRAYS = {
    "compressor": V2 | {"dtype": "|O", "compressor": {"id": "pickle", "protocol": 5}, "filters": [{"id": "vlen-utf8"}]},
    "filter": V2 | {"dtype": "|O", "compressor": None, "filters": [{"id": "pickle", "protocol": 5}]},
    "plain": V2 | {"dtype": "<i4", "compressor": None, "filters": None},
}


@pytest.mark.parametrize("name", ["rc", "tissue", "tiles", "overview", "embeddings/uni"])
@pytest.mark.parametrize("kind", V2_ARRAYS)
def test_an_array_of_zarr_2_is_not_opened_and_its_pickle_not_loaded(path, tmp_path, name, kind):
    marker = tmp_path / "ran"
    shutil.rmtree(path / name)
    (path / name).mkdir()
    (path / name / ".zarray").write_text(json.dumps(V2_ARRAYS[kind]))
    for chunk in ("0", "0.0", "0.0.0", "0.0.0.0"):
        (path / name / chunk).write_bytes(pickle.dumps(Bomb(marker)))
    refused(path)
    assert problems(path) or name.startswith("embeddings/")
    assert not marker.exists()
    os.mknod(tmp_path / "proof")
    assert pickle.loads(pickle.dumps(Bomb(marker))) is None  # it would have run
    assert marker.exists()


PICKLE = {"name": "numcodecs.pickle", "configuration": {"protocol": 5}}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


SMALL = [name for name in ARRAYS if name != "tiles"]


@pytest.mark.parametrize("name", [*SMALL, "embeddings/uni"])
@pytest.mark.parametrize(
    "changes",
    [
        {"codecs": [PICKLE]},
        {"codecs": [BYTES, PICKLE]},
        {"codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}}, BYTES]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"codecs": [{"name": "numcodecs.fixedscaleoffset", "configuration": {"offset": 0, "scale": 2}}, BYTES]},
        {"codecs": [BYTES, {"name": "blosc", "configuration": {}}]},
        {"codecs": [BYTES, {"name": "gzip", "configuration": {"level": 1}}]},
        {"codecs": [{"name": "vlen-utf8", "configuration": {}}]},
        {"codecs": []},
        {"codecs": {}},
        {"codecs": "bytes"},
        {"data_type": "object"},
        {"data_type": "string"},
        {"data_type": {"name": "variable_length_bytes", "configuration": {}}},
        {"data_type": "float64"},
        {"storage_transformers": [{"name": "pickle", "configuration": {}}]},
        {"must_understand_me": {"name": "pickle"}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}},
        {"chunk_grid": {"name": "rectangular", "configuration": {"chunk_shape": [5]}}},
        {"zarr_format": 2},
        {"node_type": "group"},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)
def test_foreign_codecs_types_and_transformers_are_refused_in_the_document(path, name, changes):
    set_layout(path, name, **changes)
    what = refused(path, name).what
    assert name in what
    assert any(what in problem for problem in problems(path))


@pytest.mark.parametrize("codec", [PICKLE, BYTES, {"name": "imagecodecs_jpeg", "configuration": {"header": "AA=="}}])
def test_foreign_codecs_in_shards_are_refused(path, codec):
    change(path / "tiles" / "zarr.json", lambda doc: doc["codecs"][0]["configuration"].update(codecs=[codec]))
    assert "tiles" in refused(path, "tiles").what


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"mpp": float("nan")}, "attribute mpp"),
        ({"mpp": float("inf")}, "attribute mpp"),
        ({"mpp": "0.5"}, "attribute mpp"),
        ({"mpp": 0.6}, "attribute mpp: 0.6 is not the resolution of its tiles, 0.5"),
        ({"mpp": None}, "attribute mpp"),
        ({"mpp": 10**400}, "attribute mpp"),
        ({"tile_st": 0}, "attribute tile_st"),
        ({"tile_st": 10**9}, "attribute tile_st"),
        ({"tile_st": 31}, "attribute mpp"),
        ({"side_l0": [0, 64]}, "attribute side_l0"),
        ({"side_l0": [1e-300, 1e300]}, "attribute size_l0"),
        ({"size_l0": [-256, 192]}, "attribute size_l0"),
        ({"size_l0": [2**40, 2**40]}, "attribute size_l0"),
        ({"size_l0": [10**400, 1]}, "attribute size_l0"),
        ({"grid_shape": [10**6, 10**6]}, r"attribute grid_shape: \(1000000, 1000000\) is not \(3, 4\)"),
        ({"size_l0": [2**20, 2**18], "side_l0": [2**-3, 2**-3]}, "tiles are too many"),
        ({"slide_id": "../../thesis"}, "slide id is not a plain name"),
        ({"slide_id": "/home/me/thesis"}, "slide id is not a plain name"),
        ({"slide_id": ""}, "attribute slide_id"),
        ({"slide_id": "other"}, "not named after its slide, other"),
        ({"source": {"name": "../x", "size": 1, "sha256": "0"}}, "attribute source.name"),
        ({"source": {"name": "x", "more": ["/etc/passwd"], "size": 1, "sha256": "0"}}, "attribute source.more"),
        ({"source": {"name": "x", "more": ["a\\..\\..\\b"], "size": 1, "sha256": "0"}}, "attribute source.more"),
        ({"source": {"name": "c:x", "more": [], "size": 1, "sha256": "0"}}, "attribute source.name"),
        ({"complete": "true"}, "unfinished"),
        ({"source": {"name": "x", "size": -1, "sha256": "0"}}, "attribute source.size: Input should be greater than"),
        ({"source": {"name": "x", "size": 1.0, "sha256": "0"}}, "attribute source.size: Input should be a valid int"),
        ({"mask": {"name": "x", "size": -1, "sha256": "0"}}, "attribute mask.size: Input should be greater than"),
        ({"schema_version": 99}, "schema version 99"),
        ({"schema_version": 0}, "schema version 0; this program reads 1 to 2"),
        ({"schema_version": 2.0}, "schema version 2.0; this program reads 1 to 2"),
        ({"schema_version": True}, "schema version True; this program reads 1 to 2"),
        ({"schema_version": 1}, "attribute arrays: is not in schema 1"),
        ({"arrays": ["rc"]}, "attribute arrays: xy_l0 is not in it"),
        ({"arrays": ["rc", "rc", "xy_l0"]}, "attribute arrays: names an array twice"),
        ({"arrays": ["rc", "xy_l0", "tiles"]}, "attribute arrays: tiles and crc32c require each other"),
        ({"arrays": ["rc", "xy_l0", "../../etc"]}, "attribute arrays.2"),
        ({"arrays": ["rc"] * 100_000}, "attribute arrays: Tuple should have at most 8 items"),
        ({"source": {"name": "x", "size": 1}}, "attribute source: has no size or no sha256"),
        ({"bounds_l0": [0, 0, 257, 192]}, "attribute bounds_l0: .* extends beyond the slide"),
        ({"bounds_l0": [-1, 0, 9, 9]}, "attribute bounds_l0.0"),
        ({"bounds_l0": [0, 0, 0, 9]}, "attribute bounds_l0.2"),
        ({"lattice": 0}, "attribute lattice"),
        ({"schema_version": "x" * 1000}, "schema version xxxx"),
        ({"unknown": 1}, "attribute unknown"),
        ({"warnings": [1] * 10_000}, "attribute warnings.0"),
    ],
)
def test_attributes_that_cannot_be_are_refused(path, attributes, sentence):
    set_attribute(path, **attributes)
    error = refused(path)
    with pytest.raises(StoreError, match=sentence):
        raise error
    assert len(str(error)) < 2000
    assert error.what in problems(path)


def test_every_attribute_without_a_default_is_needed(path):
    for key in ("slide_id", "source", "vendor", "mpp", "size_l0", "tile_st", "grid_shape", "side_l0", "versions"):
        content = (path / "zarr.json").read_text()
        change(path / "zarr.json", lambda document, key=key: document["attributes"].pop(key))
        assert refused(path).what.startswith(f"attribute {key}")
        (path / "zarr.json").write_text(content)


def test_a_renamed_store_says_how_to_go_on(path):
    path.rename(path.with_name("new.zarr"))
    error = refused(path.with_name("new.zarr"))
    assert error.fix.startswith("rename it to slide.zarr")


def test_a_store_opens_from_within_its_folder_and_through_a_link(path, monkeypatch, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / path.name).symlink_to(path)
    assert len(open_store(tmp_path / "links" / path.name)) == 5
    monkeypatch.chdir(path)
    assert len(open_store(".")) == 5


HUGE = 10**11


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "rc",
            {"shape": [HUGE, 2], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 2]}}},
            "rc has",
        ),
        ("rc", {"shape": [-5, 2]}, "positive numbers"),
        (
            "rc",
            {"shape": [0, 2], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 2]}}},
            "rc has",
        ),
        ("crc32c", {"shape": [HUGE]}, "crc32c has shape"),
        ("piece", {"shape": [4]}, "array piece"),
        ("rc", {"shape": [5.0, 2]}, "positive numbers"),
        ("rc", {"shape": []}, "positive numbers"),
        ("rc", {"shape": None}, "positive numbers"),
        ("rc", {"chunk_grid": None}, "array rc"),
        ("rc", {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [HUGE, 2]}}}, "has chunks"),
        ("overview", {"shape": [10**6, 10**6, 3]}, "overview has"),
        ("overview_mask", {"shape": [10**6, 10**6]}, "overview has"),
        ("embeddings/uni", {"shape": [HUGE, 4]}, "uni has shape"),
        ("embeddings/uni", {"shape": [5, 10**9]}, "uni has 1000000000 channels"),
        ("embeddings/uni", {"shape": [5, 60_000]}, "uni is missing"),
        ("tiles", {"shape": [HUGE, 32, 32, 3]}, "array xy_l0 has shape"),
    ],
)
def test_sizes_that_cannot_be_are_refused(path, name, changes, sentence):
    set_layout(path, name, **changes)
    with pytest.raises(StoreError, match=sentence):
        raise refused(path, name)


def test_an_array_of_millions_of_chunks_is_refused_before_they_are_listed(path):
    n = 1 << 26
    set_attribute(path, arrays=["rc", "xy_l0"], lattice=False)
    for name in ("rc", "xy_l0"):
        grid = {"name": "regular", "configuration": {"chunk_shape": [1, 2]}}
        set_layout(path, name, shape=[n, 2], chunk_grid=grid)
    assert f"it would be one of {n:,}" in refused(path, "rc").what


def test_a_store_of_this_version_without_an_array_does_not_blame_an_earlier_one(path):
    set_attribute(path, arrays=[name for name in open_store(path).arrays if name != "tissue"])
    assert refused(path, "tissue").what == "the store has no tissue: it was written without"


def test_all_arrays_and_the_grid_made_large_at_once_are_refused(path):
    side = 1 << 30
    set_attribute(path, size_l0=[side, side], side_l0=[64.0, 64.0], grid_shape=[side // 64, side // 64])
    tails = {"rc": [2], "xy_l0": [2], "tissue": [], "piece": [], "crc32c": [], "tiles": [32, 32, 3]}
    for name, tail in tails.items():
        set_layout(path, name, shape=[HUGE, *tail])
    assert "size_l0" in refused(path).what
    side = 1 << 19
    set_attribute(path, size_l0=[side, side], grid_shape=[side // 64, side // 64])
    assert "array tiles has 100000000000 tiles, more than 67108864" in refused(path).what
    for name, tail in tails.items():
        set_layout(path, name, shape=[1 << 26, *tail])
    assert "a shard of tiles is missing" in refused(path).what


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("rc", [[0, 0], [0, 1], [1, 1], [2, 0], [-5, 3]], "rc is outside the grid"),
        ("rc", [[0, 0], [0, 1], [1, 1], [2, 0], [2**31 - 1, 3]], "rc is outside the grid"),
        ("rc", [[0, 0], [0, 1], [1, 1], [2, 0], [0, 1]], "rc contains a tile twice"),
        ("xy_l0", [[0, 0], [64, 0], [64, 64], [0, 128], [193, 128]], "xy_l0 is not rc times side_l0"),
        ("tissue", [0.1, 0.2, 0.3, float("nan"), 0.5], "tissue is not within 0 to 1"),
        ("tissue", [0.1, 0.2, 0.3, float("inf"), 0.5], "tissue is not within 0 to 1"),
        ("overview_mask", np.full((12, 16), 9), "overview_mask has values above 3"),
        ("piece", [0, 1, 2, 1 << 24, -1], "piece is not -1 to"),
        ("piece", [0, 1, 2, -2, -1], "piece is not -1 to"),
        ("embeddings/uni", np.full((5, 4), np.nan), "embeddings/uni is not finite"),
        ("embeddings/uni", np.full((5, 4), -np.inf), "embeddings/uni is not finite"),
    ],
)
def test_values_that_cannot_be_are_refused_when_they_are_first_read(path, name, array, sentence):
    dtype = json.loads((path / name / "zarr.json").read_text())["data_type"]
    write_chunk(path, name, np.array(array).astype(dtype))
    open_store(path)
    with pytest.raises(StoreError, match=sentence):
        raise refused(path, name)
    assert any(sentence in problem for problem in problems(path))


@pytest.mark.parametrize("name", [*ARRAYS, "embeddings/uni", ""])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"attributes":' * 20_000,
        b"[]",
        b"7",
        b'"zarr"',
        b"null",
        b"{}",
        b'{"shape": ' + b"9" * 5000 + b"}",
        b" " * (MAX_DOCUMENT_BYTES + 1),
        b'{"attributes": {' + b",".join(b'"%d": 1' % i for i in range(60_000)) + b"}}",
    ],
    ids=lambda content: content[:12].decode("latin-1").strip() or "blank",
)
def test_documents_that_are_not_documents_are_refused(path, name, content):
    (path / name / "zarr.json").write_bytes(content)
    assert len(str(refused(path, name or None))) < 3000
    assert problems(path)


def test_a_document_that_is_a_folder_or_cannot_be_opened_is_refused(path):
    (path / "rc" / "zarr.json").unlink()
    (path / "rc" / "zarr.json").mkdir()
    refused(path)
    for odd in ("nul\0.zarr", "x" * 5000 + ".zarr"):
        with pytest.raises(StoreError):
            open_store(path.with_name(odd))
    for odd in ("nul\0", "x" * 5000):
        with pytest.raises(StoreError):
            find_stores(odd)


@pytest.mark.parametrize("name", [*SMALL, "embeddings/uni"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:12] + bytes([data[12] ^ 1]) + data[13:],
        lambda data: data[:-5] + bytes([data[-5] ^ 128]) + data[-4:],
    ],
    ids=["empty", "head", "cut", "longer", "zeros", "bit in front", "bit at the end"],
)
def test_a_damaged_chunk_is_named(path, name, damage):
    (chunk,) = (file for file in (path / name / "c").rglob("*") if file.is_file())
    chunk.write_bytes(damage(chunk.read_bytes()))
    assert name in refused(path, name).what


@pytest.mark.parametrize("name", SMALL)
def test_an_array_that_alone_lacks_its_checksums_is_refused(path, name):
    """Else damage to its document would turn them off, and damage to its values go unseen."""
    file = path / name / "zarr.json"
    document = json.loads(file.read_text())
    assert document["codecs"].pop() == {"name": "crc32c"}
    file.write_text(json.dumps(document))
    assert f"array {name} has lost its checksums" in str(refused(path))


def test_a_chunk_that_is_missing_or_a_folder_is_named(path):
    chunk = path / "rc" / "c" / "0" / "0"
    chunk.unlink()
    assert refused(path, "rc").what == "a chunk of array rc is missing"
    chunk.mkdir()
    assert refused(path, "rc").what.startswith("the store cannot be read")


def test_a_chunk_that_unpacks_to_gigabytes_is_refused_in_little_memory(path):
    def largest() -> int:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

    frame = imagecodecs.zstd_encode(bytes(1 << 26))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from an earlier test
    before = largest()
    for bomb in (frame * 30, imagecodecs.zstd_encode(bytes(41)), frame[:-9]):
        for name in ("rc", "embeddings/uni"):
            path.joinpath(name, "c", "0", "0").write_bytes(bomb + checksum([bomb]))
            assert "damaged" in refused(path, name).what
    assert largest() - before < 50_000, "kB"


def test_an_array_of_little_data_cannot_claim_much(path, make_store, monkeypatch):
    monkeypatch.setattr("preprocessing.store.arrays.FREE_BYTES", 1000)
    write_chunk(path, "embeddings/uni", np.zeros((5, 4), np.float32))
    set_layout(
        path, "embeddings/uni", shape=[5, 1000],
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": [5, 1000]}},
    )  # fmt: skip
    assert "cannot be an array of 20,000" in refused(path, "embeddings/uni").what


def test_a_chunk_of_gigabytes_is_refused_before_it_is_read(path):
    os.truncate(path / "rc" / "c" / "0" / "0", 1 << 40)
    assert "1,099,511,627,776 bytes cannot be an array of 40" in refused(path, "rc").what


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ((2**64 - 2, 10), "points outside"),
        ((2**63, 2**63), "points outside"),
        ((0, 2**63), "points outside"),
        ((10**12, 1), "points outside"),
        ((0, 2**64 - 1), "points outside"),
        ((EMPTY, 0), "tile 0 of a shard is missing"),
        ((0, 0), "tile 0 is damaged"),
    ],
)
def test_a_shard_index_that_points_anywhere_is_refused(path, row, sentence):
    shard = Path(shard_path(path / "tiles", 0))
    data = bytearray(shard.read_bytes())
    index = np.frombuffer(data[-36:-4], "<u8").reshape(2, 2).copy()
    index[0] = row
    data[-36:] = index.tobytes() + checksum([index.tobytes()])
    shard.write_bytes(data)
    assert sentence in refused(path, "tiles").what


def test_every_bit_that_is_turned_in_a_tile_is_noticed(path):
    shard = Path(shard_path(path / "tiles", 0))
    whole = shard.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 50).tolist():
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(path, "tiles")


def test_stores_of_version_0_1_without_checksums_open(path, as_schema_1):
    expected = open_store(path).read_tiles(range(5))
    as_schema_1(path, checksums=False)
    assert problems(path) == []
    np.testing.assert_array_equal(open_store(path).read_tiles(range(5)), expected)


def test_a_tile_of_gigabytes_is_refused_before_it_is_read(path):
    shard = Path(shard_path(path / "tiles", 0))
    index = np.array([[0, 1 << 33], [0, 10]], "<u8").tobytes()
    with shard.open("r+b") as file:
        file.seek(1 << 33)
        file.write(index + checksum([index]))
    assert "a tile has more than" in refused(path, "tiles").what


def test_embeddings_that_could_not_be_read_back_are_not_written(path):
    vectors = np.zeros((5, 2), np.float32)
    for attributes in ({"a": object()}, {"a": float("nan")}, {"a": "x" * 70_000}):
        with pytest.raises(StoreError, match="JSON"):
            add_embeddings(path, "new", vectors, attributes)
    with pytest.raises(StoreError, match="shape"):
        add_embeddings(path, "new", np.zeros((5, 0), np.float32), {})
    assert open_store(path).encoders == ["uni"]
    assert list(find_stores(str(path.parent))) == ["slide"]
