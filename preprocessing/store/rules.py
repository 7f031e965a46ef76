"""The rules of a store's metadata. The rules of its values are in `preprocessing.store.values`."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from preprocessing.errors import StoreError, VersionError
from preprocessing.frames import grid_shape
from preprocessing.jobs.files import is_plain_name
from preprocessing.jpeg.codec import CODEC_NAME
from preprocessing.store.arrays import IMAGE, SHARDED, StoredArray, read_document, read_stored, remedy
from preprocessing.store.schema import (
    ARRAYS,
    EMBEDDING,
    FIRST,
    MAX_OVERVIEW_PX,
    MAX_PIXELS,
    MAX_TILES,
    SCHEMA_VERSION,
    SINCE_2,
    ArraySpec,
    StoreAttributes,
    encoders,
)
from preprocessing.store.shards import shard_path

MPP_TOLERANCE = 1e-6
"""Largest relative difference between a store's resolution and the resolution computed from its tiles' size."""
SMALLEST_SIDE = 1e-5
"""Smallest side of a tile, level-0 pixels; it may be below 1, as a canvas enlarges small slides."""
MAX_CHANNELS = 1 << 16
"""Largest length of a tile's feature vector."""


class _FinishedAttributes(StoreAttributes):
    complete: Literal[True]


class _Group(BaseModel):
    """Model of the `zarr.json` of a finished store; other keys, such as consolidated metadata, are ignored."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: _FinishedAttributes


@dataclass(frozen=True)
class Metadata:
    """Metadata of a store, as read from its documents."""

    attributes: StoreAttributes
    arrays: dict[str, StoredArray]
    """Arrays that the attributes list; other arrays in the folder are not checked."""


def read_metadata(path: Path) -> Metadata:
    """Return the metadata of a finished store.

    Raises:
        StoreError: The store is missing, is unfinished, has another version, or its metadata breaks a rule. The notes
            of the error list up to five more broken rules.
    """
    metadata, faults = examine(path)
    if metadata is None or faults:
        raise _first(faults)
    return metadata


def read_attributes(path: Path) -> StoreAttributes:
    """Return the attributes of a finished store, from one document.

    Raises:
        StoreError: The store is missing, is unfinished, has another version, or its attributes break a rule.
    """
    attributes, faults = _examine_attributes(path)
    if attributes is None or faults:
        raise _first(faults)
    return attributes


def n_tiles(path: Path) -> int:
    """Return the number of tiles of a store, from one document.

    Raises:
        StoreError: The document is missing or damaged.
    """
    return read_stored(path, "rc").shape[0]


def embedding_attributes(path: Path, encoder: str) -> dict[str, Any]:
    """Return shape, type and attributes of a store's features.

    Args:
        path: Path of the store.
        encoder: Name of the features.

    Raises:
        StoreError: The store has no features of this name, or their metadata cannot be used.
    """
    stored = read_embedding(path, encoder)
    document = json.loads(read_document(stored.folder))
    return {"shape": list(stored.shape), "data_type": stored.dtype, "attributes": document.get("attributes")}


def read_embedding(path: Path, encoder: str, n: int | None = None) -> StoredArray:
    """Return the description of an array of features from its document.

    Args:
        path: Path of the store.
        encoder: Name of the features.
        n: Number of tiles in the store, which must be the array's length; None to allow any.

    Raises:
        StoreError: The store has no features of this name, or their metadata breaks a rule.
    """
    fix = f"write them with preprocessing.add_embeddings(path, {encoder!r}, ...)"
    known = encoders(path)
    if encoder not in known:
        what = f"the store has no embeddings named {encoder!r} (it has: {', '.join(known) or 'none'})"
        raise StoreError(what, where=path, fix=fix)
    try:
        stored = read_stored(path, f"embeddings/{encoder}")
    except StoreError as error:  # the slide need not be tiled again
        raise StoreError(error.what, where=error.where, fix=fix) from error
    if broken := "; ".join(_broken_embedding(stored, n)):
        raise StoreError(broken, where=path, fix=fix)
    return stored


def examine(path: Path) -> tuple[Metadata | None, list[StoreError]]:
    """Return a store's metadata, or None if it cannot be used, and an error for every rule that it breaks."""
    try:
        attributes, faults = _examine_attributes(path)
    except StoreError as error:
        return None, [error]
    arrays = {}
    for name in attributes.arrays if attributes else FIRST:
        try:
            arrays[name] = read_stored(path, name)
            faults += _faults(path, broken_array(arrays[name], ARRAYS[name]))
        except StoreError as error:
            faults.append(error)
    if attributes is None or faults:
        return None, faults
    metadata = Metadata(attributes, arrays)
    broken = list(_broken_shapes(metadata))
    if not broken and "tiles" in arrays:
        broken = list(_broken_shards(arrays["tiles"]))
    return metadata, _faults(path, broken)


