"""The store's schema: what `<slide_id>.zarr` holds, version 1, and every way in which one can break it.

One Zarr v3 group per slide. `preprocessing` writes it, `longvit` reads it through `preprocessing.store`, and no other
module knows a key. A new layout is a new `SCHEMA_VERSION`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from preprocessing.errors import StoreError
from preprocessing.frames import l0_from_rc
from preprocessing.jpeg import CODEC_NAME, Jpeg
from preprocessing.resolution import MppSource
from preprocessing.shards import EMPTY, read_index, shard_path

SCHEMA_VERSION = 1
"""Version of the layout below; stores of another version are refused."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store."""

    axes: tuple[str, ...]
    dtype: str
    meaning: str


ARRAYS = {
    "tiles": ArraySpec(
        ("tile", "y", "x", "rgb"), "uint8", "RGB at the store's mpp; white where the scanner saw nothing."
    ),
    "xy_l0": ArraySpec(("tile", "axis"), "int64", "Top-left corner x, y of each tile, level-0 pixels."),
    "rc": ArraySpec(("tile", "axis"), "int32", "Row and column of each tile in the store's grid."),
    "tissue": ArraySpec(("tile",), "float32", "Share of the tile that is tissue, 0 to 1."),
    "overview": ArraySpec(("y", "x", "rgb"), "uint8", "The whole slide, small."),
    "overview_mask": ArraySpec(
        ("y", "x"), "uint8", "0 glass, 1 tissue, 2 pen, 3 blurred; same pixels as the overview."
    ),
}
"""The arrays every store has. `embeddings/<encoder>`, (tile, channel) float16 or float32, may be added later."""

EMBEDDING_DTYPES = ("float16", "float32")
"""What an embedding may be stored as."""

MASK_CLASSES = {"glass": 0, "tissue": 1, "pen": 2, "blurred": 3}
"""Values of `overview_mask`."""


class Source(BaseModel):
    """What a store was made from: a slide or a mask. Of several files, `size` and `sha256` are of all together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The file that was opened."""
    more: tuple[str, ...] = ()
    """Those that the slide has besides, from the opened one's folder."""
    size: int
    sha256: str


