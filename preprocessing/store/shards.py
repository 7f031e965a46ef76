"""Shards of whole JPEGs, read and written without decoding: Zarr v3 `sharding_indexed`, index and crc32c at the end.

zarr-python reads these files as they are. Writing them ourselves takes compressed chunks as they come, with one tile in
memory at a time; reading them ourselves avoids zarr's pipeline, which costs several times the decoding of a tile.
Layout of a shard (Zarr v3 core, codec `sharding_indexed` v1.0): chunks one after another, then for each chunk of the
shard its offset and length as little-endian uint64 (both 2**64 - 1 where there is none), then the crc32c of that index.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocessing.errors import StoreError
from preprocessing.jpeg.codec import Pieces
from preprocessing.store.arrays import CRC_BYTES, REDO, checksum, reading

EMPTY = 2**64 - 1
AT_ONCE = 64
"""Chunks that are written by one call; of pieces the system takes 1,024 (IOV_MAX)."""


def shard_path(array: Path, shard: int) -> Path:
    """File of one shard of a (n, height, width, 3) array that is sharded along its first axis only."""
    return array.joinpath("c", str(shard), "0", "0", "0")


def write_shards(array: Path, chunks: Iterable[tuple[int, Pieces]], n: int, tiles_per_shard: int) -> None:
    """Write `n` encoded chunks as shards under the array's folder; few chunks are in memory at a time.

    Args:
        array: The array's folder.
        chunks: Index and bytes of every chunk, in any order within a shard, shard after shard.
        n: How many there are.
        tiles_per_shard: Chunks in a shard.
    """
    shards = groupby(chunks, key=lambda chunk: chunk[0] // tiles_per_shard)
    written = sum(_write_shard(shard_path(array, shard), members, tiles_per_shard) for shard, members in shards)
    assert written == n, f"{written} chunks came where {n} were announced"


def _write_shard(path: Path, chunks: Iterable[tuple[int, Pieces]], tiles_per_shard: int) -> int:
    """One shard file; returns how many chunks went into it."""
    index, lengths = [], []
    path.parent.mkdir(parents=True)
    with path.open("wb", buffering=0) as file:
        chunks = iter(chunks)
        while batch := list(islice(chunks, AT_ONCE)):
            index += [i % tiles_per_shard for i, _ in batch]
            lengths += [sum(map(len, pieces)) for _, pieces in batch]
            _write(file, [piece for _, pieces in batch for piece in pieces])
        table = np.full((tiles_per_shard, 2), EMPTY, "<u8")
        table[index, 0] = np.cumsum([0, *lengths[:-1]])
        table[index, 1] = lengths
        _write(file, [table.tobytes(), checksum((table.tobytes(),))])
    return int((table[:, 0] != EMPTY).sum())


def _write(file: FileIO, pieces: Pieces) -> None:
    """All of the pieces, one after another, from where they lie: to join them first would copy each twice."""
    written, size = os.writev(file.fileno(), pieces), sum(map(len, pieces))
    while written < size:  # the disk is nearly full, or a signal came
        written += file.write(memoryview(b"".join(pieces))[written:])


def read_index(path: Path, tiles_per_shard: int, longest: int = EMPTY) -> npt.NDArray[np.uint64]:
    """Offset and length of every chunk of a shard, (tiles_per_shard, 2); `EMPTY` where there is no chunk.

    Args:
        path: The shard.
        tiles_per_shard: Chunks in it.
        longest: Bytes that a chunk may have.

    Raises:
        StoreError: The shard is missing, cut short, or its index does not match its checksum or the shard.
    """
    size = tiles_per_shard * 16
    with _opened(path) as descriptor:
        end = os.fstat(descriptor).st_size - size - CRC_BYTES  # of the chunks
        tail = os.pread(descriptor, size + CRC_BYTES, end) if end >= 0 else b""
    if len(tail) != size + CRC_BYTES or checksum((tail[:size],)) != tail[size:]:
        raise StoreError("the index of a shard is damaged", where=path, fix=REDO)
    index = np.frombuffer(tail, "<u8", count=2 * tiles_per_shard).reshape(-1, 2)
    offset, length = index[index[:, 0] != EMPTY].T
    # Not by their sum, which may pass 2**64 and begin at 0 again.
    if (offset > end).any() or (length > end - np.minimum(offset, end)).any():
        raise StoreError("the index of a shard points outside of it", where=path, fix=REDO)
    if (length > longest).any():
        raise StoreError(f"a tile has more than {longest} bytes", where=path, fix=REDO)
    return index


def read_chunks(path: Path, index: npt.NDArray[np.uint64], wanted: npt.NDArray[np.integer]) -> list[bytes]:
    """Encoded bytes of the wanted chunks of one shard, in the order asked for.

    All are read before the first is decoded, which is a little faster than in turn; what waits meanwhile is a tenth or
    so of the pixels that it becomes.

    Raises:
        StoreError: A wanted chunk is not in the shard, or the file got shorter since its index was read.
    """
    rows = index[wanted].tolist()
    with _opened(path) as descriptor:
        chunks = [b"" if offset == EMPTY else os.pread(descriptor, length, offset) for offset, length in rows]
    for i, chunk, (offset, length) in zip(wanted, chunks, rows, strict=True):
        if offset == EMPTY or len(chunk) != length:
            raise StoreError(f"tile {i} of a shard is missing", where=path, fix=REDO)
    return chunks


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Descriptor of a shard's file, for pread; a file object takes longer to make, and its buffer would go unused."""
    with reading(path, "a shard of tiles"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
