"""Settings of the viewer."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from longvit.config import required
from preprocessing.config import StageConfig


class ViewConfig(StageConfig):
    """A run, stores or explanations -> a page to look at the slides with, on this machine only."""

    source: Annotated[Path, required.SOURCE]
    """Folder of a `longvit finetune`, a store, a folder of stores, or a folder of explanations."""
    explanations: Annotated[Path | None, required.EXPLANATIONS] = None
    """Folder that `longvit explain` wrote: its heatmaps are layers over the slides."""
    stores: Annotated[Path | None, required.STORES] = None
    """Folder of stores, if they are no longer where the run or the explanations found them."""
    slides: Annotated[Path | None, required.SLIDES] = None
    """The slides that were tiled, a folder or a manifest: full resolution, glass too. Default: the stores' tiles."""
    pseudonyms: Path | None = None
    """File with a key: patients and slides are shown by names made of the key and their ids (HMAC-SHA256). A file that
    does not exist is made; the same key gives the same names in `evaluate`, `explain` and `view`."""
    port: NonNegativeInt = Field(default=0, le=65535)
    """Port on 127.0.0.1; 0 takes one that is free."""
    browser: bool = True
    """Open the page in the browser."""
    static: Path | None = None
    """Write the page to this folder instead; it opens from disk or lies on any web server."""
    max_px: PositiveInt = Field(default=8192, ge=256)
    """Longest side of a slide's picture in such a folder, pixels: 15 MB a slide at 8192, 60 at 16384."""