def broken_array(array: StoredArray, spec: ArraySpec) -> Iterator[str]:
    """Yield the rules that an array's type, axes or codecs break."""
    if array.dtype not in spec.dtypes:
        yield f"array {array.name} is {array.dtype}, not {' or '.join(spec.dtypes)}"
    if len(array.shape) != len(spec.axes):
        yield f"array {array.name} has {len(array.shape)} axes, not {len(spec.axes)} ({', '.join(spec.axes)})"
    if 0 in array.shape and spec.axes[0] != "tile":
        yield f"array {array.name} is empty"
    if array.codecs not in spec.codecs or (array.codecs == SHARDED and array.inner not in IMAGE):
        expected = f"plain {CODEC_NAME} in shards" if spec.codecs == (SHARDED,) else ", ".join(spec.codecs[-1])
        yield f"array {array.name} is encoded with {', '.join(array.codecs + array.inner)}, not with {expected}"


def _broken_embedding(array: StoredArray, n: int | None) -> Iterator[str]:
    """Yield the rules that an array of features breaks in a store of `n` tiles (None: any number)."""
    broken = list(broken_array(array, EMBEDDING))
    yield from broken
    if not broken and n is not None and array.shape[0] != n:
        yield f"array {array.name} has shape {array.shape}, not ({n}, {array.shape[1]})"
    if not broken and array.shape[1] > MAX_CHANNELS:
        yield f"array {array.name} has {array.shape[1]} channels, more than {MAX_CHANNELS}"


def _examine_attributes(path: Path) -> tuple[StoreAttributes | None, list[StoreError]]:
    """Return the attributes, or None if they do not fit their model, and an error for every rule that they break.

    Raises:
        StoreError: The store is missing or has another version.
    """
    try:
        attributes = _Group.model_validate_json(read_document(path), strict=True).attributes
    except FileNotFoundError:
        fix = remedy(path, "tile the slide: longvit tile")
        raise StoreError("there is no store here", where=path, fix=fix) from None
    except ValidationError as error:
        return None, _model_faults(path, error)
    faults = _faults(path, _broken_attributes(attributes))
    if os.path.basename(os.path.abspath(path)) == f"{attributes.slide_id}.zarr":
        return attributes, faults
    if not is_plain_name(attributes.slide_id):
        return attributes, [StoreError("its slide id is not a plain name", where=path, fix=remedy(path)), *faults]
    what = f"the folder is not named after its slide, {attributes.slide_id}"
    fix = f"rename it to {attributes.slide_id}.zarr, or {remedy(path, 'tile the slide again under the other name')}"
    return attributes, [StoreError(what, where=path, fix=fix), *faults]


def _broken_attributes(attributes: StoreAttributes) -> Iterator[str]:
    """Yield the rules that attributes break, beyond the rules of their model."""
    yield from _broken_lists(attributes)
    (width, height), (wide, high) = attributes.size_l0, attributes.side_l0
    if width * height > MAX_PIXELS or min(wide, high) < SMALLEST_SIDE:
        yield f"attribute size_l0: {width} x {height} pixels in tiles of {wide:g} x {high:g} are too many"
        return
    rows, columns = grid_shape(attributes.size_l0, attributes.side_l0)
    if attributes.grid_shape != (rows, columns):
        yield f"attribute grid_shape: {attributes.grid_shape} is not {(rows, columns)}"
    if rows * columns > MAX_TILES:
        yield f"attribute grid_shape: {rows} x {columns} tiles are too many"
    mpp = attributes.mpp_level0 * math.sqrt(wide * high) / attributes.tile_st
    if not math.isclose(attributes.mpp, mpp, rel_tol=MPP_TOLERANCE):
        yield f"attribute mpp: {attributes.mpp:g} is not the resolution of its tiles, {mpp:g}"


