"""Settings of the tiling stage. The sentence under a field is its help text, its YAML comment and its documentation.

Every number that decides how much memory or time a run takes has an upper bound.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, field_validator, model_validator

MAX_TILE_PX = 4096
"""Side of a tile; 50 MB of pixels."""
MAX_CANVAS_PX = 1 << 18
"""Side of a canvas."""
Share = Annotated[float, Field(ge=0, le=1)]
Area = Annotated[float, Field(ge=0, le=1e12)]


class StageConfig(BaseModel):
    """Base of every config: frozen, numbers are finite, and a key that does not exist is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # a label that is a number in YAML is its text
    )

    @model_validator(mode="before")
    @classmethod
    def _no_empty_path(cls, values: object) -> object:
        """Refuse an empty text as a path (a shell variable that is not set): it would be the working directory."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if value == "" and name in cls.model_fields:
                annotation = cls.model_fields[name].annotation
                if Path in (annotation, *get_args(annotation)):
                    raise ValueError(f"{name} is an empty path")
        return values

    @field_validator("*")
    @classmethod
    def _as_shells_do(cls, value: object) -> object:
        """Expand `~` in paths; refuse those that no system could have."""
        if isinstance(value, dict):
            return {name: _expanded(v) if isinstance(v, Path) else v for name, v in value.items()}
        return _expanded(value) if isinstance(value, Path) else value


def _expanded(path: Path) -> Path:
    if "\0" in str(path) or any("\ud800" <= c <= "\udfff" for c in str(path)):
        raise ValueError("a path cannot have NUL or characters that are not UTF-8")
    with suppress(RuntimeError):  # no such user: a folder may have that name
        return path.expanduser()
    return path


class TissueConfig(StageConfig):
    """How tissue is told from glass, pen and blur on the overview image."""

    mask_um: float = Field(default=8.0, gt=0, le=100)
    """Side of a mask pixel, micrometres."""
    min_area_um2: Area = 20_000.0
    """Smaller specks are taken for dust, square micrometres."""
    reject_pen: bool = True
    """Leave out pixels of pen marks (blue, green, black, red)."""
    reject_blur: bool = True
    """Leave out tissue that is out of focus."""
    fill_holes_um2: Area = 0.0
    """Count holes in tissue smaller than this as tissue, square micrometres; 0 keeps every hole."""
    masks: Path | None = None
    """Folder with your own masks, one `<slide_id>.geojson` (QuPath) or `<slide_id>.png` for each slide."""


class TileConfig(StageConfig):
    """Slides -> patch stores."""

    slides: Path
    """A slide, a folder of slides, or a manifest CSV with columns `slide_id`, `path` and optionally `mpp`."""
    out: Path
    """Folder that receives one `<slide_id>.zarr` per slide, and `tile_report.csv`."""
    mpp: float = Field(default=0.5, ge=0.01, le=100)
    """Resolution of the store, micrometres per pixel (0.5 is about 20x)."""
    mpp_tolerance: Share = 0.02
    """Take a level of the slide as it is if its resolution is as near as this share; the store says which it has."""
    canvas: int | None = Field(default=None, ge=1, le=MAX_CANVAS_PX)
    """Squeeze the whole slide to a square of so many pixels, as the paper does, whatever its mpp; 32768, for one."""
    tile_px: int = Field(default=256, ge=32, le=MAX_TILE_PX, multiple_of=32)
    """Side of a tile in store pixels; a multiple of 32."""
    mpp_if_missing: PositiveFloat | None = None
    """Resolution of level 0 for slides that do not state theirs; without it such slides fail, none is guessed."""
    mpp_from_objective: bool = False
    """Take 10 / objective power (20x: 0.5) for slides that state only that; scanners differ from it by a tenth."""
    min_tissue: Share = 0.1
    """Keep a tile if at least this share of it is tissue; 0 keeps the glass too."""
    tissue: TissueConfig = TissueConfig()
    """How tissue is found."""
    passthrough: bool = True
    """Keep the slide's own JPEG data where its mpp is the store's and its blocks fit the tiles: lossless and fast."""
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    """JPEG quality of the tiles that are encoded."""
    jpeg_subsampling: Literal["444", "422", "420"] | None = None
    """Chroma subsampling of encoded tiles; by default the slide's own where pixels keep their size, else 444."""
    tolerate_bad_tiles: NonNegativeInt = 0
    """Leave out up to so many tiles that cannot be decoded, and say so, before the slide fails."""
    shard_tiles: int = Field(default=1024, ge=1, le=1 << 20)
    """Tiles in one shard (one file) of the store."""
    workers: int = Field(default=2, ge=1, le=1024)
    """Threads that work at the same time: all on a single slide, two to a slide of several, one to a slide of many."""
    export_masks: Literal["geojson", "png"] | None = None
    """Also write each slide's mask to `masks/` beside the stores: to mend in QuPath and give back as `tissue.masks`."""
    overwrite: bool = False
    """Replace stores that are complete, or were made with other settings; their features are lost."""

    @model_validator(mode="after")
    def _whole_tiles(self) -> "TileConfig":
        if self.canvas is not None and self.canvas % self.tile_px:
            raise ValueError(f"canvas {self.canvas} is not a multiple of tile_px {self.tile_px}")
        return self
