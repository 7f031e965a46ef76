"""Settings of the viewer."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

from preprocessing.config import StageConfig


class ViewConfig(StageConfig):
    """A run, stores or explanations -> a page to look at the slides with, on this machine only."""

    source: Path
    """Folder of a `longvit finetune`, a store, a folder of stores, or a folder of explanations."""
    explanations: Path | None = None
    """Folder that `longvit explain` wrote: its heatmaps are layers over the slides."""
    stores: Path | None = None
    """Folder of stores, if they are no longer where the run or the explanations found them."""
    slides: Path | None = None
    """The slides that were tiled, a folder or a manifest: full resolution, glass too. Default: the stores' tiles."""
    port: NonNegativeInt = Field(default=0, le=65535)
    """Port on 127.0.0.1; 0 takes one that is free."""
    browser: bool = True
    """Open the page in the browser."""
    static: Path | None = None
    """Write the page to this folder instead; it opens from disk or lies on any web server."""
    max_px: PositiveInt = Field(default=8192, ge=256)
    """Longest side of a slide's picture in such a folder, pixels: 15 MB a slide at 8192, 60 at 16384."""
