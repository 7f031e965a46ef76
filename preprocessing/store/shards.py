"""Shards of whole JPEGs, read and written without decoding: Zarr v3 `sharding_indexed`, index and crc32c at the end.

zarr-python reads these files, too. This module writes compressed chunks as they arrive, with few tiles in memory.
Its reading avoids zarr's pipeline, which takes several times as long as the decoding of a tile.

Layout of a shard (Zarr v3 core, codec `sharding_indexed` v1.0): the chunks one after another; then the index, with
offset and length of each chunk as little-endian uint64; then the crc32c of the index. Offset and length of a missing
chunk are 2**64 - 1.
"""

import os
from collections.abc import Iterable, Sequence
from io import FileIO
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocessing.errors import StoreError
from preprocessing.jobs.system import read_at, write_pieces
from preprocessing.jpeg.codec import Pieces
from preprocessing.store.arrays import CRC_BYTES, REDO, checksum, reading

EMPTY = 2**64 - 1
"""Offset and length of a missing chunk."""
WHAT = "a shard of tiles"
AT_ONCE = 64
"""Number of chunks per system call; a call accepts 1,024 pieces (IOV_MAX)."""


def shard_path(array: Path | str, shard: int) -> str:
    """Return the file of a shard of an array (n, height, width, 3) that is sharded along its first axis only."""
    return f"{array}/c/{shard}/0/0/0"  # pathlib takes longer than reading the shard's index


def write_shards(array: Path, chunks: Iterable[tuple[int, Pieces]], n: int, tiles_per_shard: int) -> None:
    """Write `n` encoded chunks as shards under the array's folder, with few chunks in memory at a time.

    Args:
        array: Folder of the array.
        chunks: Index and bytes of every chunk, shard after shard; within a shard in any order.
        n: Number of chunks.
        tiles_per_shard: Number of chunks in a shard.
    """
    shards = groupby(chunks, key=lambda chunk: chunk[0] // tiles_per_shard)
    written = sum(_write_shard(shard_path(array, shard), members, tiles_per_shard) for shard, members in shards)
    assert written == n, f"{written} chunks were written, not {n}"


def _write_shard(path: str, chunks: Iterable[tuple[int, Pieces]], tiles_per_shard: int) -> int:
    """Write a shard and return the number of its chunks."""
    index, lengths = [], []
    os.makedirs(os.path.dirname(path))
    with FileIO(path, "wb") as file:
        chunks = iter(chunks)
        while batch := list(islice(chunks, AT_ONCE)):
            index += [i % tiles_per_shard for i, _ in batch]
            lengths += [sum(map(len, pieces)) for _, pieces in batch]
            write_pieces(file, [piece for _, pieces in batch for piece in pieces])
        table = np.full((tiles_per_shard, 2), EMPTY, "<u8")
        table[index, 0] = np.cumsum([0, *lengths[:-1]])
        table[index, 1] = lengths
        write_pieces(file, [table.tobytes(), checksum((table.tobytes(),))])
    return int((table[:, 0] != EMPTY).sum())


def read_index(path: Path | str, tiles_per_shard: int, longest: int = EMPTY) -> npt.NDArray[np.uint64]:
    """Return offset and length of every chunk of a shard, (tiles_per_shard, 2); `EMPTY` for a missing chunk.

    Args:
        path: File of the shard.
        tiles_per_shard: Number of chunks in the shard.
        longest: Most bytes that a chunk may have.

    Raises:
        StoreError: The shard is missing, cut short, or its index does not match its checksum or the shard.
    """
    size = tiles_per_shard * 16
    with reading(path, WHAT), FileIO(path) as file:
        end = os.fstat(file.fileno()).st_size - size - CRC_BYTES  # end of the chunks
        tail = read_at(file.fileno(), size + CRC_BYTES, end) if end >= 0 else b""
    if len(tail) != size + CRC_BYTES or checksum((tail[:size],)) != tail[size:]:
        raise StoreError("the index of a shard is damaged", where=path, fix=REDO)
    index = np.frombuffer(tail, "<u8", count=2 * tiles_per_shard).reshape(-1, 2)
    offset, length = index.T
    present = offset != EMPTY
    # The sum of offset and length is not used: it may exceed 2**64 and wrap around.
    if (present & ((offset > end) | (length > end - np.minimum(offset, end)))).any():
        raise StoreError("the index of a shard points outside of it", where=path, fix=REDO)
    if (present & (length > longest)).any():
        raise StoreError(f"a tile has more than {longest} bytes", where=path, fix=REDO)
    return index


def read_chunks(
    path: Path | str, index: npt.NDArray[np.uint64], wanted: Sequence[int] | npt.NDArray[np.integer]
) -> list[bytes]:
    """Return the encoded bytes of the wanted chunks of a shard, in the order of `wanted`.

    All chunks are read before the first is decoded, which is slightly faster than in turn. Their bytes are about a
    tenth of the decoded pixels.

    Raises:
        StoreError: A wanted chunk is missing in the shard, or the file is shorter than its index states.
    """
    rows = index[wanted].tolist()
    with reading(path, WHAT), FileIO(path) as file:
        chunks = [b"" if offset == EMPTY else read_at(file.fileno(), length, offset) for offset, length in rows]
    for i, chunk, (offset, length) in zip(wanted, chunks, rows, strict=True):
        if offset == EMPTY or len(chunk) != length:
            raise StoreError(f"tile {i} of a shard is missing", where=path, fix=REDO)
    return chunks