def _broken_lists(attributes: StoreAttributes) -> Iterator[str]:
    """Yield the rules that combine a store's version, list of arrays, source and bounds, and that it breaks."""
    if attributes.schema_version == 1:
        yield from (f"attribute {key}: is not in schema 1" for key in sorted(attributes.model_fields_set & SINCE_2))
    else:
        yield from (
            f"attribute arrays: {name} is not in it" for name in ("rc", "xy_l0") if name not in attributes.arrays
        )
        if len(set(attributes.arrays)) < len(attributes.arrays):
            yield "attribute arrays: names an array twice"
        if ("tiles" in attributes.arrays) != ("crc32c" in attributes.arrays):
            yield "attribute arrays: tiles and crc32c require each other"
    sources = {"source": attributes.source if "tiles" in attributes.arrays else None, "mask": attributes.mask}
    for name, source in sources.items():
        if source and (source.size is None or source.sha256 is None):
            yield f"attribute {name}: has no size or no sha256"
    left, top, width, height = attributes.bounds_l0 or (0, 0, 1, 1)
    if left + width > attributes.size_l0[0] or top + height > attributes.size_l0[1]:
        yield f"attribute bounds_l0: {attributes.bounds_l0} extends beyond the slide"


def _model_faults(path: Path, error: ValidationError) -> list[StoreError]:
    faults = []
    for fault in error.errors(include_url=False, include_context=False):
        place, sentence = ".".join(str(part) for part in fault["loc"][1:]), fault["msg"]
        if place == "schema_version":
            what = f"the store has schema version {str(fault['input'])[:20]}; this program reads 1 to {SCHEMA_VERSION}"
            again = remedy(path, "tile the slide again with --overwrite")
            fix = f"{again}, or install the version that wrote it"
            raise VersionError(what, where=path, fix=fix)
        if place == "complete":
            faults.append("the store is unfinished: `complete` is not true")
        elif place:
            faults.append(f"attribute {place}: {sentence}")
        else:
            faults.append(f"the store's metadata cannot be read ({sentence})")
    return _faults(path, faults)


def _broken_shapes(metadata: Metadata) -> Iterator[str]:
    """Yield the rules that the arrays' shapes and checksums break, by the attributes and by each other."""
    arrays, attributes = metadata.arrays, metadata.attributes
    n, tile_st = arrays["tiles" if "tiles" in arrays else "rc"].shape[0], attributes.tile_st
    overview = next((arrays[name].shape[:2] for name in ("overview_mask", "overview") if name in arrays), (1, 1))
    shapes = {"tiles": (n, tile_st, tile_st, 3), "xy_l0": (n, 2), "rc": (n, 2)}
    shapes |= {"overview": (*overview, 3), "overview_mask": overview}
    for name, array in arrays.items():
        if array.shape != (shape := shapes.get(name, (n,))):
            yield f"array {name} has shape {array.shape}, not {shape}"
    most = math.prod(attributes.grid_shape) if attributes.lattice else MAX_TILES
    if n > most or (n == 0 and "tiles" in arrays):
        yield f"array {'tiles' if 'tiles' in arrays else 'rc'} has {n} tiles, {f'more than {most}' if n else 'below 1'}"
    bare = [name for name, array in arrays.items() if not array.has_checksums]
    # Arrays are written together: in schema 1 all or none have checksums, in schema 2 all have.
    if bare and (attributes.schema_version > 1 or len(bare) < len(arrays)):
        yield f"array {bare[0]} has lost its checksums"
    if max(overview) > MAX_OVERVIEW_PX:
        yield f"array overview has {overview[1]} x {overview[0]} pixels, more than {MAX_OVERVIEW_PX} a side"


def _broken_shards(tiles: StoredArray) -> Iterator[str]:
    """Yield the rules that the shards of the tiles break. Reads check that shards before the last exist."""
    (n, *tile), (per_shard, *shard) = tiles.shape, tiles.chunk
    if list(tiles.inner_chunk) != [1, *tile] or shard != tile:
        yield f"array tiles has chunks {tiles.inner_chunk} in shards {tiles.chunk}, not whole tiles"
    elif not os.path.isfile(shard_path(tiles.folder, (n - 1) // per_shard)):
        yield f"a shard of tiles is missing: shard {(n - 1) // per_shard}"


def _faults(path: Path, broken: Iterable[str]) -> list[StoreError]:
    return [StoreError(rule, where=path, fix=remedy(path)) for rule in broken]


def _first(faults: list[StoreError]) -> StoreError:
    """Return the first fault, with up to five other faults as its notes."""
    for other in faults[1:6]:
        faults[0].add_note(other.what)
    return faults[0]
