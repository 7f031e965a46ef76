"""Settings of explanations and of the viewer that shows them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from longvit import required
from preprocessing.config import StageConfig

Device = Literal["auto", "cpu", "cuda", "mps"]
Method = Literal["contribution", "received", "rollout", "pooling", "gradient", "integrated_gradients", "occlusion"]


class ExplainConfig(StageConfig):
    """Model + store -> which parts of the slide the prediction draws on."""

    model: Annotated[Path, required.MODEL]
    """A fold's `model.safetensors`."""
    store: Annotated[Path, required.ANY_STORES]
    """The slide's store, or a folder of stores."""
    out: Path
    """Folder that receives a folder named like each slide: scores, pictures, and files for QuPath."""
    target: str | None = None
    """Class to explain; default the predicted one. A survival model explains its log hazard."""
    methods: tuple[Method, ...] | None = Field(default=None, min_length=1)
    """Ways to explain; default `contribution`, where a class token is the slide's vector `integrated_gradients`, with
    `received` and `rollout`. `contribution`: exact share of each token behind the encoder; `integrated_gradients`: from
    the output back to the embedded tokens, on the way from a slide of average tokens; `gradient`: the same at the slide
    alone, as many times faster as `gradient_steps` says, less true; `occlusion`: what the output loses without a square
    of tokens (slow); `received`: attention received, in each layer and in all; `rollout`: attention rollout through all
    layers; `pooling`: weights of attention pooling. The last three show where the model looks, whatever it concludes.
    """
    rank: bool = False
    """Give ranks in place of scores, so that each colour covers the same area."""
    overlay_mpp: PositiveFloat | None = None
    """Resolution of the overlay, micrometres per pixel; default that of the store's small overview."""
    sheet_tiles: PositiveInt = 12
    """Tiles with the highest scores, and as many with the lowest, on the sheet of each method."""
    gradient_steps: PositiveInt = 16
    """Gradients that `integrated_gradients` takes between a slide of average tokens and the slide."""
    occlusion_side: PositiveInt = 4
    """Side of the squares that `occlusion` and `faithfulness` take out, tokens."""
    faithfulness: bool = False
    """Measure whether each map tells the truth of this slide: what the output does while squares of tokens leave, or
    come into an empty slide, highest scores first, beside a random order and one from the slide's centre; 22 passes a
    map."""
    pseudonyms: Path | None = None
    """File with a key: the slide goes by a name made of the key and its id (HMAC-SHA256). A file that does not exist is
    made; the same key gives the same names in `evaluate`, `explain` and `view`."""
    device: Device = "auto"
    """Where to compute."""
    overwrite: bool = False
    """Replace explanations of the same slides that were made with another model or other settings."""


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
