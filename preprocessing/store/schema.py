"""The store's schema: arrays and attributes of `<slide_id>.zarr`, version 2. `preprocessing.store.rules` checks it.

A store is one Zarr v3 group per slide. `preprocessing` writes it, and `longvit` reads it through
`preprocessing.store.store`. No other module contains a key. A new layout is a new `SCHEMA_VERSION`.

Stores of version 1 can be read. Version 2 adds:

- `arrays`: names of the arrays in the store. Only `rc` and `xy_l0` are required. A store of imported features without
  pixels has no `tiles`. It may also lack `overview`, `overview_mask`, `tissue` and the slide's size and hash, and may
  have 0 tiles. A listed array that is missing is an error.
- `lattice`: true if every tile is a cell of the grid, as in the stores of `tile`. Otherwise `xy_l0` is authoritative.
  Then `rc` is the cell nearest to each tile and may repeat: tiles overlap, or each piece of tissue has its own grid.
- `bounds_l0`: the scanned part of level 0, for slides with empty borders.
- The arrays `piece` and `crc32c`, below. Pieces are tiles with tissue that touch; or, with the setting `pieces` of
  `tile`, pieces of the mask; a piece without tiles leaves out its number.
- Attributes of features: `encoder`, and `values_sha256`, with which the values are compared when they are read.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, NonNegativeInt, PositiveInt

from preprocessing.config import MAX_TILE_PX
from preprocessing.store.arrays import IMAGE, PLAIN, SHARDED

SCHEMA_VERSION = 2
"""Version of the layout below; stores of a later version are refused."""
MAX_PIXELS = 1 << 38
"""Most pixels of level 0. A whole glass slide, 75 x 26 mm, has 2e11 at 0.1 micrometres per pixel."""
MAX_TILES = 1 << 26
"""Most tiles of a slide, with tiles of glass: 262,144 x 262,144 pixels in tiles of 32."""
MAX_PIECES = 1 << 24
"""Most pieces of tissue of a slide, with or without tiles; an overview has no more pixels."""
MAX_OVERVIEW_PX = 4096
"""Longest side of an overview. Slides of more than 33 mm have larger overview pixels than the usual 8 um instead."""
MppSource = Literal["manifest", "metadata", "objective", "flag"]
"""Source of a slide's resolution."""


@dataclass(frozen=True)
class ArraySpec:
    """Specification of an array of the store."""

    axes: tuple[str, ...]
    dtypes: tuple[str, ...]
    meaning: str
    codecs: tuple[tuple[str, ...], ...] = PLAIN
    """Chains of codecs that the array may have."""


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
"""Arrays that a store may have. Arrays of features, `embeddings/<name>`, may be added later."""

FIRST: tuple[ArrayName, ...] = ("tiles", "xy_l0", "rc", "tissue", "overview", "overview_mask")
"""Arrays of schema 1; all of them are required there."""
SINCE_2 = frozenset({"arrays", "lattice", "bounds_l0"})
"""Attributes that schema 1 does not have."""

EMBEDDING = ArraySpec(("tile", "channel"), ("float16", "float32"), "One vector per tile.")
"""Specification of an array of features."""

MASK_CLASSES = {"glass": 0, "tissue": 1, "pen": 2, "blurred": 3}
"""Values of `overview_mask`."""


def _inside(name: str) -> str:
    for path in (PurePosixPath(name), PureWindowsPath(name)):  # a store may be copied from one system to the other
        if not path.parts or path.anchor or ".." in path.parts:
            raise ValueError("is not the name of a file next to the slide")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Source(BaseModel):
    """Files that a store was made from: the files of a slide, or a mask.

    `size` and `sha256` cover all files together. Both are null in a store of features imported without the slide.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FileName
    """Name of the file that was opened."""
    more: Annotated[tuple[FileName, ...], FailFast()] = ()
    """Names of the slide's other files, relative to the folder of the opened file."""
    size: NonNegativeInt | None = None
    sha256: str | None = None


class StoreAttributes(BaseModel):
    """Attributes of the store's group. Resolutions are micrometres per pixel, sizes (width, height) in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    slide_id: str = Field(min_length=1)
    source: Source
    vendor: str
    mpp: Length
    mpp_source: MppSource
    mpp_level0: Length
    size_l0: tuple[PositiveInt, PositiveInt]
    """Size of the slide with its empty borders; of features imported without a slide, at least the tiles' extent."""
    bounds_l0: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None = None
    """Left, top, width and height of the scanned part; null if the file states none that is within the slide."""
    tile_st: int = Field(ge=1, le=MAX_TILE_PX)
    grid_shape: tuple[PositiveInt, PositiveInt]
    side_l0: tuple[Length, Length]
    lattice: bool = True
    """True if each tile is the cell `rc` of the grid, and no cell has two tiles."""
    arrays: Annotated[tuple[ArrayName, ...], Field(max_length=len(ARRAYS)), FailFast()] = FIRST
    """Names of the arrays in the store."""
    config: dict[str, Any]
    versions: dict[str, str]
    mask: Source | None = None
    passthrough: bool = False
    warnings: Annotated[list[str], FailFast()] = []
    complete: bool = False


def encoders(path: Path) -> list[str]:
    """Return the sorted names of the features in the store at `path`, without features that are being written."""
    return sorted(document.parent.name for document in path.glob("embeddings/[!.]*/zarr.json"))
