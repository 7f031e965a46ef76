"""Writing of a patch store, with zarr: arrays first, `complete` last. Reading is in `preprocessing.store.store`.

Every chunk ends with its crc32c, so that damage is an error instead of wrong numbers. For a tile the checksum takes
four bytes and about four microseconds; decoding a tile takes 250.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from preprocessing.jpeg.codec import Jpeg, Pieces
from preprocessing.store.arrays import checksum
from preprocessing.store.schema import ARRAYS, ArrayName, ArraySpec, StoreAttributes
from preprocessing.store.shards import write_shards

WHITE = 255
OVERVIEW_CHUNK = 1024


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
    group = zarr.create_group(folder, overwrite=True, zarr_format=3)
    with ThreadPoolExecutor(1) as beside:  # zarr and the tiles both take long
        rest = beside.submit(_write_small, folder, arrays, jpeg)
        if jpegs is not None:
            crc32c = _write_tiles(folder, jpegs, len(arrays["rc"]), tile_st, jpeg, shard_tiles)
            _write_small(folder, {"crc32c": crc32c}, jpeg)
        rest.result()
    group.create_group("embeddings")


def _write_tiles(
    folder: Path, jpegs: Iterable[tuple[int, Pieces]], n: int, tile_st: int, jpeg: Jpeg, shard_tiles: int
) -> npt.NDArray[np.uint32]:
    """Write the tiles, each with its checksum at the end, and return the checksums (n,)."""
    assert n > 0, "an empty array of tiles is never written"
    tile, per_shard = (tile_st, tile_st, 3), min(shard_tiles, n)
    layout = {"chunks": (1, *tile), "shards": (per_shard, *tile), "serializer": jpeg, "compressors": Crc32cCodec()}
    create_array(folder / "tiles", ARRAYS["tiles"], (n, *tile), **layout)
    sums: dict[int, bytes] = {}
    chunks = ((i, (*pieces, sums.setdefault(i, checksum(pieces)))) for i, pieces in jpegs)
    write_shards(folder / "tiles", chunks, n, per_shard)
    return np.frombuffer(b"".join(sums[i] for i in range(n)), "<u4")


def finish_store(folder: Path, attributes: StoreAttributes) -> None:
    """Write the attributes of the group, with the list of arrays and `complete`. This is the last write of a store."""
    arrays = [name for name in ARRAYS if (folder / name).is_dir()]
    written = attributes.model_dump(mode="json") | {"arrays": arrays, "complete": True}
    zarr.open_group(folder, mode="r+", zarr_format=3).attrs.put(written)


def create_array(
    folder: Path,
    spec: ArraySpec,
    shape: tuple[int, ...],
    attributes: dict[str, Any] | None = None,
    **layout: Any,  # noqa: ANN401 - zarr's
) -> zarr.Array:
    """Create an array of a store; by default one compressed chunk with a checksum.

    Args:
        folder: Folder of the array.
        spec: Axes and type of the array.
        shape: Shape of the array.
        attributes: Attributes of the array; by default its meaning.
        **layout: Other keywords of `zarr.create_array`.
    """
    chunks = tuple(max(1, side) for side in shape)
    given = {"dtype": spec.dtypes[0], "chunks": chunks, "compressors": (ZstdCodec(level=0), Crc32cCodec())}
    given |= {"fill_value": WHITE if "rgb" in spec.axes else 0}
    return zarr.create_array(
        folder,
        shape=shape,
        dimension_names=spec.axes,
        attributes={"meaning": spec.meaning} if attributes is None else attributes,
        config={"write_empty_chunks": True},  # otherwise zarr compares every chunk with its fill value
        zarr_format=3,
        **given | layout,
    )


def _write_small(folder: Path, arrays: Mapping[ArrayName, npt.NDArray[Any]], jpeg: Jpeg) -> None:
    for name, array in arrays.items():
        layout = {}
        if name == "overview":
            chunks = (*(min(side, OVERVIEW_CHUNK) for side in array.shape[:2]), 3)
            layout = {"chunks": chunks, "serializer": jpeg, "compressors": Crc32cCodec()}
        create_array(folder / name, ARRAYS[name], array.shape, **layout)[:] = array
