"""The patch store `<slide_id>.zarr`: write it, open it, add embeddings. Its schema is in `preprocessing.schema`."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from preprocessing.claim import claimed
from preprocessing.errors import StoreError
from preprocessing.files import is_plain_name
from preprocessing.frames import st_from_rc
from preprocessing.jpeg import Jpeg, decode_into, empty_pixels
from preprocessing.schema import ARRAYS, EMBEDDING_DTYPES, SCHEMA_VERSION, StoreAttributes, encoders, read_attributes
from preprocessing.schema import problems as problems
from preprocessing.shards import Pieces, read_chunks, read_index, shard_path, write_shards

WHITE = 255
OVERVIEW_CHUNK = 1024


def write_arrays(
    folder: Path,
    jpegs: Iterable[tuple[int, Pieces]],
    arrays: Mapping[str, npt.NDArray[Any]],
    tile_st: int,
    *,
    jpeg: Jpeg,
    shard_tiles: int,
) -> None:
    """Write all of a store but its attributes; `claimed` gives the folder, so that nobody sees it half written.

    Args:
        folder: What becomes the store; what is in it is removed.
        jpegs: Index in `rc` and JPEG, whole, RGB, of `tile_st` pixels a side, of every tile; shard after shard.
        arrays: `xy_l0`, `rc`, `tissue`, `overview` and `overview_mask`, as `preprocessing.schema.ARRAYS` says.
        tile_st: Side of a tile, store pixels.
        jpeg: The codec that is written down, and that encodes the overview.
        shard_tiles: Tiles in one shard (one file).
    """
    n, tile = len(arrays["rc"]), (tile_st, tile_st, 3)
    assert n > 0, "a store without tiles is never written"
    group = zarr.create_group(folder, overwrite=True)
    shards = (min(shard_tiles, n), *tile)
    _create(group, "tiles", (n, *tile), chunks=(1, *tile), shards=shards, fill_value=WHITE, serializer=jpeg)
    with ThreadPoolExecutor(1) as beside:  # zarr takes its time, and so do the tiles
        rest = beside.submit(_write_small, group, arrays, jpeg)
        write_shards(folder / "tiles", jpegs, n, shards[0])
        rest.result()
    group.create_group("embeddings")


def finish_store(folder: Path, attributes: StoreAttributes) -> None:
    """Write the attributes, `complete` among them: the last thing that is written."""
    zarr.open_group(folder, mode="r+").attrs.put(attributes.model_dump(mode="json") | {"complete": True})


def _write_small(group: zarr.Group, arrays: Mapping[str, npt.NDArray[Any]], jpeg: Jpeg) -> None:
    overview = arrays["overview"]
    chunks = (*(min(side, OVERVIEW_CHUNK) for side in overview.shape[:2]), 3)
    _create(group, "overview", overview.shape, chunks=chunks, fill_value=WHITE, serializer=jpeg)[:] = overview
    for name in ("xy_l0", "rc", "tissue", "overview_mask"):
        _create(group, name, arrays[name].shape, chunks=arrays[name].shape)[:] = arrays[name]


def _create(group: zarr.Group, name: str, shape: tuple[int, ...], **layout: Any) -> zarr.Array:  # noqa: ANN401 - zarr's
    spec = ARRAYS[name]
    if "serializer" in layout:
        layout["compressors"] = None  # a JPEG does not get smaller
    layout |= {"dimension_names": spec.axes, "attributes": {"meaning": spec.meaning}}
    layout["config"] = {"write_empty_chunks": True}  # else zarr compares every chunk with its fill value
    return group.create_array(name, shape=shape, dtype=spec.dtype, **layout)


def find_stores(folder: Path) -> dict[str, Path]:
    """Return the stores of a folder by slide id, sorted; or the one store that is given itself.

    Raises:
        StoreError: There is no such folder, or no store in it.
    """
    if folder.suffix == ".zarr":
        return {folder.stem: folder}
    stores = {path.name.removesuffix(".zarr"): path for path in sorted(folder.glob("*.zarr")) if path.is_dir()}
    if not stores:
        raise StoreError(
            "there are no stores" if folder.is_dir() else "the folder of stores does not exist",
            where=folder,
            fix="make them with `longvit tile --slides SLIDES --out FOLDER`",
        )
    return stores


def open_store(path: Path | str) -> "PatchStore":
    """Open a finished store.

    Raises:
        StoreError: There is none, it is unfinished, or it has another schema version; `problems(path)` says more.

    >>> store = open_store("stores/slide-1.zarr")  # doctest: +SKIP
    >>> store.read_tiles([0, 1]).shape  # doctest: +SKIP
    (2, 256, 256, 3)
    """
    path = Path(path)
    attributes = read_attributes(path)
    version = attributes.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"the store has schema version {version}, this program reads {SCHEMA_VERSION}",
            where=path,
            fix="tile the slide again, or install the version that wrote it",
        )
    if attributes.get("complete") is not True:
        raise StoreError("the store is unfinished", where=path, fix="tile the slide again: longvit tile")
    return PatchStore(path, attributes)


class PatchStore:
    """A finished store, for reading. Holds no open file, so it pickles, forks and is shared between threads as it is.

    Small arrays and shard indices are read at first use and kept, in each process for itself.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self.attributes = attributes
        self.slide_id: str = attributes["slide_id"]
        self.mpp: float = attributes["mpp"]
        self.tile_st: int = attributes["tile_st"]
        self.grid_shape: tuple[int, int] = tuple(attributes["grid_shape"])
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def __repr__(self) -> str:
        return f"PatchStore({str(self.path)!r}, {len(self)} tiles of {self.tile_st} px at {self.mpp} um/px)"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def __len__(self) -> int:
        return len(self.rc)

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
        """One vector per tile (n, e), float16 or float32, as `add_embeddings` stored them.

        Raises:
            StoreError: The store has none of this encoder.
        """
        if encoder not in self.encoders:
            raise StoreError(
                f"the store has no embeddings named {encoder!r} (it has: {', '.join(self.encoders) or 'none'})",
                where=self.path,
                fix=f"write them first with preprocessing.add_embeddings(path, {encoder!r}, ...)",
            )
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
            array = np.asarray(zarr.open_array(self.path / name, mode="r")[:])
            array.flags.writeable = False
            self._kept[name] = array
        return self._kept[name]

    def _tiles_per_shard(self) -> int:
        if "tiles_per_shard" not in self._kept:
            shards = zarr.open_array(self.path / "tiles", mode="r").shards
            if shards is None:
                raise StoreError("its tiles are not sharded", where=self.path, fix="tile the slide again")
            self._kept["tiles_per_shard"] = np.array(shards[0])
        return int(self._kept["tiles_per_shard"])

    def _shard_index(self, shard: int) -> npt.NDArray[np.uint64]:
        key = f"shard {shard}"
        if key not in self._kept:
            self._kept[key] = read_index(shard_path(self.path / "tiles", shard), self._tiles_per_shard())
        return self._kept[key]

    def _decode(self, chunk: bytes, i: int, out: npt.NDArray[np.uint8]) -> None:
        try:
            decode_into(chunk, out)
        except ValueError as error:
            raise StoreError(
                f"tile {i} is damaged ({error})", where=self.path, fix="tile the slide again: longvit tile --overwrite"
            ) from error


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
            f"embeddings have shape {array.shape}, not ({len(store)}, e)": array.ndim == 2 and len(array) == len(store),
            f"embeddings are {array.dtype}, not float16 or float32": str(array.dtype) in EMBEDDING_DTYPES,
            "embeddings are not finite": bool(np.isfinite(array).all()),
        }.items()
        if not holds
    ]
    if wrong:
        raise StoreError("; ".join(wrong), where=path, fix="give one finite float16 or float32 vector per tile")
    with claimed(store.path / "embeddings" / encoder, "zarr.json") as partial:
        zarr.create_array(
            partial, data=array, chunks=array.shape, dimension_names=("tile", "channel"), attributes=dict(attributes)
        )
