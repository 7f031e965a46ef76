import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from preprocessing.errors import StoreError
from preprocessing.store.rules import read_attributes
from preprocessing.store.schema import ARRAYS
from preprocessing.store.shards import shard_path
from preprocessing.store.store import problems


@pytest.fixture
def path(make_store):
    return make_store().path


def spoil_attribute(path, **changes):
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"] |= changes
    (path / "zarr.json").write_text(json.dumps(document))


def spoil_array(path, name, value):
    compressors = [zarr.codecs.ZstdCodec(level=0), zarr.codecs.Crc32cCodec()]
    zarr.open_group(path, mode="a").create_array(name, data=value, overwrite=True, compressors=compressors)


def test_a_store_just_written_has_no_problems(path):
    assert problems(path) == []
    assert problems(str(path)) == []


def test_every_violation_is_listed_not_the_first(path):
    spoil_attribute(path, complete=False, mpp=-1, tile_st="wide")
    shutil.rmtree(path / "rc")
    spoil_array(path, "tissue", np.zeros((5, 1)))
    found = problems(path)
    for part in (
        "unfinished",
        "attribute mpp",
        "attribute tile_st",
        "rc is missing",
        "tissue is float64",
        "tissue has 2 axes",
    ):
        assert sum(part in sentence for sentence in found) == 1, (part, found)
    assert len(found) == 6


@pytest.mark.parametrize("name", ARRAYS)
def test_each_array_is_needed(path, name):
    shutil.rmtree(path / name)
    assert problems(path) == [f"array {name} is missing"]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("rc", lambda rc: rc + np.array([9, 0]), "rc is outside the grid"),
        ("rc", lambda rc: rc[[0, 0, 2, 3, 4]], "rc contains a tile twice"),
        ("xy_l0", lambda xy_l0: xy_l0 + 1, "xy_l0 is not rc times side_l0"),
        ("tissue", lambda tissue: tissue * 2, "tissue is not within 0 to 1"),
        ("tissue", lambda tissue: tissue * np.float32(np.nan), "tissue is not within 0 to 1"),
        ("overview_mask", lambda mask: mask + 7, "overview_mask has values above 3"),
        ("tissue", lambda tissue: tissue[:-1], "array tissue has shape"),
        ("overview_mask", lambda mask: mask[:-1], "array overview has shape"),
    ],
)
def test_values_that_contradict_each_other_are_named(path, name, change, sentence):
    value = zarr.open_array(path / name, mode="r")[:]
    spoil_array(path, name, change(value).astype(value.dtype))
    assert any(sentence in found for found in problems(path))


def test_a_missing_and_a_damaged_shard_are_both_named(path):
    Path(shard_path(path / "tiles", 0)).unlink()
    damaged = Path(shard_path(path / "tiles", 2))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert problems(path) == ["a shard of tiles is missing: shard 0", "the index of a shard is damaged: shard 2"]


def test_tiles_in_another_codec_are_refused(path):
    tiles = zarr.open_array(path / "tiles", mode="r")[:]
    spoil_array(path, "tiles", tiles)
    assert any("not with plain imagecodecs_jpeg" in sentence for sentence in problems(path))


def test_embeddings_of_another_length_are_named(path):
    spoil_array(path, "embeddings/resnet", np.zeros((4, 8), np.float64))
    assert problems(path) == [
        "array embeddings/resnet is float64, not float16 or float32: embeddings resnet",
    ]
    spoil_array(path, "embeddings/resnet", np.zeros((4, 8), np.float32))
    assert problems(path) == ["array embeddings/resnet has shape (4, 8), not (5, 8): embeddings resnet"]


def test_no_store_and_broken_metadata_are_told_apart(path, tmp_path):
    assert problems(tmp_path / "none.zarr") == ["there is no store here"]
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="metadata cannot be read"):
        read_attributes(path)
    assert len(problems(path)) == 1