class StoreAttributes(BaseModel):
    """The attributes of the store's group. Resolutions are micrometres per pixel, sizes (width, height) in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    slide_id: str = Field(min_length=1)
    source: Source
    vendor: str
    mpp: PositiveFloat
    mpp_source: MppSource
    mpp_level0: PositiveFloat
    size_l0: tuple[PositiveInt, PositiveInt]
    tile_st: PositiveInt
    grid_shape: tuple[PositiveInt, PositiveInt]
    side_l0: tuple[PositiveFloat, PositiveFloat]
    config: dict[str, Any]
    versions: dict[str, str]
    mask: Source | None = None
    passthrough: bool = False
    warnings: list[str] = []
    complete: bool = False


def read_attributes(path: Path) -> dict[str, Any]:
    """Attributes of the store's group, as written; straight from its metadata document, so that looking costs little.

    Raises:
        StoreError: There is no store at `path`, or its metadata cannot be read.
    """
    try:
        document = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return dict(document["attributes"])
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError("there is no store here", where=path, fix="tile the slide: longvit tile") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the store's metadata cannot be read ({error})", where=path / "zarr.json", fix="tile the slide again"
        ) from error


def n_tiles(path: Path) -> int:
    """Tiles of a store, from the metadata document of its array.

    Raises:
        StoreError: It cannot be read.
    """
    document = path / "tiles" / "zarr.json"
    try:
        return int(json.loads(document.read_text(encoding="utf-8"))["shape"][0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the store's metadata cannot be read ({error})", where=document, fix="tile the slide again"
        ) from error


def problems(path: Path | str) -> list[str]:
    """Every way in which the store at `path` breaks the schema, one sentence each; empty when it is valid.

    Reads metadata, the small arrays and the index of every shard; does not decode tiles.

    >>> problems("no/such.zarr")
    ['there is no store here']
    """
    path = Path(path)
    try:
        attributes = read_attributes(path)
    except StoreError as error:
        return [error.what]
    found = _attribute_problems(attributes)
    group = zarr.open_group(path, mode="r")
    for name, spec in ARRAYS.items():
        found += _array_problems(group, name, spec)
    if found:  # what follows compares arrays with attributes, which takes both in the right form
        return found
    valid = StoreAttributes.model_validate(attributes)
    arrays = dict(group.arrays())
    embeddings = {
        f"embeddings/{name}": zarr.open_array(path / "embeddings" / name, mode="r") for name in encoders(path)
    }
    shapes = _shape_problems(arrays | embeddings, valid)
    return shapes or _value_problems(arrays, valid) + _shard_problems(path, arrays["tiles"])


def _attribute_problems(attributes: dict[str, Any]) -> list[str]:
    found = [] if attributes.get("complete") is True else ["the store is unfinished: `complete` is not true"]
    try:
        StoreAttributes.model_validate(attributes)
    except ValidationError as error:
        found += [f"attribute {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return found


def _array_problems(group: zarr.Group, name: str, spec: ArraySpec) -> list[str]:
    try:
        array = group.get(name)
    except (ValueError, KeyError, TypeError) as error:
        return [f"array {name} has metadata that cannot be read: {error}"]
    if not isinstance(array, zarr.Array):
        return [f"array {name} is missing"]
    found = []
    if str(array.dtype) != spec.dtype:
        found.append(f"array {name} is {array.dtype}, not {spec.dtype}")
    if array.ndim != len(spec.axes):
        found.append(f"array {name} has {array.ndim} axes, not {len(spec.axes)} ({', '.join(spec.axes)})")
    return found


def _shape_problems(arrays: dict[str, zarr.Array], attributes: StoreAttributes) -> list[str]:
    """Shapes against the attributes and each other, and the type of embeddings."""
    n, tile_st = arrays["tiles"].shape[0], attributes.tile_st
    shapes = {"tiles": (n, tile_st, tile_st, 3), "xy_l0": (n, 2), "rc": (n, 2), "tissue": (n,)}
    shapes["overview"] = (*arrays["overview_mask"].shape, 3)
    embeddings = {name: array for name, array in arrays.items() if name.startswith("embeddings/")}
    shapes |= {name: (n, array.shape[-1]) for name, array in embeddings.items()}
    found = [] if n else ["the store has no tiles"]
    found += [
        f"array {name} has shape {arrays[name].shape}, not {shape}"
        for name, shape in shapes.items()
        if arrays[name].shape != shape
    ]
    return found + [
        f"array {name} is {array.dtype}, not float16 or float32"
        for name, array in embeddings.items()
        if str(array.dtype) not in EMBEDDING_DTYPES
    ]


def _value_problems(arrays: dict[str, zarr.Array], attributes: StoreAttributes) -> list[str]:
    """What the small arrays say, against the attributes and each other."""
    try:
        rc, xy_l0, tissue, mask = (np.asarray(arrays[name][:]) for name in ("rc", "xy_l0", "tissue", "overview_mask"))
    except (RuntimeError, ValueError, OSError) as error:
        return [f"the small arrays cannot be read: {error}"]
    laws = {
        f"rc leaves the grid {attributes.grid_shape}": np.all((rc >= 0) & (rc < attributes.grid_shape)),
        "rc names a tile twice": len(np.unique(rc, axis=0)) == len(rc),
        "xy_l0 is not rc times side_l0": np.array_equal(xy_l0, l0_from_rc(rc, attributes.side_l0)),
        "tissue leaves 0 to 1": np.all((tissue >= 0) & (tissue <= 1)),
        "overview_mask has values above 3": mask.max(initial=0) <= max(MASK_CLASSES.values()),
    }
    return [sentence for sentence, holds in laws.items() if not holds]


def _shard_problems(path: Path, tiles: zarr.Array) -> list[str]:
    """Codec, sharding and presence of the tiles, from their metadata and the index of every shard."""
    codec, tile = tiles.serializer, tiles.shape[1:]
    # Tables, headers or colour spaces outside of the chunks would make them unreadable as the JPEG files that they are.
    if not isinstance(codec, Jpeg) or codec != Jpeg(level=codec.level, subsampling=codec.subsampling):
        return [f"tiles are encoded with {codec}, not with plain {CODEC_NAME}"]
    if tiles.shards is None or tiles.shards[1:] != tile or tiles.chunks != (1, *tile):
        return [f"tiles have chunks {tiles.chunks} in shards {tiles.shards}, not one tile in shards of whole tiles"]
    n, per_shard = tiles.shape[0], tiles.shards[0]
    found = []
    for shard in range(-(-n // per_shard)):
        try:
            index = read_index(shard_path(path / "tiles", shard), per_shard)
        except StoreError as error:
            found.append(f"{error.what}: shard {shard}")
            continue
        missing = np.flatnonzero(index[: n - shard * per_shard, 0] == EMPTY) + shard * per_shard
        found += [f"tile {i} is missing" for i in missing]
    return found


def embedding_attributes(path: Path, encoder: str) -> dict[str, Any]:
    """Return shape, type and attributes of a store's embeddings, from the metadata document of their array.

    Raises:
        StoreError: The store has no embeddings of this encoder, or their metadata cannot be read.
    """
    document = path / "embeddings" / encoder / "zarr.json"
    try:
        found = json.loads(document.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("shape", "data_type", "attributes")}
    except FileNotFoundError:
        fix = f"write them first with preprocessing.add_embeddings(path, {encoder!r}, ...)"
        raise StoreError(f"the store has no embeddings named {encoder!r}", where=path, fix=fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "write the embeddings again"
        raise StoreError(f"the metadata of embeddings cannot be read ({error})", where=document, fix=fix) from error


def encoders(path: Path) -> list[str]:
    """Names of the tile encoders whose embeddings the store at `path` holds; not those that are being written."""
    return sorted(document.parent.name for document in path.glob("embeddings/[!.]*/zarr.json"))
