"""Writing of a patch store: arrays first, `complete` last. Reading is in `preprocessing.store.store`.

Documents and chunks have the bytes that zarr would write. They are written without zarr, which takes about two
milliseconds per array; a store has seven small arrays.

Every chunk ends with its crc32c, so that damage is an error instead of wrong numbers. For a tile the checksum takes
four bytes and about four microseconds; decoding a tile takes 250.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs.zstd
import numpy as np
import numpy.typing as npt

from preprocessing.jpeg.codec import Jpeg, Pieces
from preprocessing.store.arrays import FIXED, checksum, chunks
from preprocessing.store.schema import ARRAYS, ArrayName, ArraySpec, StoreAttributes
from preprocessing.store.shards import write_shards

WHITE = 255
OVERVIEW_CHUNK = 1024
ENDIAN = {"configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
CRC32C = {"name": "crc32c"}


def write_arrays(
    folder: Path,
    jpegs: Iterable[tuple[int, Pieces]] | None,
    arrays: Mapping[ArrayName, npt.NDArray[Any]],
    tile_st: int,
    *,
    jpeg: Jpeg,
    shard_tiles: int,
) -> None:
    """Write the arrays of a store, without the attributes of its group.

    Args:
        folder: Folder of the new store, from `claimed`, which hides it until it is finished. Its contents are removed.
        jpegs: Index in `rc` and whole RGB JPEG, `tile_st` pixels a side, of every tile, shard after shard. None for a
            store without pixels.
        arrays: Values of `xy_l0`, of `rc`, and of any other array in `preprocessing.store.schema.ARRAYS` except
            `tiles` and `crc32c`.
        tile_st: Side of a tile, store pixels.
        jpeg: Codec that the metadata states, and that encodes the overview.
        shard_tiles: Number of tiles in a shard (one file).
    """
    if (folder / "zarr.json").exists():
        shutil.rmtree(folder)  # of an attempt with tiles that could not be made
    _write_group(folder, {})
    with ThreadPoolExecutor(1) as beside:  # the overview and the tiles both take long
        rest = beside.submit(_write_small, folder, arrays, jpeg)
        if jpegs is not None:
            crc32c = _write_tiles(folder, jpegs, len(arrays["rc"]), tile_st, jpeg, shard_tiles)
            write_array(folder / "crc32c", ARRAYS["crc32c"], crc32c)
        rest.result()
    _write_group(folder / "embeddings", {})


def _write_tiles(
    folder: Path, jpegs: Iterable[tuple[int, Pieces]], n: int, tile_st: int, jpeg: Jpeg, shard_tiles: int
) -> npt.NDArray[np.uint32]:
    """Write the tiles, each with its checksum at the end, and return the checksums (n,)."""
    assert n > 0, "an empty array of tiles is never written"
    tile, per_shard = (tile_st, tile_st, 3), min(shard_tiles, n)
    shards = {"chunk_shape": (1, *tile), "codecs": (jpeg.to_dict(), CRC32C)}
    shards |= {"index_codecs": ({"name": "bytes"} | ENDIAN, CRC32C), "index_location": "end"}
    codecs = ({"name": "sharding_indexed", "configuration": shards},)
    _write_document(folder / "tiles", ARRAYS["tiles"], (n, *tile), (per_shard, *tile), codecs)
    sums: dict[int, bytes] = {}
    encoded = ((i, (*pieces, sums.setdefault(i, checksum(pieces)))) for i, pieces in jpegs)
    write_shards(folder / "tiles", encoded, n, per_shard)
    return np.frombuffer(b"".join(sums[i] for i in range(n)), "<u4")


def finish_store(folder: Path, attributes: StoreAttributes) -> None:
    """Write the attributes of the group, with the list of arrays and `complete`. This is the last write of a store."""
    arrays = [name for name in ARRAYS if (folder / name).is_dir()]
    _write_group(folder, attributes.model_dump(mode="json") | {"arrays": arrays, "complete": True})


def write_array(
    folder: Path,
    spec: ArraySpec,
    array: npt.NDArray[Any],
    attributes: Mapping[str, Any] | None = None,
    jpeg: Jpeg | None = None,
) -> None:
    """Write an array of a store: one compressed chunk, or an image as a few JPEGs, each with its checksum.

    Args:
        folder: Folder of the array.
        spec: Axes and types of the array.
        array: Values of the array; values of another type than those of `spec` are converted to its first type.
        attributes: Attributes of the array; by default its meaning.
        jpeg: Codec of an image; None for other arrays.
    """
    dtype = array.dtype.name if array.dtype.name in spec.dtypes else spec.dtypes[0]
    values = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    chunk = tuple(max(1, min(side, OVERVIEW_CHUNK) if jpeg else side) for side in array.shape)
    plain = {"name": "bytes"} | (ENDIAN if values.itemsize > 1 else {}), ZSTD, CRC32C
    codecs = (jpeg.to_dict(), CRC32C) if jpeg else plain
    _write_document(folder, spec, array.shape, chunk, codecs, dtype=dtype, attributes=attributes)
    for path, place in chunks(str(folder), array.shape, chunk):
        part = values[place]
        if part.shape != chunk:
            missing = [(0, step - side) for step, side in zip(chunk, part.shape, strict=True)]
            part = np.pad(part, missing, constant_values=_fill_value(spec))
        data = jpeg.encode_image(part) if jpeg else numcodecs.zstd.compress(part, 0)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.writelines((data, checksum((data,))))


def _write_small(folder: Path, arrays: Mapping[ArrayName, npt.NDArray[Any]], jpeg: Jpeg) -> None:
    for name, array in arrays.items():
        write_array(folder / name, ARRAYS[name], array, jpeg=jpeg if name == "overview" else None)


def _fill_value(spec: ArraySpec) -> int:
    return WHITE if "rgb" in spec.axes else 0


def _write_document(
    folder: Path,
    spec: ArraySpec,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    codecs: tuple[Mapping[str, Any], ...],
    *,
    dtype: str = "uint8",
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the document of an array, with the keys in zarr's order."""
    document = {
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": FIXED["chunk_key_encoding"],
        "fill_value": np.dtype(dtype).type(_fill_value(spec)).item(),  # 0.0 for floats
        "codecs": codecs,
        "attributes": {"meaning": spec.meaning} if attributes is None else dict(attributes),
        "dimension_names": spec.axes,
    }
    _write_json(folder, document | FIXED)


def _write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    _write_json(folder, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})


def _write_json(folder: Path, document: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(document, indent=2), encoding="utf-8", newline="\n")
