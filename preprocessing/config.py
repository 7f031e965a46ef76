"""Settings of the tiling stage. The sentence under a field is its help text, its YAML comment and its documentation.

Every number that determines the memory or time of a run has an upper bound.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, field_validator, model_validator

MAX_TILE_PX = 4096
"""Maximum side of a tile, pixels; such a tile has 50 MB of pixels."""
MAX_CANVAS_PX = 1 << 18
"""Maximum side of a canvas, pixels."""
Share = Annotated[float, Field(ge=0, le=1)]
Area = Annotated[float, Field(ge=0, le=1e12)]


class StageConfig(BaseModel):
    """Base class of every config. Instances are frozen, numbers are finite, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # labels that YAML reads as numbers become texts again
    )

    @model_validator(mode="before")
    @classmethod
    def _no_empty_path(cls, values: object) -> object:
        """Refuse an empty text as a path, which would mean the working directory.

        It usually comes from a shell variable that is not set.
        """
        for name, value in values.items() if isinstance(values, dict) else ():
            if (value == "" or (isinstance(value, list | tuple) and "" in value)) and name in cls.model_fields:
                annotation = cls.model_fields[name].annotation
                if Path in (annotation, *get_args(annotation)):
                    raise ValueError(f"{name} is an empty path")
        return values

    @field_validator("*")
    @classmethod
    def _as_shells_do(cls, value: object) -> object:
        """Expand `~` in paths, and refuse paths that no file system can have."""
        if isinstance(value, dict):
            return {name: _expanded(v) if isinstance(v, Path) else v for name, v in value.items()}
        if isinstance(value, tuple):
            return tuple(_expanded(v) if isinstance(v, Path) else v for v in value)
        return _expanded(value) if isinstance(value, Path) else value


def _expanded(path: Path) -> Path:
    if "\0" in str(path) or any("\ud800" <= c <= "\udfff" for c in str(path)):
        raise ValueError("a path cannot contain NUL or characters that are not UTF-8")
    with suppress(RuntimeError):  # there is no such user, but a folder may have that name
        return path.expanduser()
    return path


class TissueConfig(StageConfig):
    """Settings of tissue detection: how tissue is separated from glass, pen and blur on the overview image."""

    mask_um: float = Field(default=8.0, gt=0, le=100)
    """Side of a mask pixel, micrometres."""
    min_area_um2: Area = 20_000.0
    """Smaller pieces of tissue are discarded as dust, square micrometres."""
    reject_pen: bool = True
    """Exclude pixels of pen marks (blue, green, black, red)."""
    reject_blur: bool = True
    """Exclude tissue that is out of focus."""
    fill_holes_um2: Area = 0.0
    """Smaller holes in tissue count as tissue, square micrometres; 0 keeps every hole."""
    masks: Path | None = None
    """Folder of your own masks, used instead of detection: one `<slide_id>.geojson` (QuPath) or `.png` per slide."""
    geojson_frame: Literal["qupath", "slide"] = "qupath"
    """Corner at which GeoJSON masks, read and written, begin on slides with empty borders (MRXS, SCN, BIF): `qupath`
    for the corner of the scanned part, all that QuPath shows; `slide` for the corner of the whole slide."""


class TileConfig(StageConfig):
    """Slides -> patch stores."""

    slides: tuple[Path, ...] = Field(min_length=1)
    """Slides, folders that are searched below, patterns, or lists: a CSV with columns `slide_id`, `path` and optionally
    `mpp`, a manifest of gdc-client, TRIDENT's `wsi,mpp`, a file with a path per line, or a QuPath project."""
    slides_folder: Path | None = None
    """Folder of the files of a list; by default the folder of the list. Files are searched by name below it."""
    id_from: Literal["name", "folder"] = "name"
    """Make the id of a slide of its file's name, or, if names repeat, of `<its folder>_<its name>`."""
    check_md5: bool = False
    """Compare each slide with its MD5 in the manifest of gdc-client before it is tiled."""
    out: Path
    """Output folder: one `<slide_id>.zarr` per slide, `tile_report.csv` and `tile_report.html`."""
    mpp: float = Field(default=0.5, ge=0.01, le=100)
    """Resolution of the store, micrometres per pixel (0.5 is about 20x)."""
    mpp_tolerance: Share = 0.02
    """Use a level of the slide unresampled if its mpp differs by at most this share; the store records its mpp."""
    canvas: int | None = Field(default=None, ge=1, le=MAX_CANVAS_PX)
    """Resize the whole slide to a square of this side, pixels, as the paper does (32768); `mpp` is then ignored."""
    tile_px: int = Field(default=256, ge=32, le=MAX_TILE_PX, multiple_of=32)
    """Side of a tile in store pixels; a multiple of 32."""
    mpp_if_missing: PositiveFloat | None = None
    """Resolution of level 0 for slides that do not state theirs, micrometres per pixel; without it such slides fail."""
    mpp_from_objective: bool = False
    """Use 10 / objective power (20x: 0.5) for slides that state only that; real scanners differ by about a tenth."""
    min_tissue: Share = 0.1
    """Keep a tile if at least this share of it is tissue; 0 also keeps glass."""
    tissue: TissueConfig = TissueConfig()
    """Settings of tissue detection."""
    pieces: bool = False
    """Number the pieces of tissue by the mask, in reading order: cores of a tissue microarray, or tissue of several
    patients on one glass. `pieces.csv` in `out` lists them, and the report shows their numbers. Without it, tiles that
    touch are a piece."""
    piece_gap_um: float = Field(default=50.0, ge=0, le=10_000)
    """Tissue closer than this is one piece, micrometres."""
    passthrough: bool = True
    """Copy the slide's JPEG data without loss if it has the store's mpp and its blocks fit the tiles; also faster."""
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    """JPEG quality of tiles encoded again, 1 to 100."""
    jpeg_subsampling: Literal["444", "422", "420"] | None = None
    """Chroma subsampling of tiles encoded again; by default the slide's own if pixels are not resized, else 444."""
    tolerate_bad_tiles: NonNegativeInt = 0
    """Maximum number of undecodable tiles per slide, which are left out and reported; a slide with more fails."""
    shard_tiles: int = Field(default=1024, ge=1, le=1 << 20)
    """Tiles per shard (one file) of the store."""
    workers: int = Field(default=2, ge=1, le=1024)
    """Number of threads: all work on a single slide, two on each of several slides, one on each of many."""
    accept: tuple[Literal["dark-field"], ...] = ()
    """Findings to accept; `dark-field` tiles slides that seem to be in fluorescence or dark field."""
    export_masks: Literal["geojson", "png"] | None = None
    """Also write each slide's mask to `masks/` in `out`, to correct in QuPath and pass back as `tissue.masks`."""
    overwrite: bool = False
    """Replace complete stores and stores made with other settings; the features in them are lost."""

    @field_validator("slides", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        """Pack a single path into a tuple."""
        return (value,) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _whole_tiles(self) -> "TileConfig":
        if self.canvas is not None and self.canvas % self.tile_px:
            raise ValueError(f"canvas {self.canvas} is not a multiple of tile_px {self.tile_px}")
        return self
