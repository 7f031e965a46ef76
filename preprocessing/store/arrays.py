"""Arrays of a store, read without zarr: Zarr v3, only in the layouts that this package writes.

In a Zarr library, a metadata document decides which code is run (the codec `pickle` runs any) and how much memory is
used. Here a document is data. It is compared with a few known layouts, and its sizes are limited, before the array is
read.
"""

import hashlib
import math
import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from preprocessing.errors import StoreError
from preprocessing.jpeg.codec import decode_into

REDO = "remove this store, then run the same `longvit tile` again"
"""Fix of a damaged store. `--overwrite` would tile all other stores again, too."""
REMAKE = "remove this store, then make its features again with the program that made them"
"""Fix of a damaged store of features without pixels, whose slide may not be at hand."""
DOCUMENT_BYTES, MAX_DOCUMENT_BYTES = 1 << 13, 1 << 20
"""Usual and largest size of a metadata document; documents of this package have 2 kB, more with many warnings."""
MAX_RATIO, FREE_BYTES = 32, 1 << 26
"""Largest ratio of an array's size to its chunks on disk; arrays up to 64 MiB may have any ratio.

The chunks may have twice the array's size, and 64 MiB more."""
MAX_CHUNKS = 1 << 16
"""Maximum number of chunks of an array without shards; our arrays have one chunk, an overview at most 16."""
CRC_BYTES = 4
VALUES_SHA256 = "values_sha256"
"""Attribute of an array of features: hexadecimal SHA-256 of its values, as little-endian bytes in C order."""

Lengths = tuple[int, ...]
Names = tuple[str, ...]

PLAIN = (("bytes",), ("bytes", "zstd"), ("bytes", "zstd", "crc32c"))
"""Codecs of small arrays; stores of version 0.1 have no checksums."""
IMAGE = (("imagecodecs_jpeg",), ("imagecodecs_jpeg", "crc32c"))
"""Codecs of images."""
SHARDED = ("sharding_indexed",)
"""Codec of the tiles, whose shards hold chunks of the codecs in `IMAGE`."""
INDEX = ("bytes", "crc32c")
"""Codecs of a shard's index."""

_from_json = TypeAdapter(dict[str, Any]).validate_json
"""Parser of JSON that is faster than Python's."""

FIXED = {
    "zarr_format": 3,
    "node_type": "array",
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "storage_transformers": [],
}
"""Keys of an array's document that may have one value only."""
OMITTED = {"storage_transformers": []}
"""Values of keys in `FIXED` that may be absent."""
FREE = {"shape", "data_type", "chunk_grid", "codecs", "fill_value", "attributes", "dimension_names"}
"""Other keys of an array's document. A missing chunk is an error, so the fill value is never used."""
OPTIONS = {
    "bytes": {"endian"},
    "zstd": {"level", "checksum"},
    "crc32c": set(),
    "imagecodecs_jpeg": {"level", "subsampling"},
}
"""Codecs and their options; tables, headers or colour spaces of a JPEG outside its chunk are refused."""


class StoredArray(NamedTuple):
    """Array of a store, as described by its document."""

    folder: str
    name: str
    """Name of the array in the store."""
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    """Shape of a chunk, or of a shard if the array is sharded."""
    codecs: tuple[str, ...]
    inner: tuple[str, ...] = ()
    """Codecs of the chunks in a shard."""
    inner_chunk: tuple[int, ...] = ()
    """Shape of a chunk in a shard."""
    values_sha256: str | None = None
    """Hash of the values, if the attributes contain one."""

    @property
    def has_checksums(self) -> bool:
        """True if the chunks end with their crc32c; in the first stores of version 0.1.0 they do not."""
        return "crc32c" in (self.inner or self.codecs)


def remedy(where: Path | str, tiling: str = REDO) -> str:
    """Return the fix of a store that has to be made again: `tiling`, or `REMAKE` for features without pixels.

    Args:
        where: Path of the store, or of a part of it.
        tiling: Fix for stores that `longvit tile` made.
    """
    path = Path(os.path.abspath(where))
    store = next((folder for folder in (path, *path.parents) if folder.suffix == ".zarr"), path)
    without_pixels = os.path.isdir(store / "embeddings") and not os.path.exists(store / "tiles")
    return REMAKE if without_pixels else tiling


