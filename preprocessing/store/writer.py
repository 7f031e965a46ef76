"""Writing of a patch store, with zarr: arrays first, `complete` last. Reading is in `preprocessing.store.store`.

Every chunk ends with its crc32c, so that damage is an error instead of other numbers. Of a tile it takes four bytes and
about as many microseconds, of the 250 that decoding one takes.
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
    """Write all of a store but its attributes; `claimed` gives the folder, so that nobody sees it half written.

    Args:
        folder: What becomes the store; what is in it is removed.
        jpegs: Index in `rc` and JPEG, whole, RGB, of `tile_st` pixels a side, of every tile; shard after shard. None
            for a store without pixels.
        arrays: `xy_l0`, `rc`, and which there are of the rest but `tiles` and `crc32c`, as
            `preprocessing.store.schema.ARRAYS` describes them.
        tile_st: Side of a tile, store pixels.
        jpeg: The codec that is written down, and that encodes the overview.
        shard_tiles: Tiles in one shard (one file).
    """
    group = zarr.create_group(folder, overwrite=True, zarr_format=3)
    with ThreadPoolExecutor(1) as beside:  # zarr takes its time, and so do the tiles
        rest = beside.submit(_write_small, folder, arrays, jpeg)
        if jpegs is not None:
            crc32c = _write_tiles(folder, jpegs, len(arrays["rc"]), tile_st, jpeg, shard_tiles)
            _write_small(folder, {"crc32c": crc32c}, jpeg)
        rest.result()
    group.create_group("embeddings")


def _write_tiles(
    folder: Path, jpegs: Iterable[tuple[int, Pieces]], n: int, tile_st: int, jpeg: Jpeg, shard_tiles: int
) -> npt.NDArray[np.uint32]:
    """Write the tiles, each with its checksum at its end; returns the checksums (n,)."""
    assert n > 0, "tiles of none are never written"
    tile, per_shard = (tile_st, tile_st, 3), min(shard_tiles, n)
    layout = {"chunks": (1, *tile), "shards": (per_shard, *tile), "serializer": jpeg, "compressors": Crc32cCodec()}
    create_array(folder / "tiles", ARRAYS["tiles"], (n, *tile), **layout)
    sums: dict[int, bytes] = {}
    chunks = ((i, (*pieces, sums.setdefault(i, checksum(pieces)))) for i, pieces in jpegs)
    write_shards(folder / "tiles", chunks, n, per_shard)
    return np.frombuffer(b"".join(sums[i] for i in range(n)), "<u4")


def finish_store(folder: Path, attributes: StoreAttributes) -> None:
    """Write the attributes, the list of the arrays and `complete` among them: the last thing that is written."""
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
    """Create an array of a store, by default of one chunk, compressed and with a checksum.

    Args:
        folder: The array's.
        spec: Its axes and type.
        shape: Its shape.
        attributes: Its attributes; by default its meaning.
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
        config={"write_empty_chunks": True},  # else zarr compares every chunk with its fill value
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
