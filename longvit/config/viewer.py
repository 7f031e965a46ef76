"""Settings of `view`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from longvit.config import required
from preprocessing.config import StageConfig


class ViewConfig(StageConfig):
    """Run, stores or explanations -> a page that shows the slides, on this machine only."""

    source: Annotated[Path, required.SOURCE]
    """Folder of a `longvit finetune`, a store, a folder of stores, or a folder of explanations."""
    explanations: Annotated[Path | None, required.EXPLANATIONS] = None
    """Folder written by `longvit explain`; its heatmaps become layers over the slides."""
    stores: Annotated[Path | None, required.STORES] = None
    """Folder of stores, if they have moved since the run or the explanations were made."""
    slides: Annotated[Path | None, required.SLIDES] = None
    """Slide files that were tiled, as a folder or a manifest, shown at full resolution with the glass around the
    tissue. Default: the tiles of the stores."""
    pseudonyms: Path | None = None
    """File with a key. Patients and slides get names made of the key and their ids (HMAC-SHA256). A missing file is
    created; the same key gives the same names in `evaluate`, `explain` and `view`."""
    port: NonNegativeInt = Field(default=0, le=65535)
    """Port on 127.0.0.1; 0 chooses a free port."""
    browser: bool = True
    """Open the page in the browser."""
    static: Path | None = None
    """Folder to write the page to, instead of serving it. The page opens from disk or from any web server."""
    max_px: PositiveInt = Field(default=8192, ge=256)
    """Longest side of a slide's picture in that folder, pixels: 15 MB per slide at 8192, 60 MB at 16384."""