def read_document(folder: Path | str) -> bytes:
    """Return the bytes of the metadata document of a group or an array.

    Raises:
        FileNotFoundError: There is no document.
        StoreError: The document cannot be read, or is too large.
    """
    path = f"{folder}/zarr.json"  # pathlib would double the time
    try:
        with FileIO(path) as file:
            data = file.read(DOCUMENT_BYTES)
            if len(data) == DOCUMENT_BYTES:
                data += file.read(MAX_DOCUMENT_BYTES + 1 - DOCUMENT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise unreadable(path, error) from error
    if len(data) > MAX_DOCUMENT_BYTES:
        what = f"the store's metadata has more than {MAX_DOCUMENT_BYTES >> 20} MB"
        raise StoreError(what, where=path, fix=remedy(path))
    return data


def read_stored(store: Path, name: str) -> StoredArray:
    """Return the description of an array from its document.

    Raises:
        StoreError: The array is missing, its document is damaged, or this package does not write its layout.
    """
    folder = f"{store}/{name}"
    try:
        document = _from_json(read_document(folder))
        sha256 = (document.get("attributes") or {}).get(VALUES_SHA256)
        return StoredArray(folder, name, *_layout(document), sha256)
    except FileNotFoundError:
        raise StoreError(f"array {name} is missing", where=store, fix=remedy(store)) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        what = f"array {name} has metadata that cannot be used ({type(error).__name__}: {str(reason)[:200]})"
        raise StoreError(what, where=folder, fix=remedy(folder)) from error


def _layout(document: dict[str, Any]) -> tuple[Lengths, str, Lengths, Names, Names, Lengths]:
    """Return the fields of a `StoredArray` after its name.

    An error of any type means that this package does not write such documents.
    """
    fixed = OMITTED | {key: value for key, value in document.items() if key not in FREE}
    if fixed != FIXED:
        raise ValueError(", ".join(key for key in FIXED | fixed if fixed.get(key) != FIXED.get(key)))
    shape, chunk = _lengths(document["shape"], least=0), _chunk_shape(document["chunk_grid"], "regular")
    if len(chunk) != len(shape) or any(map(operator.gt, chunk, (shape[0] or 1, *shape[1:]))):
        raise ValueError(f"shape {shape} has chunks {chunk}")
    first, dtype = document["codecs"][0], document["data_type"]
    if first["name"] not in SHARDED:
        return shape, dtype, chunk, _names(document["codecs"]), (), ()
    shards = first["configuration"]
    if _names(shards["index_codecs"]) != INDEX or shards.get("index_location", "end") != "end":
        raise ValueError("index of shards")
    codecs = tuple(codec["name"] for codec in document["codecs"])
    return shape, dtype, chunk, codecs, _names(shards["codecs"]), _lengths(shards["chunk_shape"])


def _lengths(value: Any, least: int = 1) -> Lengths:  # noqa: ANN401 - any JSON
    """Return a shape whose first length (of tiles) is at least `least`, and whose other lengths are positive."""
    if type(value) is not list or not value:
        raise ValueError("a shape is not of positive numbers")
    for side in value:
        if type(side) is not int or side < least:
            raise ValueError("a shape is not of positive numbers")
        least = 1
    return tuple(value)


def _chunk_shape(grid: dict[str, Any], kind: str) -> Lengths:
    if grid["name"] != kind:
        raise ValueError("grid of chunks")
    return _lengths(grid["configuration"]["chunk_shape"])


def _names(codecs: list[dict[str, Any]]) -> Names:
    """Return the names of the codecs, all of which must be in `OPTIONS` and have no other options."""
    names = []
    for codec in codecs:
        name, options = codec["name"], codec.get("configuration", {})
        if name not in OPTIONS or not OPTIONS[name].issuperset(options) or options.get("endian") == "big":
            raise ValueError(f"codec {name}"[:60])
        names.append(name)
    return tuple(names)


def read_array(stored: StoredArray) -> npt.NDArray[Any]:
    """Read an array that is not sharded.

    Raises:
        StoreError: A chunk is missing, is damaged, or does not have the size that the document states.
    """
    size = math.prod(stored.shape) * np.dtype(stored.dtype).itemsize
    with reading(stored.folder, f"a chunk of array {stored.name}"):
        if (n := math.prod(_counts(stored.shape, stored.chunk))) > MAX_CHUNKS:
            raise ValueError(f"it would be one of {n:,}")
        parts = list(chunks(stored.folder, stored.shape, stored.chunk))
        on_disk = sum(os.stat(path).st_size for path, _ in parts)
        if size > max(FREE_BYTES, MAX_RATIO * on_disk) or on_disk > FREE_BYTES + 2 * size:
            raise ValueError(f"{on_disk:,} bytes cannot be an array of {size:,}")
        if n == 1:
            return _read_chunk(parts[0][0], stored)  # without a copy
        array = np.empty(stored.shape, stored.dtype)
        for path, place in parts:
            chunk = _read_chunk(path, stored)
            array[place] = chunk[tuple(slice(0, part.stop - part.start) for part in place)]
    return array


def chunks(folder: str, shape: Lengths, chunk: Lengths) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield the file of every chunk of an array and its part of the array.

    Args:
        folder: Folder of the array.
        shape: Shape of the array.
        chunk: Shape of a chunk.
    """
    for index in product(*map(range, _counts(shape, chunk))):
        path = "/".join((folder, "c", *map(str, index)))  # pathlib would double the time
        place = (slice(i * step, min((i + 1) * step, side)) for i, step, side in zip(index, chunk, shape, strict=True))
        yield path, tuple(place)


def _counts(shape: Lengths, chunk: Lengths) -> list[int]:
    """Return the number of chunks along each axis."""
    return [-(-side // step) for side, step in zip(shape, chunk, strict=True)]


def values_sha256(array: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of an array's values, as `VALUES_SHA256` defines it."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data if little.size else b"").hexdigest()


def _read_chunk(path: str, stored: StoredArray) -> npt.NDArray[Any]:
    """Return a decoded chunk, as an array of the chunk's full shape."""
    with FileIO(path) as file:
        data = file.readall()
    if stored.has_checksums:
        data = without_checksum(data)
    if stored.codecs[0] == "imagecodecs_jpeg":
        pixels = np.empty(stored.chunk, stored.dtype)
        decode_into(data, pixels)
        return pixels
    size = math.prod(stored.chunk) * np.dtype(stored.dtype).itemsize
    zstd = "zstd" in stored.codecs
    values = (
        imagecodecs.zstd_decode(data, out=size + 1) if zstd else data
    )  # one byte more, to detect chunks that are too long
    if len(values) != size:
        raise ValueError(f"a chunk has {len(values):,} bytes, not {size:,}")
    return np.frombuffer(values, np.dtype(stored.dtype).newbyteorder("<")).reshape(stored.chunk)


@contextmanager
def reading(where: Path | str, what: str) -> Iterator[None]:
    """Raise a `StoreError` for any error in reading or decoding a part of a store.

    Args:
        where: File or folder of the part.
        what: Name of the part, as the subject of a sentence.
    """
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{what} is missing", where=where, fix=remedy(where)) from None
    except OSError as error:
        raise unreadable(where, error) from error
    except (ValueError, RuntimeError) as error:  # the base classes of the codecs' errors
        raise StoreError(f"{what} is damaged ({error})", where=where, fix=remedy(where)) from error


def without_checksum(data: bytes, known: int | None = None) -> bytes:
    """Return a chunk without the crc32c at its end.

    Args:
        data: The chunk.
        known: Expected checksum, if it is stored elsewhere, too.

    Raises:
        ValueError: The checksum is not that of the data, or not the expected one.
    """
    body = data[:-CRC_BYTES]
    if checksum((body,)) != data[-CRC_BYTES:]:
        raise ValueError("a checksum is wrong")
    if known is not None and int.from_bytes(data[-CRC_BYTES:], "little") != known:
        raise ValueError("the chunk was written for another place or array")
    return body


def checksum(pieces: Iterable[bytes | memoryview]) -> bytes:
    """Return the four bytes that Zarr's codec `crc32c` appends to the joined pieces."""
    value = 0
    for piece in pieces:
        value = google_crc32c.extend(value, bytes(piece))
    return value.to_bytes(CRC_BYTES, "little")


def unreadable(where: Path | str, error: OSError | ValueError) -> StoreError:
    """Return the error for a file that the system cannot read."""
    reason = getattr(error, "strerror", None) or error
    return StoreError(f"the store cannot be read: {reason}", where=where, fix="check the path, permissions and disk")
