"""The patch store `<slide_id>.zarr`: open it, check it, add embeddings. `preprocessing.store.schema` has its schema."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.errors import StoreError
from preprocessing.frames import st_from_rc
from preprocessing.jobs.atomic_folder import claimed
from preprocessing.jobs.files import is_plain_name
from preprocessing.jpeg.codec import decode_into, empty_pixels
from preprocessing.jpeg.markers import scan_start
from preprocessing.store.arrays import REDO, StoredArray, read_array, unreadable, without_checksum
from preprocessing.store.rules import MAX_CHANNELS, Metadata, broken_value, examine, read_embedding, read_metadata
from preprocessing.store.schema import ARRAYS, EMBEDDING, encoders
from preprocessing.store.shards import EMPTY, read_chunks, read_index, shard_path
from preprocessing.store.writer import WHITE, create_array

MAX_JPEG_HEADER = 1 << 16
"""Bytes of a tile besides two for each of its samples; random noise at quality 100 takes less than two."""


def find_stores(folder: Path | str) -> dict[str, Path]:
    """Return the stores of a folder by slide id, sorted; or the one store that is given itself.

    Raises:
        StoreError: There is no such folder, or no store in it.
    """
    folder = Path(folder)
    if folder.suffix == ".zarr":
        return {folder.stem: folder}
    try:
        stores = {path.name.removesuffix(".zarr"): path for path in sorted(folder.glob("*.zarr")) if path.is_dir()}
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from error
    if not stores:
        raise StoreError(
            "there are no stores" if folder.is_dir() else "the folder of stores does not exist",
            where=folder,
            fix="make them with `longvit tile --slides SLIDES --out FOLDER`",
        )
    return stores


def open_store(path: Path | str) -> "PatchStore":
    """Open a finished store; reads and checks its metadata. The values of an array are checked when it is first read.

    Raises:
        StoreError: There is none, it is unfinished, has another schema version, or its metadata breaks the schema.

    >>> store = open_store("stores/slide-1.zarr")  # doctest: +SKIP
    >>> store.read_tiles([0, 1]).shape  # doctest: +SKIP
    (2, 256, 256, 3)
    """
    path = Path(path)
    return PatchStore(path, read_metadata(path))


def problems(path: Path | str) -> list[str]:
    """Every rule that the store at `path` breaks, one sentence each; empty when it is valid.

    Reads metadata, all small arrays, embeddings and the index of every shard; does not decode tiles.

    >>> problems("no/such.zarr")
    ['there is no store here']
    """
    path = Path(path)
    metadata, faults = examine(path)
    if metadata is None or faults:
        return [fault.what for fault in faults]
    store = PatchStore(path, metadata)
    reads = {f"array {name}": partial(store._array, name) for name in ARRAYS if name != "tiles"}
    reads |= {f"embeddings {name}": partial(store.embeddings, name) for name in store.encoders}
    reads |= {f"shard {number}": partial(store._require_tiles, number) for number in range(store.n_shards)}
    found = []
    for part, read in reads.items():
        try:
            read()
        except StoreError as error:
            found.append(f"{error.what}: {part}")
    return found


class PatchStore:
    """A finished store, for reading. Holds no open file, so it pickles, forks and is shared between threads as it is.

    Small arrays and shard indices are read at first use and kept, in each process for itself.
    """

    def __init__(self, path: Path, metadata: Metadata) -> None:
        attributes = metadata.attributes
        self.path = path
        self.attributes: dict[str, Any] = attributes.model_dump(mode="json")
        self.slide_id, self.mpp, self.tile_st = attributes.slide_id, attributes.mpp, attributes.tile_st
        self.grid_shape: tuple[int, int] = attributes.grid_shape
        self._metadata = metadata
        self._checked = metadata.arrays["tiles"].has_checksums
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def __repr__(self) -> str:
        return f"PatchStore({str(self.path)!r}, {len(self)} tiles of {self.tile_st} px at {self.mpp} um/px)"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def __len__(self) -> int:
        return self._metadata.arrays["rc"].shape[0]

    @property
    def xy_l0(self) -> npt.NDArray[np.int64]:
        """Top-left corner x, y of each tile, level-0 pixels (n, 2)."""
        return self._array("xy_l0")

    @property
    def rc(self) -> npt.NDArray[np.int32]:
        """Row and column of each tile in the store's grid (n, 2)."""
        return self._array("rc")

    @property
    def tissue(self) -> npt.NDArray[np.float32]:
        """Share of each tile that is tissue (n,)."""
        return self._array("tissue")

    @property
    def overview(self) -> npt.NDArray[np.uint8]:
        """The whole slide, small: RGB (h, w, 3)."""
        return self._array("overview")

    @property
    def overview_mask(self) -> npt.NDArray[np.uint8]:
        """Class of each overview pixel (h, w): 0 glass, 1 tissue, 2 pen, 3 blurred."""
        return self._array("overview_mask")

    @property
    def encoders(self) -> list[str]:
        """Names of the tile encoders whose embeddings the store holds."""
        return encoders(self.path)

    def embeddings(self, encoder: str) -> npt.NDArray[np.floating]:
        """One vector per tile (n, e), float16 or float32, finite, as `add_embeddings` stored them.

        Raises:
            StoreError: The store has none of this encoder, or they are damaged.
        """
        return self._array(f"embeddings/{encoder}")

    def read_tiles(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Decode tiles (k, T, T, 3), in the order asked for; same pixels as zarr's, several times faster.

        Raises:
            StoreError: A tile is missing or damaged.
            IndexError: An index is not in 0 to n - 1.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"tile indices go from 0 to {len(self) - 1}")
        out = empty_pixels(len(wanted), self.tile_st, self.tile_st, 3)
        per_shard = self._tiles_per_shard()
        shard_of = wanted // per_shard
        for shard in np.unique(shard_of).tolist():
            places = np.flatnonzero(shard_of == shard)
            path = shard_path(self.path / "tiles", shard)
            chunks = read_chunks(path, self._shard_index(shard), wanted[places] - shard * per_shard)
            for place, chunk in zip(places.tolist(), chunks, strict=True):
                self._decode(chunk, int(wanted[place]), out[place])
        return out

    def read_region(self, xy_st: tuple[int, int], size_st: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """RGB (h, w, 3) of any rectangle of the slide, white where there is no tile, outside of the slide too.

        Args:
            xy_st: Top-left corner x, y, store pixels.
            size_st: Width and height, store pixels.
        """
        low = np.array(xy_st)
        high = low + size_st
        region = np.full((size_st[1], size_st[0], 3), WHITE, np.uint8)
        corners_st = st_from_rc(self.rc, self.tile_st)
        touched = np.flatnonzero(np.all((corners_st < high) & (corners_st + self.tile_st > low), axis=1))
        for i in touched.tolist():  # one at a time, so that memory is the region's and one tile's
            (x0, y0), (x1, y1) = np.maximum(corners_st[i], low), np.minimum(corners_st[i] + self.tile_st, high)
            tile = self.read_tiles([i])[0]
            x, y = corners_st[i]
            region[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return region

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self._kept:
            array = read_array(self._stored(name))
            if broken := broken_value(name, array, self._metadata.attributes, lambda: self.rc):
                raise StoreError(broken, where=self.path, fix=REDO)
            array.flags.writeable = False
            self._kept[name] = array
        return self._kept[name]

    def _stored(self, name: str) -> StoredArray:
        return self._metadata.arrays.get(name) or read_embedding(self.path, name.removeprefix("embeddings/"), len(self))

    @property
    def n_shards(self) -> int:
        """Shards (files) of tiles."""
        return -(-len(self) // self._tiles_per_shard())

    def _tiles_per_shard(self) -> int:
        return self._metadata.arrays["tiles"].chunk[0]

    def _shard_index(self, shard: int) -> npt.NDArray[np.uint64]:
        key = f"shard {shard}"
        if key not in self._kept:
            longest = 2 * self.tile_st**2 * 3 + MAX_JPEG_HEADER
            self._kept[key] = read_index(shard_path(self.path / "tiles", shard), self._tiles_per_shard(), longest)
        return self._kept[key]

    def _require_tiles(self, shard: int) -> None:
        first, n = shard * self._tiles_per_shard(), len(self)
        missing = np.flatnonzero(self._shard_index(shard)[: n - first, 0] == EMPTY) + first
        if len(missing):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise StoreError(f"tile {missing[0]}{more} is missing", where=self.path, fix=REDO)

    def _decode(self, chunk: bytes, i: int, out: npt.NDArray[np.uint8]) -> None:
        try:
            data = without_checksum(chunk) if self._checked else chunk
            scan_start(data, 0, (self.tile_st, self.tile_st))
            decode_into(data, out)
        except ValueError as error:
            raise StoreError(f"tile {i} is damaged ({error})", where=self.path, fix=REDO) from error


def add_embeddings(
    path: Path | str, encoder: str, array: npt.NDArray[np.floating], attributes: Mapping[str, Any]
) -> None:
    """Add one vector per tile to a finished store, whole or not at all; replaces those of the same name.

    Args:
        path: The store.
        encoder: Name under which they are kept, a plain name without separators.
        array: (n, e), float16 or float32, finite, in the order of the store's tiles.
        attributes: Where they come from: weights, versions, settings; whatever JSON can hold.

    Raises:
        StoreError: No finished store, or vectors that do not fit it.
    """
    store = open_store(path)
    wrong = [
        sentence
        for sentence, holds in {
            f"{encoder!r} is not a plain name": is_plain_name(encoder),
            f"embeddings have shape {array.shape}, not ({len(store)}, e)": array.ndim == 2
            and len(array) == len(store)
            and 1 <= array.shape[1] <= MAX_CHANNELS,
            f"embeddings are {array.dtype}, not float16 or float32": str(array.dtype) in EMBEDDING.dtypes,
            "embeddings are not finite": bool(np.isfinite(array).all()),
            "attributes are more than JSON can hold, or than 64 kB": _fits_json(attributes),
        }.items()
        if not holds
    ]
    if wrong:
        raise StoreError("; ".join(wrong), where=path, fix="give one finite float16 or float32 vector per tile")
    with claimed(store.path / "embeddings" / encoder, "zarr.json") as folder:
        create_array(folder, EMBEDDING, array.shape, dict(attributes), dtype=str(array.dtype))[:] = array


def _fits_json(attributes: Mapping[str, Any]) -> bool:
    try:
        return len(json.dumps(dict(attributes), allow_nan=False)) < 1 << 16
    except (TypeError, ValueError, RecursionError):
        return False
