"""The store's schema: arrays and attributes of `<slide_id>.zarr`, version 2. `preprocessing.store.rules` checks it.

One Zarr v3 group per slide. `preprocessing` writes it, `longvit` reads it through `preprocessing.store.store`, and no
other module contains a key. A new layout is a new `SCHEMA_VERSION`.

Version 2 adds to version 1, which opens:

- `arrays`: the arrays that the store has. Only `rc` and `xy_l0` are required: features that were brought without pixels
  have no `tiles`, and may lack `overview`, `overview_mask`, `tissue`, size and hash of the slide, or be of 0 tiles. An
  array that is listed and not there is lost, which is an error.
- `lattice`: true if the tiles are cells of the grid, as those of `tile` are. Else `xy_l0` is the truth, and `rc`, the
  cell nearest to each tile, may repeat: tiles overlap, or each piece of tissue has a grid of its own.
- `bounds_l0`: the part of level 0 that was scanned, for slides with empty borders.
- `piece` and `crc32c`, below.
- The attributes of features: `encoder`, and `values_sha256`, which is compared when they are read.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, NonNegativeInt, PositiveInt

from preprocessing.config import MAX_TILE_PX
from preprocessing.store.arrays import IMAGE, PLAIN, SHARDED

SCHEMA_VERSION = 2
"""Version of the layout below; stores of a later version are refused."""
MAX_PIXELS = 1 << 38
"""Pixels of level 0. A whole glass slide, 75 x 26 mm, at 0.1 micrometres has 2e11; nobody scans more."""
MAX_TILES = 1 << 26
"""Tiles of a slide, glass too: 262,144 x 262,144 pixels in tiles of 32."""
MAX_OVERVIEW_PX = 4096
"""Longer side of an overview: slides of more than 33 mm get larger overview pixels than the usual 8 um, not more."""
MppSource = Literal["manifest", "metadata", "objective", "flag"]
"""Where the resolution of a slide comes from."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store."""

    axes: tuple[str, ...]
    dtypes: tuple[str, ...]
    meaning: str
    codecs: tuple[tuple[str, ...], ...] = PLAIN
    """The chains of codecs that the array may have."""


ArrayName = Literal["tiles", "xy_l0", "rc", "tissue", "overview", "overview_mask", "piece", "crc32c"]

ARRAYS: dict[ArrayName, ArraySpec] = {
    "tiles": ArraySpec(
        ("tile", "y", "x", "rgb"),
        ("uint8",),
        "RGB at the store's mpp; white where the scanner saw nothing.",
        (SHARDED,),
    ),
    "xy_l0": ArraySpec(("tile", "axis"), ("int64",), "Top-left corner x, y of each tile, level-0 pixels."),
    "rc": ArraySpec(("tile", "axis"), ("int32",), "Row and column of each tile in the store's grid."),
    "tissue": ArraySpec(("tile",), ("float32",), "Share of the tile that is tissue, 0 to 1."),
    "overview": ArraySpec(("y", "x", "rgb"), ("uint8",), "The whole slide, small.", IMAGE),
    "overview_mask": ArraySpec(
        ("y", "x"), ("uint8",), "0 glass, 1 tissue, 2 pen, 3 blurred; same pixels as the overview."
    ),
    "piece": ArraySpec(
        ("tile",),
        ("int32",),
        "Connected piece of tissue that each tile is a part of, from 0; -1 unknown or none.",
    ),
    "crc32c": ArraySpec(("tile",), ("uint32",), "CRC-32C of the JPEG of each tile."),
}
"""The arrays that a store may have; `embeddings/<encoder>` may be added later."""

FIRST: tuple[ArrayName, ...] = ("tiles", "xy_l0", "rc", "tissue", "overview", "overview_mask")
"""The arrays of schema 1, all of which its stores have."""
SINCE_2 = frozenset({"arrays", "lattice", "bounds_l0"})
"""The attributes that schema 1 has not."""

EMBEDDING = ArraySpec(("tile", "channel"), ("float16", "float32"), "One vector per tile.")
"""An array of embeddings."""

MASK_CLASSES = {"glass": 0, "tissue": 1, "pen": 2, "blurred": 3}
"""Values of `overview_mask`."""


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError("is not the name of a file next to the slide")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Source(BaseModel):
    """The files that a store was made from: a slide or a mask. `size` and `sha256` are of all of them together.

    Both are null if features were brought without the slide.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FileName
    """The file that was opened."""
    more: Annotated[tuple[FileName, ...], FailFast()] = ()
    """Those that the slide has besides, from the opened one's folder."""
    size: int | None = None
    sha256: str | None = None


class StoreAttributes(BaseModel):
    """The attributes of the store's group. Resolutions are micrometres per pixel, sizes (width, height) in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    slide_id: str = Field(min_length=1)
    source: Source
    vendor: str
    mpp: Length
    mpp_source: MppSource
    mpp_level0: Length
    size_l0: tuple[PositiveInt, PositiveInt]
    """Of the slide with its empty borders; of features brought without it, at least the extent of the tiles."""
    bounds_l0: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None = None
    """Left, top, width and height of the part that was scanned; null if the file states none, or ends there."""
    tile_st: int = Field(ge=1, le=MAX_TILE_PX)
    grid_shape: tuple[PositiveInt, PositiveInt]
    side_l0: tuple[Length, Length]
    lattice: bool = True
    """Whether each tile is the cell `rc` of the grid, and no two tiles the same."""
    arrays: Annotated[tuple[ArrayName, ...], Field(max_length=len(ARRAYS)), FailFast()] = FIRST
    """The arrays that the store has."""
    config: dict[str, Any]
    versions: dict[str, str]
    mask: Source | None = None
    passthrough: bool = False
    warnings: Annotated[list[str], FailFast()] = []
    complete: bool = False


def encoders(path: Path) -> list[str]:
    """Names of the tile encoders whose embeddings the store at `path` holds; not those that are being written."""
    return sorted(document.parent.name for document in path.glob("embeddings/[!.]*/zarr.json"))
