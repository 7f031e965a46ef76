"""Settings of the tiling stage. The sentence under a field is its help text, its YAML comment and its documentation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Share = Annotated[float, Field(ge=0, le=1)]


class StageConfig(BaseModel):
    """Base of every config: frozen, and a key that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TissueConfig(StageConfig):
    """How tissue is told from glass, pen and blur on the overview image."""

    mask_um: PositiveFloat = 8.0
    """Side of a mask pixel, micrometres."""
    min_area_um2: float = Field(default=20_000.0, ge=0)
    """Smaller specks are taken for dust, square micrometres."""
    reject_pen: bool = True
    """Leave out pixels of pen marks (blue, green, black, red)."""
    reject_blur: bool = True
    """Leave out tissue that is out of focus."""


class TileConfig(StageConfig):
    """Slides -> patch stores."""

    slides: Path
    """A slide, a folder of slides, or a manifest CSV with columns `slide_id`, `path` and optionally `mpp`."""
    out: Path
    """Folder that receives one `<slide_id>.zarr` per slide, and `tile_report.csv`."""
    mpp: PositiveFloat = 0.5
    """Resolution of the store, micrometres per pixel (0.5 is about 20x)."""
    tile_px: PositiveInt = Field(default=256, multiple_of=32)
    """Side of a tile in store pixels; a multiple of 32."""
    mpp_if_missing: PositiveFloat | None = None
    """Resolution of level 0 for slides that do not state theirs; without it such slides fail, none is guessed."""
    min_tissue: Share = 0.1
    """Keep a tile if at least this share of it is tissue."""
    tissue: TissueConfig = TissueConfig()
    """How tissue is found."""
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    """JPEG quality of the stored tiles."""
    jpeg_subsampling: Literal["444", "422", "420"] = "444"
    """Chroma subsampling of the stored tiles."""
    shard_tiles: PositiveInt = 1024
    """Tiles in one shard (one file) of the store."""
    workers: PositiveInt = 2
    """Slides tiled at the same time."""
    overwrite: bool = False
    """Tile again what is already complete."""
