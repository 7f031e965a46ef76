import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.errors import StoreError
from preprocessing.jpeg.codec import Jpeg
from preprocessing.store.shards import read_chunks, read_index, shard_path, write_shards


def whole(chunks):
    """Each chunk in one piece, with its index."""
    return enumerate((chunk,) for chunk in chunks)


@given(chunks=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=12), per_shard=st.integers(1, 5))
def test_every_chunk_comes_back_from_its_shard(tmp_path_factory, chunks, per_shard):
    array = tmp_path_factory.mktemp("array")
    write_shards(array, whole(chunks), len(chunks), per_shard)
    for i, chunk in enumerate(chunks):
        path = shard_path(array, i // per_shard)
        assert read_chunks(path, read_index(path, per_shard), np.array([i % per_shard])) == [chunk]


@given(data=st.data(), chunks=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=8))
def test_chunks_come_in_the_order_asked_for_and_as_often(tmp_path_factory, data, chunks):
    array = tmp_path_factory.mktemp("array")
    write_shards(array, whole(chunks), len(chunks), len(chunks))
    wanted = data.draw(st.lists(st.integers(0, len(chunks) - 1), max_size=8))
    path = shard_path(array, 0)
    read = read_chunks(path, read_index(path, len(chunks)), np.array(wanted, np.int64))
    assert read == [chunks[i] for i in wanted]


def test_pieces_of_a_chunk_follow_each_other_even_where_the_system_takes_only_some(tmp_path, monkeypatch):
    chunks = [(0, (b"ab", memoryview(b"cdef"))), (1, (b"g",))]
    for name in ("at once", "bit by bit"):
        write_shards(tmp_path / name, chunks, 2, 2)
        path = shard_path(tmp_path / name, 0)
        assert read_chunks(path, read_index(path, 2), np.arange(2)) == [b"abcdef", b"g"]
        monkeypatch.setattr(os, "writev", lambda to, pieces: os.write(to, b"".join(pieces)[:5]))


def test_zarr_reads_the_shards_that_we_write(tmp_path, tiles):
    jpeg, path = Jpeg(level=90, subsampling="444"), tmp_path / "a.zarr"
    layout = {"chunks": (1, 32, 32, 3), "shards": (2, 32, 32, 3), "serializer": jpeg, "compressors": None}
    array = zarr.create_array(path, shape=tiles.shape, dtype="uint8", **layout)
    encoded = [jpeg.encode_image(tile) for tile in tiles]
    write_shards(path, whole(encoded), len(encoded), 2)
    np.testing.assert_array_equal(array[:], np.stack([jpeg.decode_image(data) for data in encoded]))


def test_we_read_the_shards_that_zarr_writes(tmp_path, tiles):
    jpeg, path = Jpeg(level=90, subsampling="444"), tmp_path / "a.zarr"
    layout = {"chunks": (1, 32, 32, 3), "shards": (5, 32, 32, 3), "serializer": jpeg, "compressors": None}
    array = zarr.create_array(path, data=tiles, **layout)
    shard = shard_path(path, 0)
    chunks = read_chunks(shard, read_index(shard, 5), np.arange(5))
    np.testing.assert_array_equal(np.stack([jpeg.decode_image(chunk) for chunk in chunks]), array[:])


def test_a_number_of_chunks_other_than_announced_is_our_own_fault(tmp_path):
    with pytest.raises(AssertionError, match="2 chunks were written, not 3"):
        write_shards(tmp_path / "few", whole([b"a", b"b"]), 3, 2)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:-5], "damaged"),
        (lambda data: b"x" + data[1:-1] + b"x", "damaged"),
        (lambda data: b"", "damaged"),
    ],
    ids=["cut short", "checksum", "empty"],
)
def test_a_damaged_index_is_named(tmp_path, damage, sentence):
    write_shards(tmp_path, whole([b"a", b"b"]), 2, 2)
    path = Path(shard_path(tmp_path, 0))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=sentence):
        read_index(path, 2)


def test_a_shard_that_lost_bytes_but_kept_its_index_is_named(tmp_path):
    write_shards(tmp_path, whole([b"a" * 100]), 1, 1)
    path = Path(shard_path(tmp_path, 0))
    path.write_bytes(path.read_bytes()[90:])
    with pytest.raises(StoreError, match="outside"):
        read_index(path, 1)


def test_a_missing_shard_and_a_missing_chunk_are_named(tmp_path):
    with pytest.raises(StoreError, match="missing"):
        read_index(shard_path(tmp_path, 7), 2)
    write_shards(tmp_path, whole([b"a"]), 1, 2)
    path = shard_path(tmp_path, 0)
    with pytest.raises(StoreError, match="tile 1 of a shard is missing"):
        read_chunks(path, read_index(path, 2), np.array([1]))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda path: os.truncate(path, 150), "tile 1 of a shard is missing"),
        (os.unlink, "a shard of tiles is missing"),
    ],
    ids=["cut short", "removed"],
)
def test_a_shard_that_changes_after_its_index_was_read_is_named_and_left_closed(tmp_path, fault, sentence):
    write_shards(tmp_path, whole([b"a" * 100, b"b" * 100]), 2, 2)
    path = shard_path(tmp_path, 0)
    index, opened = read_index(path, 2), len(os.listdir("/dev/fd"))
    fault(path)
    with pytest.raises(StoreError, match=sentence):
        read_chunks(path, index, np.arange(2))
    assert len(os.listdir("/dev/fd")) == opened
