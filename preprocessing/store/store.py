"""Opening, checking and reading of the patch store `<slide_id>.zarr`. Its schema is `preprocessing.store.schema`."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.errors import StoreError
from preprocessing.frames import st_from_l0, st_from_rc
from preprocessing.jpeg.codec import decode_into, empty_pixels
from preprocessing.jpeg.markers import scan_start
from preprocessing.store.arrays import (
    REDO,
    VALUES_SHA256,
    StoredArray,
    read_array,
    remedy,
    unreadable,
    values_sha256,
    without_checksum,
)
from preprocessing.store.rules import Metadata, examine, read_embedding, read_metadata
from preprocessing.store.schema import encoders
from preprocessing.store.shards import EMPTY, read_chunks, read_index, shard_path
from preprocessing.store.values import broken_value
from preprocessing.store.writer import WHITE

MAX_JPEG_HEADER = 1 << 16
"""Most bytes of a tile's JPEG in addition to two per sample; random noise at quality 100 takes less than two."""


def find_stores(folder: Path | str) -> dict[str, Path]:
    """Return the paths of a folder's stores by slide id, sorted; for the path of a store, this store only.

    Raises:
        StoreError: The folder does not exist, cannot be read, or contains no stores.
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
    """Open a finished store, or its piece `slide.zarr~3`. Metadata are checked now, values when they are first read.

    Raises:
        StoreError: The store is missing, is unfinished, has another schema version, or its metadata breaks the schema.

    >>> store = open_store("stores/slide-1.zarr")  # doctest: +SKIP
    >>> store.read_tiles([0, 1]).shape  # doctest: +SKIP
    (2, 256, 256, 3)
    """
    path = Path(path)
    if ".zarr~" in path.name:
        from preprocessing.store.piece import open_piece  # here, since a piece is a kind of store

        return open_piece(path)
    return PatchStore(path, read_metadata(path))


def problems(path: Path | str) -> list[str]:
    """Return every rule that the store at `path` breaks, one sentence each; empty if the store is valid.

    Metadata, all small arrays, features and the index of every shard are read. Tiles are not decoded.

    >>> problems("no/such.zarr")
    ['there is no store here']
    """
    path = Path(path)
    metadata, faults = examine(path)
    if metadata is None or faults:
        return [fault.what for fault in faults]
    store = PatchStore(path, metadata)
    reads = {f"array {name}": partial(store._array, name) for name in store.arrays if name != "tiles"}
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
    """A finished store, for reading. It has no open files, so it can be pickled, forked and shared between threads.

    Small arrays and shard indices are read at first use and cached, separately in each process. Arrays that are not in
    `arrays` raise a `StoreError`.

    At every read, a chunk is compared with the crc32c at its end. For a tile, this number is compared with the array
    `crc32c`, too, which detects chunks of other tiles without computing the checksum twice. The first stores of
    version 0.1.0 have neither.

    Attributes:
        path: The store's folder.
        slide_id: Name of the slide.
        source: Files of the slide.
        vendor: Format of the slide, by OpenSlide's name.
        size_l0: Width and height of the slide, level-0 pixels.
        bounds_l0: Left, top, width and height of the scanned part, level-0 pixels; None if the file states none.
        mpp_l0: Resolution of level 0, micrometres per pixel.
        mpp_source: Source of `mpp_l0`: `manifest`, `metadata`, `objective` or `flag`.
        mpp: Resolution of the tiles, micrometres per pixel.
        tile_st: Side of a tile, store pixels.
        side_l0: Width and height of a tile, level-0 pixels.
        grid_shape: Rows and columns of the grid of tiles.
        lattice: True if each tile is the cell `rc` of the grid. If false, `xy_l0` is authoritative; `rc` may repeat.
        arrays: Names of the arrays in the store.
        passthrough: True if tiles are the slide's own JPEG data.
        warnings: Warnings on the slide, one sentence each.
    """

    def __init__(self, path: Path, metadata: Metadata) -> None:
        attributes = metadata.attributes
        self.path = path
        self.slide_id, self.source, self.vendor = attributes.slide_id, attributes.source, attributes.vendor
        self.size_l0, self.bounds_l0 = attributes.size_l0, attributes.bounds_l0
        self.mpp_l0, self.mpp_source, self.mpp = attributes.mpp_level0, attributes.mpp_source, attributes.mpp
        self.tile_st, self.side_l0, self.grid_shape = attributes.tile_st, attributes.side_l0, attributes.grid_shape
        self.lattice, self.arrays, self.passthrough = attributes.lattice, attributes.arrays, attributes.passthrough
        self.warnings = tuple(attributes.warnings)
        self._metadata = metadata
        self._checked = "tiles" in self.arrays and metadata.arrays["tiles"].has_checksums
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def __repr__(self) -> str:
        return f"PatchStore({str(self.path)!r}, {len(self)} tiles of {self.tile_st} px at {self.mpp} um/px)"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def __len__(self) -> int:
        return self._metadata.arrays["rc"].shape[0]

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes in the store's document, as JSON values."""
        return self._metadata.attributes.model_dump(mode="json", exclude_unset=True)

    def identity(self) -> str:
        """Return the attributes as one line of JSON, which changes if the slide is tiled again with other settings."""
        return json.dumps(self.attributes, sort_keys=True)

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
    def piece(self) -> npt.NDArray[np.int32]:
        """Connected piece of tissue that each tile is a part of (n,), from 0; -1 unknown or none."""
        return self._array("piece")

    @property
    def crc32c(self) -> npt.NDArray[np.uint32]:
        """CRC-32C of the JPEG of each tile (n,)."""
        return self._array("crc32c")

    @property
    def xy_st(self) -> npt.NDArray[np.int64]:
        """Top-left corner x, y of each tile, store pixels (n, 2)."""
        if self.lattice:
            return st_from_rc(self.rc, self.tile_st)
        return np.rint(st_from_l0(self.xy_l0, self.side_l0, self.tile_st)).astype(np.int64)

    def require(self, name: str) -> None:
        """Raise a `StoreError` unless the store has the array `name`."""
        if name not in self.arrays:
            why = "it has imported features without pixels"
            if "tiles" in self.arrays:
                old = self._metadata.attributes.schema_version == 1
                why = "an earlier version made it" if old else "it was written without"
            fix = "tile the slide with `longvit tile`, into another folder"
            raise StoreError(f"the store has no {name}: {why}", where=self.path, fix=fix)

    @property
    def encoders(self) -> list[str]:
        """Sorted names of the features in the store."""
        return encoders(self.path)

    def embeddings(self, encoder: str) -> npt.NDArray[np.floating]:
        """Return the features of a name, one vector per tile (n, e): finite float16 or float32.

        Args:
            encoder: Name of the features, as given to `add_embeddings`.

        Raises:
            StoreError: The store has no features of this name, or they are damaged.
        """
        return self._array(f"embeddings/{encoder}")

    def read_tiles(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Decode tiles (k, T, T, 3) in the order of `indices`; the pixels are zarr's, several times faster.

        Args:
            indices: Indices (k,) of the tiles.

        Raises:
            StoreError: A tile is missing, is damaged or is another tile, or the store has no pixels.
            IndexError: An index is not in 0 to n - 1.
        """
        self.require("tiles")
        wanted = np.asarray(indices, dtype=np.int64).tolist()
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self):
            raise IndexError(f"tile indices go from 0 to {len(self) - 1}")
        out = empty_pixels(len(wanted), self.tile_st, self.tile_st, 3)
        sums = self.crc32c[wanted].tolist() if "crc32c" in self.arrays else [None] * len(wanted)
        per_shard = self._tiles_per_shard()
        places: dict[int, list[int]] = {}
        for place, i in enumerate(wanted):
            places.setdefault(i // per_shard, []).append(place)
        for shard, members in sorted(places.items()):
            path, first = shard_path(f"{self.path}/tiles", shard), shard * per_shard
            chunks = read_chunks(path, self._shard_index(shard), [wanted[place] - first for place in members])
            for place, chunk in zip(members, chunks, strict=True):
                self._decode(chunk, wanted[place], sums[place], out[place])
        return out

    def read_region(
        self, xy_st: tuple[int, int], size_st: tuple[int, int], parts: npt.NDArray[np.integer] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return the pixels (h, w, 3), RGB, of any rectangle, white outside the tiles and outside the slide.

        If tiles overlap, the last tile is shown.

        Args:
            xy_st: Top-left corner x, y, store pixels.
            size_st: Width and height, store pixels.
            parts: Corners (k, 2, 2) of the parts to read, first and end x, y in store pixels; tiles that touch none of
                them are not decoded. Default: all.
        """
        low = np.array(xy_st)
        high = low + size_st
        region = np.full((size_st[1], size_st[0], 3), WHITE, np.uint8)
        corners_st = self.xy_st
        ends_st = corners_st + self.tile_st
        wanted = np.array([[low, high]]) if parts is None else parts
        touched = np.any([np.all((corners_st < end) & (ends_st > first), axis=1) for first, end in wanted], axis=0)
        for i in np.flatnonzero(touched).tolist():  # one at a time, so that memory is only for the region and one tile
            (x0, y0), (x1, y1) = np.maximum(corners_st[i], low), np.minimum(corners_st[i] + self.tile_st, high)
            tile = self.read_tiles([i])[0]
            x, y = corners_st[i]
            region[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return region

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self._kept:
            stored = self._stored(name)
            array = read_array(stored)
            if broken := broken_value(name, array, self._metadata.attributes, lambda: self.rc):
                raise StoreError(broken, where=self.path, fix=remedy(self.path))
            if stored.values_sha256 is not None and stored.values_sha256 != values_sha256(array):
                what, fix = f"{name} does not have the values of its {VALUES_SHA256}", "write these features again"
                raise StoreError(what, where=self.path, fix=fix)
            array.flags.writeable = False
            self._kept[name] = array
        return self._kept[name]

    def _stored(self, name: str) -> StoredArray:
        if name.startswith("embeddings/"):
            return read_embedding(self.path, name.removeprefix("embeddings/"), len(self))
        self.require(name)
        return self._metadata.arrays[name]

    @property
    def n_shards(self) -> int:
        """Number of shards (files) of tiles."""
        return -(-len(self) // self._tiles_per_shard()) if "tiles" in self.arrays else 0

    def _tiles_per_shard(self) -> int:
        return self._metadata.arrays["tiles"].chunk[0]

    def _shard_index(self, shard: int) -> npt.NDArray[np.uint64]:
        key = f"shard {shard}"
        if key not in self._kept:
            longest = 2 * self.tile_st**2 * 3 + MAX_JPEG_HEADER
            self._kept[key] = read_index(shard_path(f"{self.path}/tiles", shard), self._tiles_per_shard(), longest)
        return self._kept[key]

    def _require_tiles(self, shard: int) -> None:
        first, n = shard * self._tiles_per_shard(), len(self)
        missing = np.flatnonzero(self._shard_index(shard)[: n - first, 0] == EMPTY) + first
        if len(missing):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise StoreError(f"tile {missing[0]}{more} is missing", where=self.path, fix=REDO)

    def _decode(self, chunk: bytes, i: int, crc32c: int | None, out: npt.NDArray[np.uint8]) -> None:
        try:
            data = without_checksum(chunk, crc32c) if self._checked else chunk
            scan_start(data, 0, (self.tile_st, self.tile_st))
            decode_into(data, out)
        except ValueError as error:
            raise StoreError(f"tile {i} is damaged ({error})", where=self.path, fix=REDO) from error
